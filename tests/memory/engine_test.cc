// The engine end to end on RocksDB in a temporary directory, with the toy model.
//
// What a person would check by hand: what comes back is the text that was put in (every citation is
// compared with the bytes it names, in the original), what is gone is gone, and bad input or damage
// gets a message that names it and leaves the memory as it was. How good answers are is not judged
// here: the toy says what the test tells it to. Sizes: texts of 4,000 to 12,000 tokens, one to
// three commits, two documents.
#include "memory/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>

#include "base/seal.h"
#include "store/rocks_store.h"
#include "tests/store/temp_dir.h"
#include "tests/support/sanitized.h"
#include "tests/support/stores.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"

namespace longhold {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using Outcome = IngestReport::Outcome;

constexpr char kNeedle[] = "The secret number of Methuselah is 7350194, said é the elder.\n";
constexpr char kQuestion[] = "What is the secret number of Methuselah?";

RecallProfile Profile() {
  RecallProfile p;
  p.rerank_spans = 0;  // the toy understands nothing: its opinion of a span is noise
  p.name = "toy";
  p.heads = {{.layer = 3, .kv_head = 1}};
  p.head_weight = 0.2;  // the toy's heads look anywhere
  p.window_tokens = 64;
  return p;
}

std::string Tale() {
  std::string text = PlainText(6000, 1);
  text.insert(text.find('\n', 3000) + 1, kNeedle);
  return text + RandomText(1500, 2);
}

class EngineTest : public testing::Test {
 protected:
  // A new process: engine and model.
  void Restart(ToyOptions options = {}, const RecallProfile* profile = nullptr) {
    engine_.reset();
    model_ = std::make_unique<ToyModel>(std::move(options));
    engine_ = std::make_unique<Engine>(EngineOptions{.home = home_ / "h"});
    const RecallProfile own = Profile();
    const Status status = engine_->UseModel(model_.get(), profile == nullptr ? &own : profile);
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  void SetUp() override { Restart(); }
  Result<IngestReport> Ingest(const std::string& name, const std::string& text) {
    return engine_->Ingest("tales", {name, text}, nullptr, nullptr);
  }
  // Changes values of the closed memory.
  void Damage(const std::function<void(ColdStore&)>& change) {
    engine_.reset();
    Result<std::unique_ptr<ColdStore>> store =
        OpenRocksStore({.path = home_ / "h/memories/tales", .create_if_missing = false});
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    change(**store);
  }
  void ExpectPlace(const RecalledSpan& span, const std::string& original) {
    ASSERT_LE(span.bytes.end, original.size());
    EXPECT_EQ(span.text, original.substr(span.bytes.begin, span.bytes.size()));
    const auto line_of = [&](uint64_t byte) {
      return 1 + static_cast<uint64_t>(std::count(
                     original.begin(), original.begin() + static_cast<ptrdiff_t>(byte), '\n'));
    };
    EXPECT_EQ(span.line_begin, line_of(span.bytes.begin));
    EXPECT_EQ(span.line_end, line_of(span.bytes.end - 1));
  }

  TempDir home_;
  std::unique_ptr<ToyModel> model_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineTest, AnswersFromMemoryWithCitationsThatPointAtTheirBytes) {
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
    EXPECT_EQ(r->blocks_lost, 0u);
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

TEST_F(EngineTest, ATenantsMemoriesAreItsOwn) {
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
  namespace fs = std::filesystem;
  EXPECT_TRUE(fs::exists(home_ / "h/tenants/acme/memories/tales"));
  EXPECT_EQ(fs::status(home_ / "h/tenants").permissions(), fs::perms::owner_all);
  const Result<RecallReply> found = engine_->Recall("acme/tales", kQuestion, {});
  ASSERT_TRUE(found.ok()) << found.status().ToString();
  const Result<RecallReply> others = engine_->Recall("other/tales", kQuestion, {});
  ASSERT_TRUE(others.ok());
  for (const RecalledSpan& span : others->spans)
    EXPECT_EQ(span.text.find("Methuselah"), std::string::npos);
  // An export does not tell whose it was, and can become anybody's.
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
  EXPECT_THAT(r->spans[0].reasons, Contains("lexical"));
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

TEST_F(EngineTest, EverySpanOfEveryQuestionIsBytesOfTheText) {
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

TEST_F(EngineTest, StopsBetweenTokens) {
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

TEST_F(EngineTest, AnEncryptedMemoryAnswersWithItsKeyOnly) {
  const std::string key(32, 'k');
  ASSERT_TRUE(Ingest("tale", Tale()).ok());  // in a plain memory, tales
  const auto open = [&](const std::string& with) {
    engine_ = std::make_unique<Engine>(
        EngineOptions{.home = home_ / "h", .encryption_key = Secret(with)});
    const RecallProfile own = Profile();
    return engine_->UseModel(model_.get(), &own);
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
  // Out in plain, and in again sealed.
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

// Whoever can rename directories could have one memory answer for another. Both versions of the
// record of the encryption, the first of which does not hold the name.
TEST_F(EngineTest, EncryptedMemoriesDoNotChangePlaces) {
  const Secret key(std::string(32, 'k'));
  const auto open = [&] {
    engine_ = std::make_unique<Engine>(EngineOptions{.home = home_ / "h", .encryption_key = key});
    const RecallProfile own = Profile();
    ASSERT_TRUE(engine_->UseModel(model_.get(), &own).ok());
  };
  namespace fs = std::filesystem;
  const std::string memories = home_ / "h/memories/", record("\0seal", 5);
  const auto swap = [&] {
    engine_.reset();
    fs::rename(memories + "a", memories + "aside");
    fs::rename(memories + "b", memories + "a");
    fs::rename(memories + "aside", memories + "b");
    open();
  };
  const auto beneath = [&](const std::string& name) {
    return OpenRocksStore({.path = memories + name, .create_if_missing = false}).value();
  };
  open();
  for (const char* name : {"a", "b"})
    ASSERT_TRUE(engine_->Ingest(name, {"tale", Tale()}, nullptr, nullptr).ok());
  for (const bool named : {true, false}) {
    SCOPED_TRACE(named);
    if (!named) {
      engine_.reset();
      for (const char* name : {"a", "b"}) {
        const auto store = beneath(name);
        const std::string salt = store->Get(Table::kMeta, record)->substr(1, kSealSaltBytes);
        ASSERT_TRUE(PutValue(*store, Table::kMeta, record,
                             "\1" + salt +
                                 *Seal::Derive(key, salt, "longhold store").Close("", "key check"))
                        .ok());
      }
      open();
      EXPECT_TRUE(engine_->Verify("a").ok());
    }
    swap();
    for (const Status& status :
         {engine_->Verify("a"), engine_->Show("a").status(),
          engine_->Ask("a", kQuestion, {}).status(),
          engine_->Ingest("a", {"more", "text"}, nullptr, nullptr).status()}) {
      EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
      EXPECT_THAT(status.message(),
                  AllOf(HasSubstr("memory a: it was sealed as memory b"), HasSubstr("rename")));
    }
    swap();
    for (const char* name : {"a", "b"}) {
      EXPECT_TRUE(engine_->Verify(name).ok());
      EXPECT_TRUE(
          engine_->Ingest(name, {"more", named ? "some more text" : "and more"}, nullptr, nullptr)
              .ok());
    }
  }
  engine_.reset();
  EXPECT_EQ(beneath("a")->Get(Table::kMeta, record)->at(0), 2)
      << "what was written to holds its name";
}

TEST_F(EngineTest, EndsAtItsDeadline) {
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  Restart({.chat = true, .answer = "one two three four five six"});
  AskOptions options;
  options.deadline = std::chrono::steady_clock::now();
  EXPECT_EQ(engine_->Ask("tales", kQuestion, options).status().code(),
            StatusCode::kDeadlineExceeded);
  options.deadline = std::chrono::steady_clock::now() + std::chrono::hours(1);
  EXPECT_FALSE(engine_->Ask("tales", kQuestion, options)->cut);
  // as if the first token had taken until then
  options.on_text = [&](std::string_view) { options.deadline = std::chrono::steady_clock::now(); };
  const Result<AskReply> r = engine_->Ask("tales", kQuestion, options);
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  EXPECT_EQ(r->answer, "o");
  EXPECT_TRUE(r->cut);
}

TEST_F(EngineTest, ShowAndListTellWhatIsThere) {
  EXPECT_TRUE(engine_->List()->empty());
  const std::string text = Tale();
  ASSERT_TRUE(Ingest("tale", text).ok());
  std::atomic<bool> stop{false};
  ASSERT_TRUE(engine_
                  ->Ingest("second", {"long", PlainText(3000, 4)}, &stop,
                           [&](const IngestProgress&) { stop = true; })
                  .ok());
  engine_ = std::make_unique<Engine>(EngineOptions{.home = home_ / "h"});  // without a model
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
  EXPECT_EQ((*list)[0].tokens, 512u);
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
  EXPECT_FALSE(std::filesystem::exists(home_ / "h/memories/tales"));
}

TEST_F(EngineTest, StoppedIngestGoesOnInTheNextProcess) {
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
    // what is committed can be asked for
    const Result<AskReply> reply = engine_->Ask("tales", kQuestion, {.max_tokens = 2});
    ASSERT_TRUE(reply.ok()) << reply.status().ToString();
    if (r->outcome != Outcome::kStopped) break;
  }
  EXPECT_EQ(read, engine_->Show("tales")->tokens);
  EXPECT_EQ(Ingest("again", text)->outcome, Outcome::kUnchanged);
}

// What the model said itself counts less than what it was told (docs/decisions/0027).
TEST_F(EngineTest, TheModelsOwnWordsGetLessAttention) {
  // Two lines of one form, the second of them the model's own or not; the share of attention is
  // seen in the logits.
  const std::string told = "The secret number of Methuselah is 7421.\n",
                    own = "The secret number of Methuselah is 9.\n";
  const auto logs = [&](const std::string& memory, uint64_t user_bytes, bool restart) {
    EXPECT_TRUE(engine_
                    ->Ingest(memory, {.name = "turn", .text = told + own, .user_bytes = user_bytes},
                             nullptr, nullptr)
                    .ok());
    if (restart) Restart();
    AskOptions options{.answer_prefix = "It is", .max_tokens = 4};
    options.likeliest = 0;
    const Result<AskReply> r = engine_->Ask(memory, kQuestion, options);
    EXPECT_TRUE(r.ok()) << r.status().ToString();
    std::vector<double> out;
    if (r.ok()) {
      EXPECT_EQ(r->blocks_lost, 0u);
      EXPECT_GE(r->tokens_recalled, told.size() / 4) << "nothing is left out";
      for (const TokenLikelihood& token : r->likelihoods) out.push_back(token.log);
    }
    return out;
  };
  const std::vector<double> plain = logs("plain", UINT64_MAX, false),
                            half = logs("half", told.size(), false);
  EXPECT_EQ(logs("all", told.size() + own.size(), false), plain);
  EXPECT_EQ(logs("none", 0, false).size(), plain.size());
  EXPECT_NE(half, plain);
  EXPECT_EQ(logs("again", told.size(), true), half) << "it is remembered";
}

TEST_F(EngineTest, BadNamesAndQuestionsAreRefusedByName) {
  for (const char* name : {"", ".", "..", ".hidden", "-x", "a/b/c", "a b", "é", "a\nb",
                           "01234567890123456789012345678901234567890123456789012345678901234"}) {
    const std::string kept(name);
    const Status status = engine_->Ingest(kept, {"tale", "text"}, nullptr, nullptr).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << kept;
    EXPECT_THAT(status.message(), HasSubstr("memory name"));
    EXPECT_EQ(engine_->Show(kept).status().code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(engine_->Forget(kept, "", false).code(), StatusCode::kInvalidArgument);
  }
  for (const char* name : {"a", "A-b_c.9", "9"}) EXPECT_TRUE(Engine::CheckName(name).ok());
  EXPECT_TRUE(Engine::CheckName(std::string(64, 'x')).ok());
  for (const char* name : {"t/a", "9/9"}) EXPECT_TRUE(Engine::CheckName(name).ok());
  EXPECT_TRUE(Engine::CheckName(std::string(64, 'x') + "/" + std::string(64, 'y')).ok());
  for (const char* name :
       {"/a", "a/", "/", "a//b", "a/b/c", "../a", "a/..", "a/.b", ".a/b", "a/-b"})
    EXPECT_FALSE(Engine::CheckName(name).ok()) << name;

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

TEST_F(EngineTest, AnotherModelsMemoryIsRefusedAndUnharmed) {
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
  Engine second({.home = home_ / "h"});
  ToyModel model;
  const RecallProfile profile = Profile();
  ASSERT_TRUE(second.UseModel(&model, &profile).ok());
  const Status status = second.Ingest("tales", {"more", "text"}, nullptr, nullptr).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status.ToString();
  EXPECT_TRUE(second.Ask("tales", kQuestion, {.max_tokens = 3}).ok())
      << "reading beside a writer is fine";
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
    EXPECT_EQ(r->blocks_lost, 1u);
    EXPECT_EQ(r->blocks_read, whole->blocks_read - 1);
    EXPECT_LT(r->tokens_recalled, whole->tokens_recalled);
    for (const Citation& c : r->citations) ExpectPlace(c.span, text);
    const Status verified = engine_->Verify("tales");
    EXPECT_EQ(verified.code(), StatusCode::kDataLoss);
    EXPECT_THAT(verified.message(), AllOf(HasSubstr("tales"), HasSubstr("block d=1")));
  }
  // All of them gone: an answer without evidence, which says so.
  Damage([](ColdStore& store) {
    WriteBatch batch;
    batch.DeleteRange(Table::kBlocks, "", std::string(16, '\xff'));
    ASSERT_TRUE(store.Write(std::move(batch), Durability::kSynced).ok());
  });
  Restart({.answer = "7350194"});
  const Result<AskReply> none = engine_->Ask("tales", kQuestion, {});
  ASSERT_TRUE(none.ok()) << none.status().ToString();
  EXPECT_EQ(none->blocks_read, 0u);
  EXPECT_GT(none->blocks_lost, 0u);
  EXPECT_TRUE(none->citations.empty());
}

// Excerpts are text: they stand right before the question, inside the profile's budget, and belong
// to their spans, so that the needle's is cited even when none of its blocks can be read. A model
// that keeps layers to itself gets them in place of whole spans.
TEST_F(EngineTest, ReadsAgainAroundThePeaksOfTheBestSpansWithinItsBudget) {
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
    EXPECT_GT(r->blocks_lost, 0u);
    EXPECT_EQ(r->citations.empty(), budget == 0);
    bool needle = false;
    for (const Citation& c : r->citations)
      needle |= c.span.text.find("7350194") != std::string::npos;
    EXPECT_EQ(needle, budget > 0);
  }
}

// Spans that are read again as text need no blocks: what is damaged there does not matter.
TEST_F(EngineTest, ADamagedBlockOfASpanThatIsReadAgainCostsNothing) {
  const ToyOptions native{.native_window = 400, .answer = "7350194"};
  Restart(native);
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  const Result<AskReply> whole = engine_->Ask("tales", kQuestion, {.recall = {.spans_max = 1}});
  ASSERT_TRUE(whole.ok()) << whole.status().ToString();
  ASSERT_EQ(whole->citations.size(), 1u);
  EXPECT_EQ(whole->blocks_read, 0u) << "it is read again";
  Damage([](ColdStore& store) {
    WriteBatch batch;
    batch.DeleteRange(Table::kBlocks, "", std::string(16, '\xff'));
    ASSERT_TRUE(store.Write(std::move(batch), Durability::kSynced).ok());
  });
  Restart(native);
  const Result<AskReply> r = engine_->Ask("tales", kQuestion, {.recall = {.spans_max = 1}});
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  EXPECT_EQ(r->blocks_lost + r->spans_lost, 0u);
  EXPECT_EQ(r->tokens_recalled, whole->tokens_recalled);
  ASSERT_EQ(r->citations.size(), 1u);
  EXPECT_THAT(r->citations[0].span.text, HasSubstr(kNeedle));
}

TEST_F(EngineTest, AnUnfinishedMemoryWithoutACommitCanBeAsked) {
  std::atomic<bool> stop{true};
  ASSERT_TRUE(engine_->Ingest("tales", {"tale", Tale()}, &stop, nullptr).ok());
  const Result<AskReply> r = engine_->Ask("tales", kQuestion, {.max_tokens = 3});
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  EXPECT_EQ(r->spans, 0u);
  EXPECT_TRUE(r->citations.empty());
  EXPECT_EQ(r->memory_tokens, 0u);
}

// More spans than the model's context holds: the worst are left out, and there is room for question
// and answer.
TEST_F(EngineTest, SpansThatTheContextCannotHoldAreLeftOut) {
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
  options.recall.spans_max = 64;
  const Result<AskReply> r = engine_->Ask("tales", kQuestion, options);
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  EXPECT_EQ(r->completion_tokens, 100u);
  EXPECT_LE(r->tokens_recalled + r->prompt_tokens + r->completion_tokens, 2048u);
  bool cited = false;
  for (const Citation& c : r->citations) cited |= c.span.text.find(kNeedle) != std::string::npos;
  EXPECT_TRUE(cited) << "the best span is there";
  // What was left out does not count as covered.
  const Result<RecallReply> all = engine_->Recall("tales", kQuestion, {.spans_max = 64});
  const Result<RecallReply> there =
      engine_->Recall("tales", kQuestion, {.spans_max = static_cast<uint32_t>(r->spans)});
  ASSERT_TRUE(all.ok() && there.ok());
  ASSERT_GT(all->spans.size(), r->spans);
  EXPECT_LT(r->coverage, all->coverage);
  EXPECT_GE(r->coverage, there->coverage);  // a plan of more spans joins more of them
}

// Clients ask for as long an answer as a model could give; that must not leave the answer without
// the memory.
TEST_F(EngineTest, ALongAnswerLeavesRoomForWhatItRestsOn) {
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

TEST_F(EngineTest, MemoriesMadeWithAnotherProfileAreAnswered) {
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
  // And a memory made without heads, asked by a model with some.
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
    Engine engine({.home = home_ / "h"});
    const Status status = engine.UseModel(model_.get(), &profile);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(),
                AllOf(HasSubstr("toy"), HasSubstr("layer " + std::to_string(head.layer))));
  }
}

TEST_F(EngineTest, ASecondLookOrdersTheSpansThatThePlanFound) {
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  RecallProfile plain = Profile();
  plain.span_score_min = 0;
  const auto spans = [&](const RecallProfile& profile) {
    Restart({}, &profile);
    Result<RecallReply> r = engine_->Recall("tales", kQuestion, {.spans_max = 6});
    EXPECT_TRUE(r.ok()) << r.status().ToString();
    return *r;
  };
  const auto places = [](const RecallReply& r) {
    std::vector<uint64_t> begins;
    for (const RecalledSpan& s : r.spans) begins.push_back(s.tokens.begin);
    return begins;
  };
  const RecallReply without = spans(plain);
  ASSERT_EQ(without.spans.size(), 6u);
  EXPECT_EQ(without.token_gain, 0.0);
  RecallProfile looking = plain;
  looking.rerank_spans = 6;
  looking.rerank_prior = 0;
  const RecallReply with = spans(looking);
  EXPECT_THAT(places(with), testing::UnorderedElementsAreArray(places(without)));
  EXPECT_NE(places(with), places(without)) << "the model's opinion changed nothing";
  EXPECT_NE(with.token_gain, 0.0);
  EXPECT_EQ(with.spans[0].score, 1.0);
  for (size_t i = 1; i < with.spans.size(); ++i)
    EXPECT_LE(with.spans[i].score, with.spans[i - 1].score);
  looking.rerank_prior = 1000;  // now the plan decides which is best
  EXPECT_EQ(places(spans(looking))[0], places(without)[0]);
}

// The toy's opinion is noise, so the mark is set where every or no question is above it: which
// questions are is for docs/figures.md.
TEST_F(EngineTest, AbstainsBelowTheProfilesMarkAndSaysWhatCameClosest) {
  RecallProfile strict = Profile();
  strict.rerank_spans = 16;
  strict.span_score_min = 0;
  strict.abstain_support = 1000;
  Restart({.answer = "It is 7350194."}, &strict);
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  AskOptions options;
  std::string shown;
  options.on_text = [&](std::string_view piece) { shown += piece; };
  const Result<AskReply> none = engine_->Ask("tales", kQuestion, options);
  ASSERT_TRUE(none.ok()) << none.status().ToString();
  EXPECT_TRUE(none->abstained);
  EXPECT_EQ(none->answer, kAbstention);
  EXPECT_EQ(shown, kAbstention);
  EXPECT_TRUE(none->citations.empty());
  EXPECT_EQ(none->coverage, 0.0);
  EXPECT_EQ(none->spans + none->tokens_recalled + none->completion_tokens, 0u);
  EXPECT_NE(none->token_gain, 0.0);
  EXPECT_GT(none->memory_tokens, 0u);
  ASSERT_EQ(none->closest.size(), 1u);
  EXPECT_EQ(none->closest[0].document, "tale");

  AskOptions alone = options;
  alone.answer_alone = true;
  shown.clear();
  const Result<AskReply> assistant_begin = engine_->Ask("tales", kQuestion, alone);
  ASSERT_TRUE(assistant_begin.ok()) << assistant_begin.status().ToString();
  EXPECT_TRUE(assistant_begin->abstained)
      << "the memory holds nothing, and the model says what it will";
  EXPECT_EQ(assistant_begin->answer, "It is 7350194.");
  EXPECT_EQ(shown, assistant_begin->answer);
  EXPECT_TRUE(assistant_begin->citations.empty());
  EXPECT_EQ(
      assistant_begin->spans + assistant_begin->tokens_recalled + assistant_begin->blocks_read, 0u);

  const Result<RecallReply> few = engine_->Recall("tales", kQuestion, {});
  const Result<RecallReply> all = engine_->Recall("tales", kQuestion, {.abstain = false});
  ASSERT_TRUE(few.ok() && all.ok());
  EXPECT_TRUE(few->abstained);
  EXPECT_FALSE(all->abstained);
  EXPECT_EQ(few->spans.size(), 3u);
  EXPECT_GT(all->spans.size(), 3u);
  EXPECT_EQ(few->spans[0].tokens, all->spans[0].tokens);
  EXPECT_EQ(few->spans[0].tokens, none->closest[0].tokens);

  options.recall.abstain = false;
  const Result<AskReply> forced = engine_->Ask("tales", kQuestion, options);
  ASSERT_TRUE(forced.ok());
  EXPECT_FALSE(forced->abstained);
  EXPECT_EQ(forced->answer, "It is 7350194.");
  options.recall.abstain = true;
  options.answer_prefix = "The number";
  const Result<AskReply> begun = engine_->Ask("tales", kQuestion, options);
  ASSERT_TRUE(begun.ok());
  EXPECT_FALSE(begun->abstained) << "the answer was begun by the caller";

  strict.abstain_support = 0;
  Restart({.answer = "It is 7350194."}, &strict);
  const Result<AskReply> off = engine_->Ask("tales", kQuestion, {});
  ASSERT_TRUE(off.ok());
  EXPECT_FALSE(off->abstained);
}

TEST_F(EngineTest, WithoutALookTheShareOfTheQuestionThatASpanHoldsDecides) {
  RecallProfile words_only = Profile();
  words_only.heads.clear();
  words_only.rerank_spans = 0;
  words_only.abstain_found = 0.6;
  Restart({.answer = "It is 7350194."}, &words_only);
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  const Result<AskReply> known = engine_->Ask("tales", kQuestion, {});
  const Result<AskReply> unknown = engine_->Ask(
      "tales", std::string(kQuestion) + " zyxwvutsrq qwertzuiop asdfghjklm yxcvbnmlkj", {});
  ASSERT_TRUE(known.ok() && unknown.ok());
  EXPECT_FALSE(known->abstained);
  EXPECT_EQ(known->coverage, std::nullopt) << "no head was asked";
  EXPECT_TRUE(unknown->abstained);
  EXPECT_EQ(unknown->answer, kAbstention);
  ASSERT_EQ(unknown->closest.size(), 1u);
  EXPECT_EQ(unknown->closest[0].document, "tale");
}

TEST_F(EngineTest, WithoutALookOnlyAQuestionWithoutAnyCandidateAbstains) {
  RecallProfile words_only = Profile();
  words_only.heads.clear();
  words_only.abstain_support = 1000;
  Restart({.answer = "It is 7350194."}, &words_only);
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  const Result<AskReply> known = engine_->Ask("tales", kQuestion, {});
  const Result<AskReply> unknown = engine_->Ask("tales", "Zyxwvutsrq?", {});
  ASSERT_TRUE(known.ok() && unknown.ok());
  EXPECT_FALSE(known->abstained);
  EXPECT_TRUE(unknown->abstained);
  EXPECT_EQ(unknown->answer, kAbstention);
  EXPECT_TRUE(unknown->closest.empty());
}

TEST_F(EngineTest, TheCodecIsChosenWhenAMemoryIsMade) {
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

TEST_F(EngineTest, WordsAboutTheTextItselfAreNotAskedFor) {
  ASSERT_TRUE(engine_->Ingest("tales", {"tale", Tale()}, nullptr, nullptr).ok());
  const Result<RecallReply> r = engine_->Recall(
      "tales", "where is the harbour mentioned in the provided text?", {.explain = true});
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  std::vector<std::string> words;
  for (const auto& word : r->words) words.push_back(word.text);
  EXPECT_THAT(words, ::testing::ElementsAre("where", "is", "the", "harbour"));
  // Where nothing else is asked for, they are.
  EXPECT_FALSE(engine_->Recall("tales", "in the provided text?", {.explain = true})->words.empty());
}

TEST_F(EngineTest, ExplainsWhatCompetedAndWhatBecameOfIt) {
  RecallProfile looking = Profile();
  looking.rerank_spans = 6;
  looking.spans_max = 3;
  looking.span_score_min = 0;
  Restart({}, &looking);
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  const Result<RecallReply> plain = engine_->Recall("tales", kQuestion, {});
  const Result<RecallReply> r = engine_->Recall("tales", kQuestion, {.explain = true});
  ASSERT_TRUE(plain.ok() && r.ok());
  EXPECT_TRUE(plain->words.empty() && plain->candidates_explained.empty());
  const auto word = std::find_if(r->words.begin(), r->words.end(),
                                 [](const QuestionWord& w) { return w.text == "Methuselah"; });
  ASSERT_NE(word, r->words.end());
  EXPECT_EQ(word->blocks, 1u);
  const auto named = static_cast<size_t>(word - r->words.begin());
  ASSERT_GT(r->candidates_explained.size(), 6u);
  size_t kept = 0, looked = 0, found = 0;
  for (size_t i = 0; i < r->candidates_explained.size(); ++i) {
    const ExplainedSpan& c = r->candidates_explained[i];
    ASSERT_EQ(c.found.size(), r->words.size());
    EXPECT_EQ(c.why.empty(), c.kept);
    // Explaining changes nothing of what is recalled.
    if (i < 3) {
      EXPECT_EQ(c.span.tokens, plain->spans[i].tokens);
    }
    EXPECT_EQ(c.kept, i < 3);
    EXPECT_EQ(c.rank, i < 6 ? i + 1 : 0);
    if (i >= 6) {
      EXPECT_EQ(c.planned_rank, i + 1);
    }
    kept += c.kept;
    looked += c.rank > 0;
    found += c.found[named];
    EXPECT_EQ(c.found[named], c.span.text.find("Methuselah") != std::string::npos);
  }
  EXPECT_EQ(kept, 3u);
  EXPECT_EQ(looked, 6u);
  EXPECT_GE(found, 1u);
  EXPECT_EQ(r->candidates_explained[3].why, "enough better ones");
  EXPECT_EQ(r->candidates_explained[6].why, "not looked at");
}

// Two links: the needle names a keeper, and what is told of the keeper shares no word with the
// question.
constexpr char kKeeper[] = "Quillon the porter keeps the ledgers behind the mill.\n";

std::string TaleOfTheKeeper() {
  std::string text = Tale();
  const std::string named = "said é the elder to Quillon.\n";
  const size_t needle = text.find("said é the elder.");
  text.replace(needle, text.find('\n', needle) + 1 - needle, named);
  text.insert(text.find('\n', 500) + 1, kKeeper);
  return text;
}

TEST_F(EngineTest, FollowsWhatTheBestSpanNamesAndSaysSo) {
  RecallProfile profile = Profile();
  profile.spans_max = 2;
  Restart({.answer = "7350194"}, &profile);
  const std::string text = TaleOfTheKeeper();
  ASSERT_TRUE(Ingest("tale", text).ok());
  const Result<RecallReply> recall = engine_->Recall("tales", kQuestion, {.explain = true});
  const Result<AskReply> ask = engine_->Ask("tales", kQuestion, {});
  ASSERT_TRUE(recall.ok() && ask.ok());
  EXPECT_EQ(recall->hops, 1u);
  EXPECT_EQ(ask->hops, 1u);
  EXPECT_EQ(ask->spans, recall->spans.size());
  const auto keeper = [](const RecalledSpan& s) {
    return s.text.find(kKeeper) != std::string::npos;
  };
  const auto found = std::find_if(recall->spans.begin(), recall->spans.end(), keeper);
  ASSERT_NE(found, recall->spans.end());
  EXPECT_THAT(found->reasons, testing::ElementsAre("follow-up"));
  ExpectPlace(*found, text);
  EXPECT_TRUE(std::any_of(ask->citations.begin(), ask->citations.end(),
                          [&](const Citation& c) { return keeper(c.span); }));
  EXPECT_TRUE(std::any_of(recall->candidates_explained.begin(), recall->candidates_explained.end(),
                          [&](const ExplainedSpan& c) { return c.kept && keeper(c.span); }));
  // A limit that is asked for holds, and without hops all is as it was.
  const Result<RecallReply> one = engine_->Recall("tales", kQuestion, {.spans_max = 1});
  ASSERT_TRUE(one.ok());
  ASSERT_EQ(one->spans.size(), 1u);
  EXPECT_THAT(one->spans[0].text, HasSubstr("Methuselah"));
  EXPECT_EQ(one->hops, 0u);
  profile.hops_max = 0;
  Restart({}, &profile);
  const Result<RecallReply> none = engine_->Recall("tales", kQuestion, {});
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->hops, 0u);
  EXPECT_TRUE(std::none_of(none->spans.begin(), none->spans.end(), keeper));
}

// The answer's own words recall; with layers of the model's own the span is read again, at native
// positions that the toy checks.
TEST_F(EngineTest, RecallsAnewForARareWordOfTheAnswerItself) {
  std::string text = Tale();
  text.insert(text.find('\n', 500) + 1, kKeeper);
  const std::string answer = "It is 7350194, and Quillon may know more of it, or not.";
  for (const uint32_t native_window : {0u, 400u}) {
    SCOPED_TRACE(native_window);
    RecallProfile profile = Profile();
    const ToyOptions toy{.native_window = native_window, .answer = answer};
    profile.spans_max = 1;
    Restart(toy, &profile);
    if (native_window > 0) {
      ASSERT_TRUE(engine_->Forget("tales", "", false).ok());
    }
    ASSERT_TRUE(Ingest("tale", text).ok());
    const Result<AskReply> r = engine_->Ask("tales", kQuestion, {});
    ASSERT_TRUE(r.ok()) << r.status().ToString();
    EXPECT_EQ(r->answer, answer);
    EXPECT_EQ(r->generation_spans, 1u);
    EXPECT_EQ(r->spans, r->citations.size());
    EXPECT_EQ(r->hops, 0u);
    double total = 0;
    uint64_t tokens = 0;
    const Citation* keeper = nullptr;
    for (const Citation& c : r->citations) {
      ExpectPlace(c.span, text);
      total += c.span.score;
      tokens += c.span.tokens.size();
      if (c.span.text.find(kKeeper) != std::string::npos) keeper = &c;
    }
    ASSERT_NE(keeper, nullptr);
    EXPECT_THAT(keeper->span.reasons, testing::ElementsAre("follow-up"));
    EXPECT_GT(keeper->span.score, 0.0);
    EXPECT_NEAR(total, 1.0, 1e-9);
    EXPECT_EQ(tokens, r->tokens_recalled);
    profile.generation_spans = 0;
    Restart(toy, &profile);
    const Result<AskReply> without = engine_->Ask("tales", kQuestion, {});
    ASSERT_TRUE(without.ok());
    EXPECT_EQ(without->answer, answer);
    EXPECT_EQ(without->generation_spans, 0u);
    EXPECT_EQ(without->citations.size(), r->citations.size() - 1);
  }
}

}  // namespace
}  // namespace longhold
