// Blocks that are read for a question before the model has read their text in order. Compares them
// with the blocks of a reading in order, the memory's final state with that of an unbroken reading,
// and checks what is kept.
#include "memory/recall/unread_blocks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "attention/kernels.h"
#include "memory/ingest/ingest.h"
#include "store/mem_store.h"
#include "tests/support/sanitized.h"
#include "tests/support/stores.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"

namespace longhold {
namespace {

RecallProfile Profile() {
  RecallProfile p;
  p.name = "toy";
  p.heads = {{.layer = 2, .kv_head = 0}};
  p.window_tokens = 128;
  return p;
}

// One process: a model and a memory over a store that outlives it.
struct Process {
  ToyModel model;
  std::unique_ptr<ColdStore> own;
  std::unique_ptr<Memory> memory;
  LexicalVocabulary vocabulary;
  MemoryBudget budget{1ull << 30};

  explicit Process(ColdStore& base, uint32_t native_window = 0, const FaultPlan& faults = {})
      : model({.geometry = TinyGeometry(), .native_window = native_window}),
        own(NewFaultyStore(&base, faults)),
        vocabulary(model.pieces()) {
    Result<std::unique_ptr<Memory>> opened = Memory::Open(Borrow(*own), "tales", &model.info());
    if (opened.status().code() == StatusCode::kNotFound)
      opened = Memory::Create(Borrow(*own), "tales", model.info(), Profile(), "exact");
    if (opened.ok()) memory = std::move(*opened);
  }
  // Reads `passes` passes of the document, or all of it.
  Result<IngestReport> Ingest(const std::string& text, int passes = 1 << 20) {
    if (memory == nullptr) return Internal("not opened");
    LH_ASSIGN_OR_RETURN(
        const IngestReport indexed,
        IndexDocument(model, *memory, vocabulary, {"tale", text}, nullptr, nullptr));
    std::atomic<bool> stop{passes == 0};
    return ReadDocument(model, *memory, vocabulary, memory->Find("tale")->id, nullptr, &stop,
                        [&](const IngestProgress&) { stop = --passes == 0; });
  }
  Result<std::map<BlockKey, KvBlock>> Load(const std::vector<NeededRows>& needed,
                                           uint32_t run_up = kRunUpTokens) {
    return UnreadBlocks(&model, memory.get(), &budget, run_up).Load(needed);
  }
};

constexpr DocumentId kTale{1};

NeededRows Rows(uint32_t block, uint32_t begin = 0, uint32_t end = kBlockTokens) {
  return {{kTale, block}, begin, end};
}

// |a - b| / |b| of rows [begin, end), over all keys and values.
double Difference(const KvBlock& a, const KvBlock& b, uint32_t begin, uint32_t end) {
  double different = 0, all = 0;
  const size_t width = a.shape.kv_width;
  std::vector<float> x(width), y(width);
  for (uint32_t slot = 0; slot < a.shape.layers; ++slot) {
    for (uint32_t r = begin; r < end; ++r) {
      for (const bool keys : {true, false}) {
        Kernels().half_to_float((keys ? a.Keys(slot) : a.Values(slot)) + r * width, x.data(),
                                width);
        Kernels().half_to_float((keys ? b.Keys(slot) : b.Values(slot)) + r * width, y.data(),
                                width);
        for (size_t c = 0; c < width; ++c) {
          different += (x[c] - y[c]) * (x[c] - y[c]);
          all += y[c] * y[c];
        }
      }
    }
  }
  return std::sqrt(different / all);
}

// The run-up that puts a block as far behind the sinks as a reading in order does. The passes of
// the latter have 512 tokens, those of UnreadBlocks 256, and the window of 128 stands between a
// pass and the sinks. Must hold: HasSameDistance(block).
uint32_t SameDistance(uint32_t block) { return 256 + block * kBlockTokens % 512; }
bool HasSameDistance(uint64_t block) { return block % 8 <= 3; }
// A text of some 3,000 tokens whose last block has such a run-up.
std::string TextWithGoodEnd(uint64_t seed) {
  std::string text = PlainText(3000, seed);
  const ToyModel model({.geometry = TinyGeometry()});
  for (;; text.resize(text.size() - 40)) {
    const auto tokens = TokenizeText(model, text)->back();
    if (HasSameDistance((tokens.token_begin + tokens.tokens.size() - 1) / kBlockTokens))
      return text;
  }
}

// The toy's two layers of window 128 see at most 254 tokens back, so that a longer run-up changes
// nothing but the distance to the sinks.
TEST(UnreadBlocks, EqualAReadingInOrderWhereTheRunUpIsLongEnough) {
  for (const uint32_t native_window : {0u, 100u}) {
    const auto read_store = NewMemStore(), unread_store = NewMemStore();
    Process read(*read_store, native_window), unread(*unread_store, native_window);
    const std::string text = TextWithGoodEnd(1);
    ASSERT_TRUE(read.Ingest(text).ok());
    ASSERT_TRUE(unread.Ingest(text, 0).ok());
    ASSERT_EQ(unread.memory->Get(kTale).committed_tokens, 0u);
    ASSERT_TRUE(unread.memory->Get(kTale).searchable());
    const auto last = static_cast<uint32_t>((unread.memory->Get(kTale).tokens - 1) / kBlockTokens);
    const auto last_rows =
        static_cast<uint32_t>(unread.memory->Get(kTale).tokens - last * kBlockTokens);
    for (const uint32_t block : {0u, 1u, 2u, 3u, 16u, 27u, last}) {
      const uint32_t rows = block == last ? last_rows : kBlockTokens;
      const auto blocks = unread.Load({Rows(block, 0, rows)}, SameDistance(block));
      ASSERT_TRUE(blocks.ok()) << blocks.status().ToString();
      const KvBlock& got = blocks->at({kTale, block});
      EXPECT_EQ(got.tokens, rows);
      const KvBlock expected = *read.memory->LoadBlock({kTale, block});
      EXPECT_LT(Difference(got, expected, 0, rows), 2e-3)
          << "block " << block << ", native window " << native_window;
    }
  }
}

TEST(UnreadBlocks, ALongerRunUpComesCloser) {
  const auto read_store = NewMemStore(), unread_store = NewMemStore();
  Process read(*read_store), unread(*unread_store);
  const std::string text = PlainText(3000, 2);
  ASSERT_TRUE(read.Ingest(text).ok());
  ASSERT_TRUE(unread.Ingest(text, 0).ok());
  const KvBlock expected = *read.memory->LoadBlock({kTale, 27});
  double before = 1;
  for (const uint32_t run_up : {0u, 64u, SameDistance(27)}) {
    const double now =
        Difference(unread.Load({Rows(27)}, run_up)->at({kTale, 27}), expected, 0, kBlockTokens);
    EXPECT_LT(now, before) << run_up;
    before = now;
  }
}

TEST(UnreadBlocks, AreReadOnceForSeveralQuestions) {
  const auto store = NewMemStore();
  Process p(*store);
  ASSERT_TRUE(p.Ingest(PlainText(3000, 3), 0).ok());
  const std::vector<NeededRows> needed = {Rows(10, 20, 64), Rows(11, 0, 40), Rows(30, 5, 10)};
  UnreadBlocks first(&p.model, p.memory.get(), &p.budget);
  // Sinks; the run-up's blocks of 10 and 30, themselves, and of the last ones only what is needed.
  EXPECT_EQ(first.TokensToRead(needed), 64u + (64 + 64 + 40) + (64 + 10));
  const auto read = first.Load(needed);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(first.tokens_read(), 64u + (64 + 64 + 40) + (64 + 10));
  const uint64_t passes = p.model.forward_count();
  Process other(*store);
  UnreadBlocks second(&other.model, other.memory.get(), &other.budget);
  EXPECT_EQ(second.TokensToRead(needed), 0u);
  const auto again = second.Load(needed);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(other.model.forward_count(), 0u);
  EXPECT_GT(passes, 0u);
  for (const NeededRows& rows : needed)
    EXPECT_EQ(Difference(again->at(rows.key), read->at(rows.key), rows.begin, rows.end), 0);
  // More rows of a block than it holds, or earlier ones with too short a run-up, are read anew.
  EXPECT_EQ(second.TokensToRead(std::vector{Rows(11, 0, 64)}), 64u + 64);
  EXPECT_EQ(second.TokensToRead(std::vector{Rows(10, 0, 64)}), 0u);
}

TEST(UnreadBlocks, ADamagedOneIsReadAgain) {
  const auto store = NewMemStore();
  Process p(*store);
  ASSERT_TRUE(p.Ingest(PlainText(3000, 4), 0).ok());
  const KvBlock good = p.Load({Rows(12)})->at({kTale, 12});
  uint64_t damaged = 0;
  for (const auto& [key, value] : Contents(*store)) {
    if (key.first != static_cast<int>(Table::kBlocks)) continue;
    std::string bytes = value;
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    ASSERT_TRUE(PutValue(*store, Table::kBlocks, key.second, bytes).ok());
    ++damaged;
  }
  EXPECT_EQ(damaged, 2u) << "the sinks and the block";
  const auto again = p.Load({Rows(12)});
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(Difference(again->at({kTale, 12}), good, 0, kBlockTokens), 0);
  EXPECT_TRUE(p.memory->Verify().ok());
}

TEST(UnreadBlocks, AStoreThatCannotBeWrittenStillAnswers) {
  const auto store = NewMemStore();
  ASSERT_TRUE(Process(*store).Ingest(PlainText(3000, 5), 0).ok());
  const StoreContents before = Contents(*store);
  Process p(*store, 0, {.fail_write_after = 1});
  EXPECT_TRUE(p.Load({Rows(12)}).ok());
  EXPECT_EQ(longhold::Difference(before, Contents(*store)), "");
}

// Reading, questions in between, and kills at any write of either: the final state is that of an
// unbroken reading without a question, byte for byte.
TEST(UnreadBlocks, LeaveNoTraceOnceTheTextIsRead) {
  const std::string text = PlainText(5000, 6);
  for (const uint32_t native_window : {0u, 100u}) {
    const auto unbroken = NewMemStore();
    ASSERT_TRUE(Process(*unbroken, native_window).Ingest(text).ok());
    const StoreContents expected = Contents(*unbroken);
    const auto blocks = static_cast<uint32_t>(
        Process(*unbroken, native_window).memory->Get(kTale).tokens / kBlockTokens);
    int kills = 0;
    for (uint64_t seed = 1; seed <= (kSanitized ? 10u : 180u); ++seed) {
      SCOPED_TRACE("seed " + std::to_string(seed));
      std::mt19937_64 random(seed);
      const auto store = NewMemStore();
      for (int life = 0;; ++life) {
        ASSERT_LT(life, 400);
        Process p(*store, native_window, {.fail_write_after = 1 + random() % 60});
        const Result<IngestReport> read = p.Ingest(text, static_cast<int>(random() % 3));
        if (read.ok() && read->outcome != IngestReport::Outcome::kStopped) break;
        kills += !read.ok();
        if (!read.ok()) continue;
        for (int question = 0; question < 2; ++question) {
          const uint32_t b = static_cast<uint32_t>(random() % blocks);
          if (!UnreadBlocks::IsUnread(*p.memory, kTale, uint64_t{b} * kBlockTokens + 1)) continue;
          const auto read = p.Load({Rows(b, static_cast<uint32_t>(random() % 64), 64)});
          ASSERT_TRUE(read.ok()) << read.status().ToString();
        }
      }
      ASSERT_EQ(longhold::Difference(expected, Contents(*store)), "");
    }
    EXPECT_GE(kills, kSanitized ? 10 : 250);
  }
}

}  // namespace
}  // namespace longhold
