// The engine end to end on stores in RAM, with the toy model. engine_on_disk_test.cc tests its
// directories.
//
// These tests check what a person would check by hand. Recalled text equals the ingested text:
// every citation is compared with the bytes that it names in the original. Forgotten text is gone.
// Bad input or damage gives a message that names it and leaves the memory unchanged. Answer quality
// is not judged: the toy model generates the answer that the test sets. Sizes: texts of 4,000 to
// 12,000 tokens, one to three commits, two documents.
#include "memory/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "store/memory_name.h"
#include "tests/memory/engine_fixture.h"
#include "tests/support/sanitized.h"

namespace longhold {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using Outcome = IngestReport::Outcome;

TEST_F(EngineTest, AnswersFromMemoryWithCitationsThatMatchTheirBytes) {
  const std::map<std::string, std::string> originals = {{"tale", Tale()},
                                                        {"other", RandomText(5000, 3)}};
  for (const auto& [name, text] : originals) {
    const Result<IngestReport> r = Ingest(name, text);
    ASSERT_TRUE(r.ok()) << r.status().ToString();
    EXPECT_EQ(r->outcome, Outcome::kIngested);
  }
  for (const uint32_t workers : {1u, 3u}) {
    Restart({.workers = workers, .answer = "  It is 7350194, café 日本 😀.\n"});
    AskOptions options;
    options.system = "Answer shortly.";
    options.answer_prefix = "The number";
    std::string shown;
    options.on_text = [&](std::string_view piece) {
      EXPECT_FALSE(piece.empty());
      EXPECT_NE(static_cast<uint8_t>(piece[0]) & 0xC0, 0x80) << "a piece begins inside a character";
      shown += piece;
    };
    const Result<AskReply> r = engine_->Ask("tales", kQuestion, options);
    ASSERT_TRUE(r.ok()) << r.status().ToString();
    EXPECT_EQ(r->answer, "It is 7350194, café 日本 😀.");
    EXPECT_THAT(shown, HasSubstr(r->answer));
    EXPECT_FALSE(r->cut);
    EXPECT_EQ(r->degradation.blocks_lost, 0u);
    EXPECT_GT(r->blocks_read, 0u);
    EXPECT_GT(r->bytes_read, r->blocks_read * 1000);
    EXPECT_GE(r->coverage, 0.0);
    EXPECT_LE(r->coverage, 1.0);
    ASSERT_FALSE(r->citations.empty());
    EXPECT_EQ(r->citations.size(), r->spans);
    double total = 0;
    uint64_t tokens = 0;
    bool cited = false;
    for (size_t i = 0; i < r->citations.size(); ++i) {
      const Citation& c = r->citations[i];
      EXPECT_EQ(c.index, i + 1);
      ASSERT_TRUE(originals.contains(c.span.document));
      ExpectPlace(c.span, originals.at(c.span.document));
      EXPECT_FALSE(c.span.reasons.empty());
      EXPECT_LE(c.span.score, i == 0 ? 1.0 : r->citations[i - 1].span.score);
      total += c.span.score;
      tokens += c.span.tokens.size();
      cited |= c.span.text.find(kNeedle) != std::string::npos;
    }
    EXPECT_NEAR(total, 1.0, 1e-9);
    EXPECT_EQ(tokens, r->tokens_recalled);
    EXPECT_TRUE(cited);
  }
}

TEST_F(EngineTest, TenantsCannotReachEachOthersMemories) {
  const std::string tale = Tale();
  ASSERT_TRUE(Ingest("tale", tale).ok());
  ASSERT_TRUE(engine_->Ingest("acme/tales", {"tale", tale}, nullptr, nullptr).ok());
  ASSERT_TRUE(engine_->Ingest("acme/notes", {"note", PlainText(500, 3)}, nullptr, nullptr).ok());
  ASSERT_TRUE(engine_->Ingest("other/tales", {"tale", PlainText(700, 4)}, nullptr, nullptr).ok());
  const auto names = [&](const std::string& tenant) {
    std::string all;
    const Result<std::vector<MemoryInfo>> list = engine_->List(tenant);
    EXPECT_TRUE(list.ok());
    for (const MemoryInfo& info : *list) all += info.name + " ";
    return all;
  };
  EXPECT_EQ(names(""), "tales acme/notes acme/tales other/tales ");
  EXPECT_EQ(names("acme"), "acme/notes acme/tales ");
  EXPECT_EQ(names("none"), "");
  const Result<RecallReply> found = engine_->Recall("acme/tales", kQuestion, {});
  ASSERT_TRUE(found.ok()) << found.status().ToString();
  const Result<RecallReply> others = engine_->Recall("other/tales", kQuestion, {});
  ASSERT_TRUE(others.ok());
  for (const RecalledSpan& span : others->spans)
    EXPECT_EQ(span.text.find("Methuselah"), std::string::npos);
  // An export does not name its owner and can be imported by anybody.
  std::string bytes;
  ASSERT_TRUE(engine_
                  ->Export("acme/tales",
                           [&](std::string_view piece) {
                             bytes += piece;
                             return OkStatus();
                           })
                  .ok());
  size_t at = 0;
  const ByteSource source = [&](std::span<char> out) -> Result<size_t> {
    const size_t count = std::min(out.size(), bytes.size() - at);
    std::copy_n(bytes.data() + at, count, out.data());
    at += count;
    return count;
  };
  const Result<TransferReport> imported = engine_->Import(source, "third/copy");
  ASSERT_TRUE(imported.ok()) << imported.status().ToString();
  EXPECT_EQ(names("third"), "third/copy ");
  EXPECT_TRUE(engine_->Verify("third/copy").ok());
  ASSERT_TRUE(engine_->Forget("acme/tales", "", true).ok());
  EXPECT_EQ(names("acme"), "acme/notes ");
  EXPECT_TRUE(engine_->Exists("tales").ok());
  Restart();
  EXPECT_EQ(names(""), "tales acme/notes other/tales third/copy ");
}

TEST_F(EngineTest, RecallFindsTheNeedleAndNamesTheReason) {
  const std::string text = Tale();
  ASSERT_TRUE(Ingest("tale", text).ok());
  const Result<RecallReply> r = engine_->Recall("tales", kQuestion, {});
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  ASSERT_FALSE(r->spans.empty());
  EXPECT_THAT(r->spans[0].text, HasSubstr(kNeedle));
  EXPECT_THAT(r->spans[0].reasons, Contains("words"));
  EXPECT_EQ(r->spans[0].score, 1.0);
  for (const RecalledSpan& s : r->spans) ExpectPlace(s, text);
  EXPECT_GE(r->candidates, r->spans.size());
  const Result<RecallReply> one = engine_->Recall("tales", kQuestion, {.spans_max = 1});
  ASSERT_TRUE(one.ok());
  EXPECT_EQ(one->spans.size(), 1u);
  // Asking changes nothing: the same question gets the same answer.
  const Result<RecallReply> again = engine_->Recall("tales", kQuestion, {});
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->coverage, r->coverage);
  EXPECT_EQ(again->spans.size(), r->spans.size());
}

