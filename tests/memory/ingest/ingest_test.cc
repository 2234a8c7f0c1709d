// Compares the state of a store after an interrupted ingest with that after an uninterrupted one:
// every key and value of all tables.
//
// Interruptions: the stop flag after every pass, repeatedly; and a simulated kill. For the kill,
// the nth write of the store fails, for every n. Then everything in the process (memory, model) is
// dropped, and a new one ingests the same text over what the store holds. The store's writes are
// atomic, so a kill between two writes is the only kind there is (tests/store tests kill -9
// itself). Sizes: a pass is 512 tokens and a commit 4,096, so documents have 1 token, or lengths at
// and next to 64, 512, 4,096 and 8,192. Tokens are bytes here, and the toy model has two layers of
// two heads.
#include "memory/ingest/ingest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "memory/attend/hot_window.h"
#include "store/mem_store.h"
#include "tests/support/sanitized.h"
#include "tests/support/stores.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"

namespace longhold {
namespace {

using Outcome = IngestReport::Outcome;

RecallProfile Profile() {
  RecallProfile p;
  p.name = "toy";
  p.heads = {{.layer = 2, .kv_head = 0}, {.layer = 0, .kv_head = 0}};
  p.window_tokens = 64;
  return p;
}

ToyOptions Toy(uint32_t native_window) {
  return {.geometry = TinyGeometry(), .native_window = native_window};
}

// A text of exactly `tokens` tokens, BOS included. No two adjacent letters form a longer piece of
// the toy's vocabulary.
std::string TextOf(uint64_t tokens, uint64_t seed = 1) {
  std::mt19937_64 rng(seed);
  std::string text;
  while (text.size() + 1 < tokens)
    text += text.size() % 40 == 39 ? '\n'
            : text.size() % 6 == 5 ? ' '
                                   : "bdfhjlmpqrvwxz"[rng() % 14];
  return text;
}

std::string codec_name = "exact";  // of the memories that Process creates

// Tests that must hold for every codec.
class IngestIn : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { codec_name = GetParam(); }
  void TearDown() override { codec_name = "exact"; }
};
INSTANTIATE_TEST_SUITE_P(Codecs, IngestIn, testing::Values("exact", "k5v4", "archive"),
                         [](const auto& info) { return info.param; });

// One process: a model and a memory over a store that outlives it. Creates the memory if there is
// none.
struct Process {
  ToyModel model;
  std::unique_ptr<ColdStore> own;
  std::unique_ptr<Memory> memory;
  LexicalVocabulary vocabulary;
  Status status;