TEST_F(EngineTest, EverySpanOfEveryQuestionMatchesItsBytesOfTheText) {
  const std::string text = RandomText(9000, 5);
  ASSERT_TRUE(Ingest("tale", text).ok());
  for (const char* question : {"Isaac", "key number 7?", "日本 語", "x", "\xf0\x9f\x98\x80",
                               "the the the and and", "1234567"}) {
    const Result<RecallReply> r = engine_->Recall("tales", question, {.spans_max = 64});
    ASSERT_TRUE(r.ok()) << question << ": " << r.status().ToString();
    for (const RecalledSpan& s : r->spans) ExpectPlace(s, text);
  }
}

TEST_F(EngineTest, GreedyAnswersEndAtTheLimitAndDoNotDependOnWorkers) {
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  std::string answer;
  for (const uint32_t workers : {1u, 2u}) {
    Restart({.workers = workers, .chat = true});
    AskOptions options;
    options.max_tokens = 20;
    const Result<AskReply> r = engine_->Ask("tales", kQuestion, options);
    ASSERT_TRUE(r.ok()) << r.status().ToString();
    EXPECT_TRUE(r->completion_tokens == 20 || !r->cut);
    if (workers == 1) answer = r->answer;
    EXPECT_EQ(r->answer, answer);
  }
}

TEST_F(EngineTest, StopsBetweenTokensWhenCancelled) {
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  Restart({.chat = true, .answer = "one two three four five six"});
  std::atomic<bool> stop{false};
  AskOptions options;
  options.stop = &stop;
  options.on_text = [&](std::string_view) { stop = true; };
  const Result<AskReply> r = engine_->Ask("tales", kQuestion, options);
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(r->completion_tokens, 1u);
  EXPECT_EQ(r->answer, "o");
}

TEST_F(EngineTest, AnEncryptedMemoryAnswersOnlyWithItsKey) {
  const std::string key(32, 'k');
  ASSERT_TRUE(Ingest("tale", Tale()).ok());  // into a plain memory, tales
  const auto open = [&](const std::string& with) {
    engine_ =
        std::make_unique<Engine>(stores_.get(), EngineOptions{.encryption_key = Secret(with)});
    const RecallProfile profile = Profile();
    return engine_->UseModel(model_.get(), &profile);
  };
  const auto answer = [&](const std::string& memory) {
    const Result<AskReply> reply =
        engine_->Ask(memory, kQuestion, {.answer_prefix = "The number", .max_tokens = 8});
    return reply.ok() ? reply->answer + std::to_string(reply->citations.size())
                      : reply.status().message();
  };
  const std::string plain = answer("tales");
  ASSERT_TRUE(open(key).ok());
  ASSERT_TRUE(engine_->Ingest("secret", {"tale", Tale()}, nullptr, nullptr).ok());
  EXPECT_EQ(answer("secret"), plain);
  EXPECT_EQ(answer("tales"), plain) << "what is plain is read as before";
  EXPECT_THAT(engine_->TakeNotes(), testing::Contains(HasSubstr("without encryption")));
  EXPECT_TRUE(engine_->Verify("secret").ok());
  // Export gives plain data; import encrypts it again.
  std::string exported;
  ASSERT_TRUE(engine_
                  ->Export("secret",
                           [&](std::string_view bytes) {
                             exported += bytes;
                             return OkStatus();
                           })
                  .ok());
  size_t at = 0;
  ASSERT_TRUE(engine_
                  ->Import(
                      [&](std::span<char> out) -> Result<size_t> {
                        const size_t n = std::min(out.size(), exported.size() - at);
                        std::copy_n(exported.data() + at, n, out.data());
                        at += n;
                        return n;
                      },
                      "again")
                  .ok());
  EXPECT_EQ(answer("again"), plain);
  for (const std::string& other : {std::string(), std::string(32, 'x')}) {
    ASSERT_TRUE(open(other).ok());
    for (const char* memory : {"secret", "again"}) {
      EXPECT_THAT(answer(memory), HasSubstr("encrypted")) << memory;
      EXPECT_EQ(engine_->Ingest(memory, {"more", "text"}, nullptr, nullptr).status().code(),
                StatusCode::kFailedPrecondition);
    }
    EXPECT_EQ(answer("tales"), plain);
    EXPECT_EQ(engine_->List()->size(), 3u) << "and they are listed";
  }
  ASSERT_TRUE(engine_->Forget("secret", "", true).ok()) << "forgetting needs no key";
}

TEST_F(EngineTest, StopsAtItsDeadline) {
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  Restart({.chat = true, .answer = "one two three four five six"});
  AskOptions options;
  options.focused().deadline = std::chrono::steady_clock::now();
  EXPECT_EQ(engine_->Ask("tales", kQuestion, options).status().code(),
            StatusCode::kDeadlineExceeded);
  options.focused().deadline = std::chrono::steady_clock::now() + std::chrono::hours(1);
  EXPECT_FALSE(engine_->Ask("tales", kQuestion, options)->cut);
  // as if the first token had taken that long
  options.on_text = [&](std::string_view) {
    options.focused().deadline = std::chrono::steady_clock::now();
  };
  const Result<AskReply> r = engine_->Ask("tales", kQuestion, options);
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  EXPECT_EQ(r->answer, "o");
  EXPECT_TRUE(r->cut);
}