  Process(ColdStore& base, uint32_t native_window, const FaultPlan& faults = {})
      : model(Toy(native_window)), own(NewFaultyStore(&base, faults)), vocabulary(model.pieces()) {
    Result<std::unique_ptr<Memory>> opened = Memory::Open(Borrow(*own), "tales", &model.info());
    if (opened.status().code() == StatusCode::kNotFound)
      opened = Memory::Create(Borrow(*own), "tales", model.info(), Profile(), codec_name);
    status = opened.status();
    if (opened.ok()) memory = std::move(*opened);
  }
  Result<IngestReport> Ingest(const std::string& name, const std::string& text,
                              int stop_after_passes = 0) {
    if (!status.ok()) return status;
    std::atomic<bool> stop{false};
    int passes = 0;
    return IngestDocument(model, *memory, vocabulary, {name, text}, &stop,
                          [&](const IngestProgress& p) {
                            if (p.step == IngestStep::kReading && ++passes == stop_after_passes)
                              stop = true;
                          });
  }
  // Interrupted before any of the text is searchable.
  Result<IngestReport> Begin(const std::string& name, const std::string& text) {
    std::atomic<bool> stop{true};
    return IngestDocument(model, *memory, vocabulary, {name, text}, &stop, nullptr);
  }
};

StoreContents Unbroken(const std::vector<std::pair<std::string, std::string>>& documents,
                       uint32_t native_window) {
  const auto store = NewMemStore();
  for (const auto& [name, text] : documents) {
    const Result<IngestReport> r = Process(*store, native_window).Ingest(name, text);
    EXPECT_TRUE(r.ok()) << r.status().ToString();
  }
  return Contents(*store);
}

TEST_P(IngestIn, ContainsEveryBlockSegmentAndTokenOfTheDocument) {
  for (const uint64_t tokens : {2, 63, 64, 65, 511, 512, 513, 4095, 4096, 4097, 8192, 8193}) {
    SCOPED_TRACE(std::to_string(tokens) + " tokens");
    const auto store = NewMemStore();
    Process p(*store, 0);
    const std::string text = TextOf(tokens);
    const Result<IngestReport> r = p.Ingest("tale", text);
    ASSERT_TRUE(r.ok()) << r.status().ToString();
    EXPECT_EQ(r->outcome, Outcome::kIngested);
    EXPECT_EQ(r->tokens, tokens);
    EXPECT_EQ(r->tokens_read, tokens);
    EXPECT_EQ(r->version, 1u);
    const DocumentRecord& d = *p.memory->Find("tale");
    EXPECT_TRUE(d.complete());
    EXPECT_EQ(d.tokens, tokens);
    EXPECT_EQ(d.bytes, text.size());
    EXPECT_EQ(p.memory->Locate(d.id, {0, tokens})->text, text);
    ASSERT_TRUE(p.memory->Verify().ok());
    ASSERT_TRUE(p.memory->LoadIndexes().ok());
    EXPECT_EQ(p.memory->lexical().token_count(), tokens);
    EXPECT_EQ(p.memory->scan().token_count(), tokens);
    size_t blocks = 0, segments = 0;
    for (const auto& [key, value] : Contents(*store)) {
      blocks += key.first == static_cast<int>(Table::kBlocks);
      segments += key.first == static_cast<int>(Table::kIndex);
      EXPECT_FALSE(key.second.starts_with("resume/"))
          << "a finished document needs no resume state";
    }
    EXPECT_EQ(blocks, (tokens + 63) / 64);
    EXPECT_EQ(segments, 3 * ((tokens + kCommitTokens - 1) / kCommitTokens));
  }
}

// The stored keys and values must equal those of a hot window that ingested the document: the
// model's real values.
TEST(Ingest, StoresTheWindowsKeysAndValues) {
  for (const uint32_t native_window : {0u, 100u}) {
    const auto store = NewMemStore();
    Process p(*store, native_window);
    const std::string text = TextOf(1300);
    ASSERT_TRUE(p.Ingest("tale", text).ok());
    ToyModel model(Toy(native_window));
    HotWindow window(model.info().geometry, {64, 64, 512});
    const std::vector<TokenId> tokens = *p.memory->Tokens(DocumentId{1}, {0, 1300});
    const size_t width = model.info().geometry.kv_width();
    for (uint32_t at = 0; at < 1300; at += 512) {
      const uint32_t count = std::min(512u, 1300 - at);
      window.BeginPass(count);
      ASSERT_TRUE(model.Forward(std::span(tokens).subspan(at, count), at, &window, false).ok());
      window.EndPass();
      for (uint32_t t = at; t < at + count; ++t) {
        const KvBlock block = *p.memory->LoadBlock({DocumentId{1}, t / 64});
        ASSERT_EQ(block.tokens, std::min(64u, 1300 - t / 64 * 64));
        for (uint32_t slot = 0; slot < 2; ++slot) {
          for (uint32_t c = 0; c < width; ++c) {
            ASSERT_EQ(block.Keys(slot)[t % 64 * width + c],
                      window.PassKeys(slot)[(t - at) * width + c]);
            ASSERT_EQ(block.Values(slot)[t % 64 * width + c],
                      window.PassValues(slot)[(t - at) * width + c]);
          }
        }
      }
    }
  }
}

TEST_P(IngestIn, StoppedAfterEveryPassEndsInTheSameState) {
  for (const uint32_t native_window : {0u, 100u}) {
    for (const uint64_t tokens : {500, 512, 513, 1030, 4096, 4097, 4608, 9000}) {
      SCOPED_TRACE(std::to_string(tokens) + " tokens, native window " +
                   std::to_string(native_window));
      const std::string text = TextOf(tokens);
      const StoreContents expected = Unbroken({{"tale", text}}, native_window);
      for (const int passes : {1, 3}) {
        const auto store = NewMemStore();
        uint64_t read = 0;
        for (int calls = 0;; ++calls) {
          ASSERT_LT(calls, 30);
          Process p(*store, native_window);
          const Result<IngestReport> r = p.Ingest("tale", text, passes);
          ASSERT_TRUE(r.ok()) << r.status().ToString();
          read += r->tokens_read;
          EXPECT_EQ(p.memory->committed_tokens(), read) << "what was read is committed";
          if (r->outcome != Outcome::kStopped) {
            EXPECT_EQ(r->outcome, calls == 0 ? Outcome::kIngested : Outcome::kResumed);
            break;
          }
        }
        EXPECT_EQ(read, tokens) << "no token is read twice";
        EXPECT_EQ(Difference(expected, Contents(*store)), "");
      }
    }
  }
}

TEST(Ingest, StopsAndContinuesWithinOneProcess) {
  const std::string text = TextOf(5000);
  const auto store = NewMemStore();
  Process p(*store, 100);
  for (int calls = 0; calls < 30; ++calls) {
    const Result<IngestReport> r = p.Ingest("tale", text, 2);
    ASSERT_TRUE(r.ok()) << r.status().ToString();
    if (r->outcome != Outcome::kStopped) break;
  }
  EXPECT_EQ(Difference(Unbroken({{"tale", text}}, 100), Contents(*store)), "");
}

TEST(Ingest, AStopFlagSetFromTheStartIngestsNothing) {
  const auto store = NewMemStore();
  Process p(*store, 0);
  const std::string text = TextOf(700);
  std::atomic<bool> stop{true};
  const Result<IngestReport> r =
      IngestDocument(p.model, *p.memory, p.vocabulary, {"tale", text}, &stop, nullptr);
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(r->outcome, Outcome::kStopped);
  EXPECT_EQ(r->tokens_read, 0u);
  EXPECT_EQ(p.model.forward_count(), 0u);
  ASSERT_TRUE(p.memory->Verify().ok());
  ASSERT_TRUE(p.Ingest("tale", text).ok());
  EXPECT_EQ(Difference(Unbroken({{"tale", text}}, 0), Contents(*store)), "");
}

TEST_P(IngestIn, KilledAtAnyWriteAndRunAgainEndsInTheSameState) {
  // The archive codec's basis is written with the first commit.
  const bool archive = codec_name == "archive";
  for (const uint32_t native_window : archive ? std::vector{0u} : std::vector{0u, 100u}) {
    for (const uint64_t tokens : archive ? std::vector<uint64_t>{4096, 4097}
                                         : std::vector<uint64_t>{100, 1030, 4096, 4097}) {
      const std::string text = TextOf(tokens);
      const StoreContents expected = Unbroken({{"tale", text}}, native_window);
      uint64_t writes = 1;
      for (;; writes += kSanitized ? 5 : 1) {
        SCOPED_TRACE(std::to_string(tokens) + " tokens, native window " +
                     std::to_string(native_window) + ", write " + std::to_string(writes));
        const auto store = NewMemStore();
        {
          Process killed(*store, native_window, {.fail_write_after = writes});
          const Result<IngestReport> r = killed.Ingest("tale", text);
          if (r.ok()) break;  // it has fewer than `n` writes
          EXPECT_EQ(r.status().code(), StatusCode::kResourceExhausted);
        }
        {
          Process again(*store, native_window);
          ASSERT_TRUE(again.memory->Verify().ok()) << again.memory->Verify().ToString();
          const uint64_t committed = again.memory->committed_tokens();
          const Result<IngestReport> r = again.Ingest("tale", text);
          ASSERT_TRUE(r.ok()) << r.status().ToString();
          EXPECT_EQ(r->tokens_read, tokens - committed) << "it continues from the last commit";
        }
        ASSERT_EQ(Difference(expected, Contents(*store)), "");
      }
      EXPECT_GT(writes, (tokens + 63) / 64);
    }
  }
}

// Several kills of one long document of two commits: early, in the middle and late, one after
// another.
TEST_P(IngestIn, KilledRepeatedlyEndsInTheSameState) {
  constexpr uint64_t kSeed = 9;
  SCOPED_TRACE(kSeed);
  std::mt19937_64 rng(kSeed);
  const std::string text = TextOf(9000);
  const StoreContents expected = Unbroken({{"tale", text}}, 100);
  for (int round = 0; round < 6; ++round) {
    const auto store = NewMemStore();
    for (int life = 0;; ++life) {
      ASSERT_LT(life, 50);
      Process p(*store, 100, {.fail_write_after = 60 + rng() % 60});
      const Result<IngestReport> r = p.Ingest("tale", text, life % 2 == 1 ? 3 : 0);
      if (r.ok() && r->outcome != Outcome::kStopped) break;
    }
    ASSERT_EQ(Difference(expected, Contents(*store)), "") << "round " << round;
  }
}

TEST(Ingest, TheSameContentIsIngestedOnceWhateverItsName) {
  const auto store = NewMemStore();
  Process p(*store, 0);
  const std::string text = TextOf(700);
  ASSERT_TRUE(p.Ingest("tale", text).ok());
  const uint64_t passes = p.model.forward_count();
  const auto again = [&](const char* name) {
    const Result<IngestReport> r = p.Ingest(name, text);
    ASSERT_TRUE(r.ok());
    EXPECT_EQ(r->outcome, Outcome::kUnchanged);
    EXPECT_EQ(r->document, "tale");
    EXPECT_EQ(r->tokens, 700u);
    EXPECT_EQ(r->tokens_read, 0u);
  };
  StoreContents before = Contents(*store);
  again("tale");
  EXPECT_EQ(Difference(before, Contents(*store)), "");
  again("copy");
  again("copy");
  EXPECT_EQ(p.model.forward_count(), passes);
  ASSERT_EQ(p.memory->documents().size(), 1u);
  EXPECT_EQ(p.memory->documents()[0].aliases, std::vector<std::string>{"copy"});
  StoreContents after = Contents(*store);
  const std::pair<int, std::string> record(0, std::string("document/\0\0\0\1", 13));
  ASSERT_TRUE(before.contains(record));
  after[record] = before[record];
  EXPECT_EQ(Difference(before, after), "") << "a name is all that it costs";
}

// Compares the text that each name refers to with a map from name to text, after any sequence of
// files taking each other's content. Sizes: four names and three texts, so names are often shared,
// taken over and dropped. Every third ingest is killed at a random write.
TEST(Ingest, ANameRefersToTheTextIngestedLastUnderIt) {
  const std::vector<std::string> texts = {TextOf(200, 1), TextOf(300, 2), TextOf(600, 3)};
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 rng(seed);
    const auto store = NewMemStore();
    std::map<std::string, std::string> expected;
    for (int step = 0; step < 12; ++step) {
      const std::string name(1, "abcd"[rng() % 4]);
      if (rng() % 5 == 0 && expected.contains(name)) {
        Process p(*store, 0);
        const DocumentRecord* d = p.memory->Find(name);
        ASSERT_NE(d, nullptr);
        ASSERT_TRUE(p.memory->Forget(d->id, name).ok());
        expected.erase(name);
      } else {
        const std::string& text = texts[rng() % texts.size()];
        if (step % 3 == 2) {
          Process killed(*store, 0, {.fail_write_after = 1 + rng() % 6});
          const Result<IngestReport> r = killed.Ingest(name, text);
          if (!r.ok() && expected.contains(name)) {
            Process p(*store, 0);
            bool there = false;
            for (const DocumentRecord& d : p.memory->documents()) {
              const std::string held = p.memory->Locate(d.id, {0, d.tokens})->text;
              there |= d.HasName(name) && d.searchable() &&
                       (held == text || (d.complete() && held == expected[name]));
            }
            EXPECT_TRUE(there) << "an ingest that died took what the name stood for";
          }
        }
        ASSERT_TRUE(Process(*store, 0).Ingest(name, text).ok());
        expected[name] = text;
      }
      Process p(*store, 0);
      ASSERT_TRUE(p.memory->Verify().ok());
      std::map<std::string, std::string> got;
      std::set<std::string> distinct;
      for (const DocumentRecord& d : p.memory->documents()) {
        EXPECT_TRUE(d.complete());
        const std::string text = p.memory->Locate(d.id, {0, d.tokens})->text;
        EXPECT_TRUE(distinct.insert(text).second) << "the same content twice";
        EXPECT_TRUE(got.emplace(d.name, text).second) << d.name;
        for (const std::string& alias : d.aliases)
          EXPECT_TRUE(got.emplace(alias, text).second) << alias;
      }
      ASSERT_TRUE(got == expected) << "step " << step;
    }
  }
}