TEST_F(EngineTest, ShowAndListReportTheContents) {
  EXPECT_TRUE(engine_->List()->empty());
  const std::string text = Tale();
  ASSERT_TRUE(Ingest("tale", text).ok());
  std::atomic<bool> stop{false};
  ASSERT_TRUE(engine_
                  ->Ingest("second", {"long", PlainText(3000, 4)}, &stop,
                           [&](const IngestProgress& p) { stop = p.step == IngestStep::kReading; })
                  .ok());
  engine_ = std::make_unique<Engine>(stores_.get(), EngineOptions{});  // without a model
  const Result<std::vector<MemoryInfo>> list = engine_->List();
  ASSERT_TRUE(list.ok()) << list.status().ToString();
  ASSERT_EQ(list->size(), 2u);
  EXPECT_EQ((*list)[0].name, "second");
  EXPECT_EQ((*list)[1].name, "tales");
  const MemoryInfo info = *engine_->Show("tales");
  EXPECT_EQ(info.model, "toy");
  EXPECT_EQ(info.codec, kDefaultCodec);
  ASSERT_EQ(info.documents.size(), 1u);
  EXPECT_EQ(info.documents[0].name, "tale");
  EXPECT_EQ(info.documents[0].bytes, text.size());
  EXPECT_EQ(info.documents[0].tokens, info.documents[0].committed_tokens);
  EXPECT_EQ(info.tokens, info.documents[0].tokens);
  EXPECT_GT(info.disk_bytes, 1000u);
  EXPECT_EQ((*list)[0].documents[0].committed_tokens, 512u);
  EXPECT_EQ((*list)[0].tokens_read, 512u);
  EXPECT_EQ((*list)[0].documents[0].searchable_tokens, (*list)[0].documents[0].tokens);
  EXPECT_EQ((*list)[0].tokens, (*list)[0].documents[0].tokens);
}

TEST_F(EngineTest, ForgettingADocumentOrAMemoryLeavesTheRest) {
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  ASSERT_TRUE(Ingest("other", PlainText(2000, 9)).ok());
  const Status missing = engine_->Forget("tales", "no such", false);
  EXPECT_EQ(missing.code(), StatusCode::kNotFound);
  EXPECT_THAT(missing.message(), HasSubstr("no such"));
  ASSERT_TRUE(engine_->Forget("tales", "tale", true).ok());
  EXPECT_EQ(engine_->Show("tales")->documents.size(), 1u);
  EXPECT_TRUE(engine_->Verify("tales").ok());
  const Result<RecallReply> r = engine_->Recall("tales", kQuestion, {});
  ASSERT_TRUE(r.ok());
  for (const RecalledSpan& s : r->spans) EXPECT_EQ(s.document, "other");
  EXPECT_TRUE(engine_->Compact("tales").ok());
  ASSERT_TRUE(Ingest("tale", Tale()).ok()) << "it may come back";
  ASSERT_TRUE(engine_->Forget("tales", "", true).ok());
  EXPECT_TRUE(engine_->List()->empty());
  EXPECT_EQ(engine_->Show("tales").status().code(), StatusCode::kNotFound);
}

TEST_F(EngineTest, AStoppedIngestContinuesInTheNextProcess) {
  const std::string text = Tale();
  uint64_t read = 0;
  for (int life = 0; life < 30; ++life) {
    Restart({.native_window = 30});
    std::atomic<bool> stop{false};
    const Result<IngestReport> r =
        engine_->Ingest("tales", {"tale", text}, &stop,
                        [&](const IngestProgress& p) { stop = p.tokens_done % 2048 == 0; });
    ASSERT_TRUE(r.ok()) << r.status().ToString();
    read += r->tokens_read;
    ASSERT_TRUE(engine_->Verify("tales").ok());
    // committed tokens can be asked about
    const Result<AskReply> reply = engine_->Ask("tales", kQuestion, {.max_tokens = 2});
    ASSERT_TRUE(reply.ok()) << reply.status().ToString();
    if (r->outcome != Outcome::kStopped) break;
  }
  EXPECT_EQ(read, engine_->Show("tales")->tokens);
  EXPECT_EQ(Ingest("again", text)->outcome, Outcome::kUnchanged);
}

// Assistant text counts less than what the user said (docs/decisions/0027).
TEST_F(EngineTest, AssistantTextGetsLessAttention) {
  // Two lines of one form. The second is assistant text or not. The logits show the share of
  // attention.
  const std::string user_line = "The secret number of Methuselah is 7421.\n",
                    assistant_line = "The secret number of Methuselah is 9.\n";
  const auto logs = [&](const std::string& memory, uint64_t user_bytes, bool restart) {
    EXPECT_TRUE(
        engine_
            ->Ingest(memory,
                     {.name = "turn", .text = user_line + assistant_line, .user_bytes = user_bytes},
                     nullptr, nullptr)
            .ok());
    if (restart) Restart();
    AskOptions options{.answer_prefix = "It is", .max_tokens = 4};
    options.likeliest = 0;
    const Result<AskReply> r = engine_->Ask(memory, kQuestion, options);
    EXPECT_TRUE(r.ok()) << r.status().ToString();
    std::vector<double> out;
    if (r.ok()) {
      EXPECT_EQ(r->degradation.blocks_lost, 0u);
      EXPECT_GE(r->tokens_recalled, user_line.size() / 4) << "nothing is left out";
      for (const TokenLikelihood& token : r->likelihoods) out.push_back(token.log);
    }
    return out;
  };
  const std::vector<double> plain = logs("plain", UINT64_MAX, false),
                            half = logs("half", user_line.size(), false);
  EXPECT_EQ(logs("all", user_line.size() + assistant_line.size(), false), plain);
  EXPECT_EQ(logs("none", 0, false).size(), plain.size());
  EXPECT_NE(half, plain);
  EXPECT_EQ(logs("again", user_line.size(), true), half) << "the marking is stored";
}

TEST_F(EngineTest, BadNamesAndQuestionsAreRefusedWithTheReason) {
  for (const char* name : {"", ".", "..", ".hidden", "-x", "a/b/c", "a b", "é", "a\nb",
                           "01234567890123456789012345678901234567890123456789012345678901234"}) {
    const std::string kept(name);
    const Status status = engine_->Ingest(kept, {"tale", "text"}, nullptr, nullptr).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << kept;
    EXPECT_THAT(status.message(), HasSubstr("memory name"));
    EXPECT_EQ(engine_->Show(kept).status().code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(engine_->Forget(kept, "", false).code(), StatusCode::kInvalidArgument);
  }
  for (const char* name : {"a", "A-b_c.9", "9"}) EXPECT_TRUE(CheckMemoryName(name).ok());
  EXPECT_TRUE(CheckMemoryName(std::string(64, 'x')).ok());
  for (const char* name : {"t/a", "9/9"}) EXPECT_TRUE(CheckMemoryName(name).ok());
  EXPECT_TRUE(CheckMemoryName(std::string(64, 'x') + "/" + std::string(64, 'y')).ok());
  for (const char* name :
       {"/a", "a/", "/", "a//b", "a/b/c", "../a", "a/..", "a/.b", ".a/b", "a/-b"})
    EXPECT_FALSE(CheckMemoryName(name).ok()) << name;

  const auto expect_unknown = [&](const Status& status) {
    EXPECT_EQ(status.code(), StatusCode::kNotFound) << status.ToString();
    EXPECT_THAT(status.message(), HasSubstr("nowhere"));
  };
  expect_unknown(engine_->Ask("nowhere", kQuestion, {}).status());
  expect_unknown(engine_->Recall("nowhere", kQuestion, {}).status());
  expect_unknown(engine_->Show("nowhere").status());
  expect_unknown(engine_->Forget("nowhere", "", false));
  expect_unknown(engine_->Forget("nowhere", "tale", false));
  expect_unknown(engine_->Compact("nowhere"));
  expect_unknown(engine_->Verify("nowhere"));
  EXPECT_TRUE(engine_->List()->empty()) << "asking made a memory";

  EXPECT_EQ(Ingest("tale", "").status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(engine_->List()->empty()) << "an empty text made a memory";
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  for (const char* question : {"", " ", "\n\t \r\n"}) {
    EXPECT_EQ(engine_->Ask("tales", question, {}).status().code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(engine_->Recall("tales", question, {}).status().code(), StatusCode::kInvalidArgument);
  }
  const Status too_long = engine_->Ask("tales", std::string(9000, 'q'), {}).status();
  EXPECT_EQ(too_long.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(too_long.message(), AllOf(HasSubstr("9"), HasSubstr("8192"), HasSubstr("toy")));
  EXPECT_TRUE(engine_->Ask("tales", kQuestion, {.max_tokens = 3}).ok())
      << "and the next question is answered";
}

TEST_F(EngineTest, AnotherModelsMemoryIsRefusedAndUnchanged) {
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  const uint64_t tokens = engine_->Show("tales")->tokens;
  Restart({.name = "second", .fingerprint = "fedcba9876543210"});
  for (const Status& status :
       {Ingest("more", "text").status(), engine_->Ask("tales", kQuestion, {}).status(),
        engine_->Recall("tales", kQuestion, {}).status()}) {
    EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status.ToString();
    EXPECT_THAT(status.message(), AllOf(HasSubstr("toy"), HasSubstr("second"), HasSubstr("tales")));
  }
  EXPECT_EQ(engine_->Show("tales")->tokens, tokens);
  Restart();
  EXPECT_TRUE(engine_->Ask("tales", kQuestion, {.max_tokens = 3}).ok());
}

TEST_F(EngineTest, ASecondWriterIsRefused) {
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  Engine second(stores_.get(), {});
  ToyModel model;
  const RecallProfile profile = Profile();
  ASSERT_TRUE(second.UseModel(&model, &profile).ok());
  const Status status = second.Ingest("tales", {"more", "text"}, nullptr, nullptr).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status.ToString();
  EXPECT_TRUE(second.Ask("tales", kQuestion, {.max_tokens = 3}).ok())
      << "a reader may run next to a writer";
}

TEST_F(EngineTest, DamagedBlocksDegradeAnAnswerAndAreCounted) {
  const std::string text = Tale();
  ASSERT_TRUE(Ingest("tale", text).ok());
  Restart({.answer = "7350194"});
  const Result<AskReply> whole = engine_->Ask("tales", kQuestion, {});
  ASSERT_TRUE(whole.ok());
  const auto best = std::find_if(
      whole->citations.begin(), whole->citations.end(),
      [](const Citation& c) { return c.span.text.find(kNeedle) != std::string::npos; });
  ASSERT_NE(best, whole->citations.end());
  std::string key;
  AppendBigEndian32(&key, static_cast<uint32_t>(best->span.document_id));
  AppendBigEndian32(&key, static_cast<uint32_t>(best->span.tokens.begin / kBlockTokens + 1));
  for (const bool missing : {false, true}) {
    Damage([&](ColdStore& store) {
      std::string value = *store.Get(Table::kBlocks, key);
      value[value.size() / 2] = static_cast<char>(value[value.size() / 2] ^ 1);
      ASSERT_TRUE((missing ? DeleteValue(store, Table::kBlocks, key)
                           : PutValue(store, Table::kBlocks, key, value))
                      .ok());
    });
    Restart({.answer = "7350194"});
    const Result<AskReply> r = engine_->Ask("tales", kQuestion, {});
    ASSERT_TRUE(r.ok()) << r.status().ToString();
    EXPECT_EQ(r->answer, "7350194");
    EXPECT_EQ(r->degradation.blocks_lost, 1u);
    EXPECT_EQ(r->blocks_read, whole->blocks_read - 1);
    EXPECT_LT(r->tokens_recalled, whole->tokens_recalled);
    for (const Citation& c : r->citations) ExpectPlace(c.span, text);
    const Status verified = engine_->Verify("tales");
    EXPECT_EQ(verified.code(), StatusCode::kDataLoss);
    EXPECT_THAT(verified.message(), AllOf(HasSubstr("tales"), HasSubstr("block d=1")));
  }
  // All blocks missing: an answer without evidence that reports this.
  Damage([](ColdStore& store) {
    WriteBatch batch;
    batch.DeleteRange(Table::kBlocks, "", std::string(16, '\xff'));
    ASSERT_TRUE(store.Write(std::move(batch), Durability::kSynced).ok());
  });
  Restart({.answer = "7350194"});
  const Result<AskReply> none = engine_->Ask("tales", kQuestion, {});
  ASSERT_TRUE(none.ok()) << none.status().ToString();
  EXPECT_EQ(none->blocks_read, 0u);
  EXPECT_GT(none->degradation.blocks_lost, 0u);
  EXPECT_TRUE(none->citations.empty());
}

// Excerpts are re-encoded as text right before the question, within the profile's budget. They
// belong to their spans, so the needle's span is cited even when none of its blocks can be read. A
// model with native layers gets excerpts in place of whole spans.
TEST_F(EngineTest, ReencodesExcerptsAroundThePeaksOfTheBestSpansWithinItsBudget) {
  for (const uint32_t native_window : {0u, 400u}) {
    SCOPED_TRACE(native_window);
    const ToyOptions toy{.native_window = native_window, .answer = "7350194"};
    const std::string name = native_window == 0 ? "tales" : "native";
    Restart(toy);
    ASSERT_TRUE(engine_->Ingest(name, {"tale", Tale()}, nullptr, nullptr).ok());
    uint64_t reencoded_before = 0;
    for (const uint32_t budget : {16u, 128u, 512u}) {
      RecallProfile profile = Profile();
      profile.reencode_tokens = budget;
      Restart(toy, &profile);
      const Result<AskReply> r = engine_->Ask(name, kQuestion, {});
      ASSERT_TRUE(r.ok()) << r.status().ToString();
      EXPECT_GT(r->blocks_read, 0u);
      EXPECT_LE(r->tokens_reencoded, budget);
      EXPECT_GE(r->tokens_reencoded, reencoded_before);
      EXPECT_EQ(r->tokens_reencoded > 0, budget >= 128)
          << budget << ": a sentence of letters has more than 16 tokens";
      reencoded_before = r->tokens_reencoded;
    }
    RecallProfile none = Profile();
    none.reencode_tokens = 0;
    Restart(toy, &none);
    EXPECT_EQ(engine_->Ask(name, kQuestion, {})->tokens_reencoded, 0u);
  }
  Damage([](ColdStore& store) {
    for (const auto& [key, value] : Contents(store)) {
      if (key.first != static_cast<int>(Table::kBlocks)) continue;
      ASSERT_TRUE(
          PutValue(store, Table::kBlocks, key.second, value.substr(0, value.size() / 2)).ok());
    }
  });
  RecallProfile profile = Profile();
  for (const uint32_t budget : {0u, 128u}) {
    profile.reencode_tokens = budget;
    Restart({.answer = "7350194"}, &profile);
    const Result<AskReply> r = engine_->Ask("tales", kQuestion, {});
    ASSERT_TRUE(r.ok()) << r.status().ToString();
    EXPECT_GT(r->degradation.blocks_lost, 0u);
    EXPECT_EQ(r->citations.empty(), budget == 0);
    bool needle = false;
    for (const Citation& c : r->citations)
      needle |= c.span.text.find("7350194") != std::string::npos;
    EXPECT_EQ(needle, budget > 0);
  }
}

// Spans re-encoded as text need no blocks, so damage to their blocks does not matter.
TEST_F(EngineTest, ADamagedBlockOfAReencodedSpanCostsNothing) {
  const ToyOptions native{.native_window = 400, .answer = "7350194"};
  Restart(native);
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  const Result<AskReply> whole =
      engine_->Ask("tales", kQuestion, {.attend = FocusedOptions{.recall = {.spans_max = 1}}});
  ASSERT_TRUE(whole.ok()) << whole.status().ToString();
  ASSERT_EQ(whole->citations.size(), 1u);
  EXPECT_EQ(whole->blocks_read, 0u) << "the span is re-encoded";
  Damage([](ColdStore& store) {
    WriteBatch batch;
    batch.DeleteRange(Table::kBlocks, "", std::string(16, '\xff'));
    ASSERT_TRUE(store.Write(std::move(batch), Durability::kSynced).ok());
  });
  Restart(native);
  const Result<AskReply> r =
      engine_->Ask("tales", kQuestion, {.attend = FocusedOptions{.recall = {.spans_max = 1}}});
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  EXPECT_EQ(r->degradation.blocks_lost + r->degradation.spans_lost, 0u);
  EXPECT_EQ(r->tokens_recalled, whole->tokens_recalled);
  ASSERT_EQ(r->citations.size(), 1u);
  EXPECT_THAT(r->citations[0].span.text, HasSubstr(kNeedle));
}

TEST_F(EngineTest, AMemoryWithoutACommitCanBeAsked) {
  std::atomic<bool> stop{true};
  ASSERT_TRUE(engine_->Ingest("tales", {"tale", Tale()}, &stop, nullptr).ok());
  const Result<AskReply> r = engine_->Ask("tales", kQuestion, {.max_tokens = 3});
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  EXPECT_EQ(r->spans, 0u);
  EXPECT_TRUE(r->citations.empty());
  EXPECT_EQ(r->memory_tokens, 0u);
}

// More spans than the model's context holds: the worst are left out, and the question and answer
// still fit.
TEST_F(EngineTest, SpansThatDoNotFitTheContextAreLeftOut) {
  Restart({.context_length = 2048});
  std::string text;
  for (int i = 0; i < 60; ++i)
    text += PlainText(300, static_cast<uint64_t>(i)) + "\n" +
            (i == 30 ? kNeedle : "A secret number of another one.\n");
  ASSERT_TRUE(Ingest("tale", text).ok());
  RecallProfile profile = Profile();
  profile.span_score_min = 0;
  Restart({.context_length = 2048, .chat = true, .answer = std::string(100, 'x')}, &profile);
  AskOptions options;
  options.max_tokens = 128;
  options.focused().recall.spans_max = 64;
  const Result<AskReply> r = engine_->Ask("tales", kQuestion, options);
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  EXPECT_EQ(r->completion_tokens, 100u);
  EXPECT_LE(r->tokens_recalled + r->prompt_tokens + r->completion_tokens, 2048u);
  bool cited = false;
  for (const Citation& c : r->citations) cited |= c.span.text.find(kNeedle) != std::string::npos;
  EXPECT_TRUE(cited) << "the best span is cited";
  // Spans left out do not count as covered.
  const Result<RecallReply> all = engine_->Recall("tales", kQuestion, {.spans_max = 64});
  const Result<RecallReply> there =
      engine_->Recall("tales", kQuestion, {.spans_max = static_cast<uint32_t>(r->spans)});
  ASSERT_TRUE(all.ok() && there.ok());
  ASSERT_GT(all->spans.size(), r->spans);
  EXPECT_LT(r->coverage, all->coverage);
  EXPECT_GE(r->coverage, there->coverage);  // a plan of more spans merges more of them
}

// Clients may request as long an answer as the model can give. That must not leave the answer
// without recalled spans.
TEST_F(EngineTest, ALongAnswerLeavesRoomForItsRecalledSpans) {
  Restart({.context_length = 8192, .chat = true, .answer = std::string(9000, 'x')});
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  const Result<AskReply> usual = engine_->Ask("tales", kQuestion, {.max_tokens = 16});
  ASSERT_TRUE(usual.ok()) << usual.status().ToString();
  for (const uint32_t max_tokens : kSanitized ? std::vector{8192u} : std::vector{8192u, 100000u}) {
    const Result<AskReply> r = engine_->Ask("tales", kQuestion, {.max_tokens = max_tokens});
    ASSERT_TRUE(r.ok()) << r.status().ToString();
    EXPECT_EQ(r->tokens_recalled, usual->tokens_recalled);
    EXPECT_EQ(r->citations.size(), usual->citations.size());
    EXPECT_TRUE(r->cut);
    EXPECT_GT(r->completion_tokens, 256u);
    EXPECT_LE(r->tokens_recalled + r->tokens_reencoded + r->prompt_tokens + r->completion_tokens,
              8192u);
  }
}

TEST_F(EngineTest, MemoriesMadeWithAnotherProfileCanBeAsked) {
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  RecallProfile none, two;
  none.rerank_spans = two.rerank_spans = 0;
  none.name = "none";
  two.name = "two";
  two.heads = {{.layer = 4, .kv_head = 0}, {.layer = 3, .kv_head = 1}};
  for (const RecallProfile& profile : {none, two}) {
    Restart({}, &profile);
    const Result<RecallReply> r = engine_->Recall("tales", kQuestion, {});
    ASSERT_TRUE(r.ok()) << r.status().ToString();
    ASSERT_FALSE(r->spans.empty());
  }
  // A memory made without recall heads, asked by a model that has some.
  Restart({}, &none);
  ASSERT_TRUE(engine_->Ingest("plain", {"tale", Tale()}, nullptr, nullptr).ok());
  Restart();
  const Result<RecallReply> r = engine_->Recall("plain", kQuestion, {});
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  ASSERT_FALSE(r->spans.empty());
  EXPECT_THAT(r->spans[0].text, HasSubstr(kNeedle));
  EXPECT_EQ(r->coverage, std::nullopt);
}

TEST_F(EngineTest, AProfileWhoseHeadsTheModelLacksIsRefused) {
  for (const RecallHead& head :
       {RecallHead{.layer = 2, .kv_head = 0}, RecallHead{.layer = 3, .kv_head = 2}}) {
    RecallProfile profile = Profile();
    profile.heads = {head};
    Engine engine(stores_.get(), {});
    const Status status = engine.UseModel(model_.get(), &profile);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(),
                AllOf(HasSubstr("toy"), HasSubstr("layer " + std::to_string(head.layer))));
  }
}

TEST_F(EngineTest, TheCodecIsFixedWhenAMemoryIsCreated) {
  EXPECT_EQ(engine_->UseCodec("k9").code(), StatusCode::kInvalidArgument);
  ASSERT_TRUE(engine_->UseCodec("exact").ok());
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  EXPECT_TRUE(engine_->TakeNotes().empty());
  EXPECT_EQ(engine_->Show("tales")->codec, "exact");
  ASSERT_TRUE(engine_->UseCodec("k5v4").ok());
  ASSERT_TRUE(Ingest("other", RandomText(2000, 3)).ok());
  EXPECT_EQ(engine_->Show("tales")->codec, "exact");
  const std::vector<std::string> notes = engine_->TakeNotes();
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(notes[0].find("exact"), std::string::npos) << notes[0];
  EXPECT_TRUE(engine_->Verify("tales").ok());
}

}  // namespace
}  // namespace longhold