// A run whose model uses another batch size continues with the pass size that the document began
// with, or reports why it cannot.
TEST(Ingest, ContinuesWithThePassSizeThatTheDocumentBeganWith) {
  const std::string text = TextOf(3000);
  const auto run = [&](ColdStore& store, uint32_t batch_tokens,
                       int stop_after_passes) -> Result<IngestReport> {
    ToyOptions options = Toy(100);
    options.batch_tokens = batch_tokens;
    ToyModel model(options);
    Result<std::unique_ptr<Memory>> memory = Memory::Open(Borrow(store), "tales", &model.info());
    if (memory.status().code() == StatusCode::kNotFound)
      memory = Memory::Create(Borrow(store), "tales", model.info(), Profile());
    if (!memory.ok()) return memory.status();
    std::atomic<bool> stop{false};
    int passes = 0;
    return IngestDocument(model, **memory, LexicalVocabulary(model.pieces()), {"tale", text}, &stop,
                          [&](const IngestProgress& p) {
                            stop = p.step == IngestStep::kReading && ++passes == stop_after_passes;
                          });
  };
  const auto unbroken = NewMemStore(), broken = NewMemStore();
  ASSERT_TRUE(run(*unbroken, 256, 0).ok());
  ASSERT_EQ(run(*broken, 256, 3)->outcome, Outcome::kStopped);
  ASSERT_EQ(run(*broken, 512, 3)->outcome, Outcome::kStopped);
  const Result<IngestReport> smaller = run(*broken, 128, 0);
  EXPECT_EQ(smaller.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(smaller.status().message(),
              testing::AllOf(testing::HasSubstr("tale"), testing::HasSubstr("256"),
                             testing::HasSubstr("128")));
  ASSERT_EQ(run(*broken, 300, 0)->outcome, Outcome::kResumed);
  EXPECT_EQ(Difference(Contents(*unbroken), Contents(*broken)), "");
  // A batch size that does not divide a commit is rounded down to one that does.
  const auto odd = NewMemStore();
  ASSERT_TRUE(run(*odd, 300, 0).ok());
  EXPECT_EQ(Difference(Contents(*unbroken), Contents(*odd)), "");
}

TEST(Ingest, ChangedContentIsANewVersionThatReplacesTheOldOneOnceItIsSearchable) {
  const std::string old_text = TextOf(5000, 1), new_text = TextOf(4500, 2), other = TextOf(300, 3);
  const auto store = NewMemStore();
  {
    Process p(*store, 0);
    ASSERT_TRUE(p.Ingest("tale", old_text).ok());
    ASSERT_TRUE(p.Ingest("other", other).ok());
  }
  const auto finds = [&](DocumentId document) {
    Process p(*store, 0);
    ASSERT_TRUE(p.memory->Verify().ok());
    ASSERT_TRUE(p.memory->LoadIndexes().ok());
    const std::vector<TokenId> words = *p.memory->Tokens(document, {3000, 3060});
    const LexicalResult found = p.memory->lexical().Query(p.vocabulary.Words(words), 4);
    ASSERT_FALSE(found.blocks.empty());
    EXPECT_EQ(found.blocks[0].block.document, document);
  };
  {  // Interrupted while it is indexed, both versions exist, and the old one is complete.
    Process p(*store, 0);
    std::atomic<bool> stop{false};
    const Result<IngestReport> r =
        IngestDocument(p.model, *p.memory, p.vocabulary, {"tale", new_text}, &stop,
                       [&](const IngestProgress&) { stop = true; });
    ASSERT_TRUE(r.ok());
    EXPECT_EQ(r->outcome, Outcome::kStopped);
    EXPECT_EQ(r->version, 2u);
    EXPECT_EQ(p.memory->documents().size(), 3u);
    EXPECT_EQ(p.memory->Get(DocumentId{3}).searchable_tokens, kCommitTokens);
    EXPECT_EQ(p.memory->Locate(DocumentId{1}, {0, 5000})->text, old_text);
  }
  finds(DocumentId{1});
  {  // Interrupted while it is read, the new one is found, and the old one is gone.
    Process p(*store, 0);
    const Result<IngestReport> r = p.Ingest("tale", new_text, 1);
    ASSERT_TRUE(r.ok());
    EXPECT_EQ(r->outcome, Outcome::kStopped);
    EXPECT_EQ(p.memory->documents().size(), 2u);
    EXPECT_EQ(p.memory->Find("tale")->committed_tokens, 512u);
  }
  finds(DocumentId{3});
  {
    Process p(*store, 0);
    const Result<IngestReport> r = p.Ingest("tale", new_text);
    ASSERT_TRUE(r.ok());
    EXPECT_EQ(r->version, 2u);
    ASSERT_EQ(p.memory->documents().size(), 2u);
    EXPECT_EQ(p.memory->Find("tale")->id, DocumentId{3});
    EXPECT_EQ(p.memory->Find("tale")->version, 2u);
    EXPECT_EQ(p.memory->Locate(DocumentId{3}, {0, 4500})->text, new_text);
    EXPECT_TRUE(p.memory->Verify().ok());
    ASSERT_TRUE(p.memory->LoadIndexes().ok());
    EXPECT_EQ(p.memory->lexical().token_count(), 4500u + 300u);
  }
  for (const auto& [key, value] : Contents(*store)) {
    if (key.first == static_cast<int>(Table::kMeta)) continue;
    EXPECT_NE(ReadBigEndian32(key.second), 1u) << "something of the old version is left";
  }
}

TEST_P(IngestIn, KilledNewVersionEndsInTheSameState) {
  const std::string old_text = TextOf(600, 1), new_text = TextOf(700, 2);
  const StoreContents expected = Unbroken({{"tale", old_text}, {"tale", new_text}}, 0);
  for (uint64_t writes = 1;; ++writes) {
    SCOPED_TRACE("write " + std::to_string(writes));
    const auto store = NewMemStore();
    ASSERT_TRUE(Process(*store, 0).Ingest("tale", old_text).ok());
    if (Process(*store, 0, {.fail_write_after = writes}).Ingest("tale", new_text).ok()) break;
    {
      Process p(*store, 0);
      ASSERT_TRUE(p.memory->Verify().ok());
      const DocumentRecord& found = p.memory->documents().front();
      EXPECT_TRUE(found.searchable());
      EXPECT_EQ(p.memory->Locate(found.id, {0, found.tokens})->text,
                found.id == DocumentId{1} ? old_text : new_text);
      const Result<IngestReport> r = p.Ingest("tale", new_text);
      ASSERT_TRUE(r.ok());
      EXPECT_EQ(r->version, 2u);
    }
    ASSERT_EQ(Difference(expected, Contents(*store)), "");
  }
}

// a complete, then b interrupted, then c: c replaces both.
TEST(Ingest, AnIncompleteVersionDoesNotHideThePreviousOne) {
  const auto store = NewMemStore();
  ASSERT_TRUE(Process(*store, 0).Ingest("tale", TextOf(600, 1)).ok());
  ASSERT_TRUE(Process(*store, 0).Begin("tale", TextOf(1300, 2)).ok());
  Process p(*store, 0);
  ASSERT_EQ(p.memory->documents().size(), 2u);
  const Result<IngestReport> r = p.Ingest("tale", TextOf(700, 3));
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  EXPECT_EQ(r->version, 2u);
  ASSERT_EQ(p.memory->documents().size(), 1u);
  EXPECT_EQ(p.memory->documents()[0].tokens, 700u);
  EXPECT_TRUE(p.memory->Verify().ok());
}

// a complete, then b interrupted, then the file is a again: b is no longer needed.
TEST(Ingest, ReturningToTheOldContentDropsTheIncompleteVersion) {
  const auto store = NewMemStore();
  ASSERT_TRUE(Process(*store, 0).Ingest("tale", TextOf(600, 1)).ok());
  ASSERT_TRUE(Process(*store, 0).Begin("tale", TextOf(1300, 2)).ok());
  Process p(*store, 0);
  ASSERT_EQ(p.memory->documents().size(), 2u);
  const Result<IngestReport> r = p.Ingest("tale", TextOf(600, 1));
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  EXPECT_EQ(r->outcome, Outcome::kUnchanged);
  ASSERT_EQ(p.memory->documents().size(), 1u);
  EXPECT_EQ(p.memory->documents()[0].tokens, 600u);
}

// Native positions are shifted back (folded) every 32,768 tokens, together with the window. Only
// distances matter to the toy's native layers, so a fold must not change any key. A resume after a
// fold must find the window in place.
TEST(Ingest, FoldingNativePositionsChangesNothing) {
  constexpr uint64_t kTokens = 2 * 65536 + 1500;  // folds at 65,536, 98,304 and 131,072
  KvGeometry g;
  g.layers = {0};
  g.q_heads = g.kv_heads = 1;
  g.head_dim = 4;
  g.rope = {RopeSpec{.rotary_dims = 4}};
  const ToyOptions options{.geometry = g, .native_window = 40, .batch_tokens = 512};
  RecallProfile profile = Profile();
  profile.heads = {{.layer = 0, .kv_head = 0}};
  const std::string text = TextOf(kTokens);
  const auto run = [&](ColdStore& store, const std::vector<int>& stops) {
    uint32_t position_max = 0;
    for (size_t life = 0; life <= stops.size(); ++life) {
      ToyModel model(options);
      Result<std::unique_ptr<Memory>> memory =
          life == 0 ? Memory::Create(Borrow(store), "tales", model.info(), profile)
                    : Memory::Open(Borrow(store), "tales", &model.info());
      EXPECT_TRUE(memory.ok());
      std::atomic<bool> stop{false};
      int passes = 0;
      const Result<IngestReport> r = IngestDocument(
          model, **memory, LexicalVocabulary(model.pieces()), {"tale", text}, &stop,
          [&](const IngestProgress& p) {
            stop = p.step == IngestStep::kReading && life < stops.size() && ++passes == stops[life];
          });
      EXPECT_TRUE(r.ok()) << r.status().ToString();
      position_max = std::max(position_max, model.native_position_max());
    }
    EXPECT_LE(position_max, 2u * 32768);
  };
  const auto unbroken = NewMemStore(), broken = NewMemStore();
  run(*unbroken, {});
  run(*broken, {128, 1, 63});  // at 65,536, one pass behind it, and at 98,304
  EXPECT_EQ(Difference(Contents(*unbroken), Contents(*broken)), "");

  // Compared with positions that are never folded.
  ToyModel model(options);
  HotWindow window(g, {64, 64, 512});
  const auto memory = std::move(Memory::Open(Borrow(*unbroken), "tales", &model.info())).value();
  for (uint64_t at = 0; at < kTokens; at += 512) {
    const std::vector<TokenId> tokens =
        *memory->Tokens(DocumentId{1}, {at, std::min(at + 512, kTokens)});
    window.BeginPass(static_cast<uint32_t>(tokens.size()));
    ASSERT_TRUE(model.Forward(tokens, static_cast<uint32_t>(at), &window, false).ok());
    window.EndPass();
    const KvBlock block = *memory->LoadBlock({DocumentId{1}, static_cast<uint32_t>(at / 64)});
    ASSERT_TRUE(std::equal(block.Keys(0), block.Keys(0) + 64 * 4, window.PassKeys(0)))
        << "keys at token " << at;
  }
}

TEST(Ingest, ReportsProgressInOrderUpToTheEnd) {
  const auto store = NewMemStore();
  Process p(*store, 0);
  std::vector<uint64_t> indexed, done;
  ASSERT_TRUE(IngestDocument(p.model, *p.memory, p.vocabulary, {"tale", TextOf(1300)}, nullptr,
                             [&](const IngestProgress& progress) {
                               EXPECT_EQ(progress.document, "tale");
                               EXPECT_EQ(progress.tokens_total, 1300u);
                               const bool reads = progress.step == IngestStep::kReading;
                               (reads ? done : indexed).push_back(progress.tokens_done);
                             })
                  .ok());
  EXPECT_EQ(indexed, (std::vector<uint64_t>{1300}));
  EXPECT_EQ(done, (std::vector<uint64_t>{512, 1024, 1300}));
}

TEST_P(IngestIn, SeveralModelWorkersGiveTheSameBytes) {
  const std::string text = TextOf(1500);
  StoreContents expected;
  for (const uint32_t workers : {1u, 3u}) {
    const auto store = NewMemStore();
    ToyModel model({.native_window = 50, .workers = workers});
    RecallProfile profile = Profile();
    profile.heads = {{.layer = 3, .kv_head = 1}};
    const auto memory =
        std::move(Memory::Create(Borrow(*store), "tales", model.info(), profile)).value();
    ASSERT_TRUE(IngestDocument(model, *memory, LexicalVocabulary(model.pieces()), {"tale", text},
                               nullptr, nullptr)
                    .ok());
    if (workers == 1) {
      expected = Contents(*store);
    } else {
      EXPECT_EQ(Difference(expected, Contents(*store)), "");
    }
  }
}

}  // namespace
}  // namespace longhold
