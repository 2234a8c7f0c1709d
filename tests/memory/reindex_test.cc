// Compares the index with the data that it derives from: damaged, missing or swapped segments, and
// other recall heads.
//
// The expected values are bytes: the segments that an ingest wrote, and for other heads those that
// an ingest with the other profile writes for the same texts. So a rebuilt index is identical, not
// just similar. Kills are simulated by failing the nth write of the store, for every n. Sizes:
// documents of 9,000 and 600 tokens (three segments and one), and one that is incomplete in the
// middle of a segment.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memory/core/memory.h"
#include "memory/ingest/ingest.h"
#include "store/mem_store.h"
#include "tests/support/stores.h"
#include "tests/support/tales.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"

namespace longhold {
namespace {

using testing::HasSubstr;

RecallProfile Heads(std::vector<RecallHead> heads) {
  RecallProfile p;
  p.name = "toy-" + std::to_string(heads.size());
  p.heads = std::move(heads);
  p.window_tokens = 64;
  return p;
}
RecallProfile OneHead() { return Heads({{.layer = 2, .kv_head = 0}}); }
RecallProfile TwoHeads() { return Heads({{.layer = 0, .kv_head = 0}, {.layer = 2, .kv_head = 0}}); }

struct World : Tales {
  // Three documents; the last one is stopped after five passes of 512 tokens.
  std::unique_ptr<ColdStore> Ingested(const RecallProfile& profile) {
    auto store = NewMemStore();
    const auto memory =
        std::move(Memory::Create(Borrow(*store), "tales", model.info(), profile)).value();
    int passes = 0;
    std::atomic<bool> stop{false};
    for (const auto& [name, text] :
         {std::pair("long", PlainText(9000, 1)), std::pair("short", RandomText(1200, 2)),
          std::pair("stopped", PlainText(6000, 3))}) {
      passes = 0;
      EXPECT_TRUE(IngestDocument(model, *memory, vocabulary, {name, text}, &stop,
                                 [&](const IngestProgress& p) {
                                   stop = p.document == "stopped" &&
                                          p.step == IngestStep::kReading && ++passes == 5;
                                 })
                      .ok());
    }
    return store;
  }
};

// Everything except the manifest's generation and the keys of scan segments.
StoreContents Comparable(ColdStore& store) {
  StoreContents out;
  for (const auto& [key, value] : Contents(store)) {
    std::string name = key.second;
    if (key.first == static_cast<int>(Table::kIndex)) name.resize(9);
    std::string bytes = value;
    if (name == "manifest") {
      Manifest m = *DecodeManifest(value);
      m.index_generation = 0;
      bytes = Encode(m);
    }
    EXPECT_TRUE(out.emplace(std::pair(key.first, name), bytes).second)
        << "an index of two generations";
  }
  return out;
}

TEST(Reindex, EveryUnusableSegmentIsRebuiltByteForByte) {
  World w;
  const auto store = w.Ingested(TwoHeads());
  const StoreContents whole = Contents(*store);
  std::vector<std::string> keys;
  for (const auto& [key, value] : whole) {
    // Summaries are not an index: tests/memory/answer/faithful_test.cc tests them.
    if (key.first == static_cast<int>(Table::kIndex) && !key.second.ends_with('M'))
      keys.push_back(key.second);
  }
  // Of the stopped document all of the text is searchable, and the first segment's tokens are read.
  ASSERT_EQ(keys.size(), 2u * (3 + 1 + 1) + 1);
  for (size_t i = 0; i < keys.size(); ++i) {
    for (int damage = 0; damage < 4; ++damage) {
      SCOPED_TRACE("segment " + std::to_string(i) + ", damage " + std::to_string(damage));
      std::string bad = *store->Get(Table::kIndex, keys[i]);
      if (damage == 0) bad[bad.size() / 2] = static_cast<char>(bad[bad.size() / 2] ^ 1);
      if (damage == 1) bad.clear();
      // the segment of another key, of the same kind
      if (damage == 2) bad = *store->Get(Table::kIndex, keys[(i + 2) % keys.size()]);
      ASSERT_TRUE((damage == 3 ? DeleteValue(*store, Table::kIndex, keys[i])
                               : PutValue(*store, Table::kIndex, keys[i], bad))
                      .ok());
      EXPECT_EQ(w.Open(*store)->Verify().code(), StatusCode::kDataLoss);
      const StoreContents damaged = Contents(*store);

      // A reader rebuilds the segment in memory and leaves the store unchanged.
      const auto reader = w.Open(NewFaultyStore(store.get(), {.fail_write_after = 1}));
      ASSERT_TRUE(reader->LoadIndexes().ok());
      EXPECT_EQ(reader->index_report().segments_rebuilt, 1u);
      EXPECT_EQ(reader->index_report().segments_stored, 0u);
      EXPECT_EQ(reader->index_report().segments_lost + reader->index_report().blocks_lost, 0u);
      EXPECT_EQ(reader->lexical().token_count(), reader->searchable_tokens());
      EXPECT_EQ(reader->scan().token_count(), reader->committed_tokens());
      EXPECT_EQ(Difference(damaged, Contents(*store)), "");

      // A writer stores it again.
      const auto writer = w.Open(*store);
      ASSERT_TRUE(writer->LoadIndexes().ok());
      EXPECT_EQ(writer->index_report().segments_rebuilt, 1u);
      EXPECT_EQ(writer->index_report().segments_stored, 1u);
      ASSERT_EQ(Difference(whole, Contents(*store)), "");
      EXPECT_TRUE(writer->Verify().ok());
    }
  }
}

TEST(Reindex, WithoutAVocabularyADamagedLexicalSegmentIsDataLoss) {
  World w;
  const auto store = w.Ingested(OneHead());
  std::string key;
  AppendBigEndian32(&key, 1);
  AppendBigEndian32(&key, 1);
  ASSERT_TRUE(DeleteValue(*store, Table::kIndex, key + "L").ok());
  const auto memory = std::move(Memory::Open(Borrow(*store), "tales", &w.model.info())).value();
  const Status status = memory->LoadIndexes();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_THAT(status.message(), testing::AllOf(HasSubstr("segment 1 of long"), HasSubstr("missing"),
                                               HasSubstr("reindex tales")));
}

TEST(Reindex, ForOtherHeadsEqualsAnIngestWithThem) {
  World w;
  for (const auto& [from, to] :
       {std::pair(OneHead(), TwoHeads()), std::pair(TwoHeads(), OneHead()),
        std::pair(TwoHeads(), Heads({})), std::pair(Heads({}), TwoHeads())}) {
    SCOPED_TRACE(from.name + " to " + to.name);
    const auto store = w.Ingested(from), expected = w.Ingested(to);
    const auto memory = w.Open(*store);
    EXPECT_FALSE(memory->HasHeadsOf(to));
    uint64_t last = 0;
    const Result<IndexReport> r =
        memory->Reindex(to, SerialFor, nullptr, [&](uint64_t done, uint64_t total) {
          EXPECT_GT(done, last);
          EXPECT_EQ(total, memory->searchable_tokens());
          last = done;
        });
    ASSERT_TRUE(r.ok()) << r.status().ToString();
    EXPECT_EQ(last, memory->searchable_tokens());
    EXPECT_TRUE(memory->HasHeadsOf(to));
    EXPECT_EQ(memory->manifest().profile, to.name);
    EXPECT_EQ(Difference(Comparable(*expected), Comparable(*store)), "");
    ASSERT_TRUE(memory->Verify().ok());
    ASSERT_TRUE(memory->LoadIndexes().ok());
    EXPECT_EQ(memory->scan().token_count(), to.heads.empty() ? 0 : memory->committed_tokens());
    EXPECT_EQ(memory->index_report().segments_rebuilt, 0u);

    // The incomplete document continues with the new heads. Reindexing once more finds nothing to
    // do.
    for (ColdStore* s : {store.get(), expected.get()}) {
      const auto again = w.Open(*s);
      ASSERT_TRUE(IngestDocument(w.model, *again, w.vocabulary, {"stopped", PlainText(6000, 3)},
                                 nullptr, nullptr)
                      .ok());
    }
    EXPECT_EQ(Difference(Comparable(*expected), Comparable(*store)), "");
    const StoreContents before = Contents(*store);
    EXPECT_EQ(w.Open(*store)->Reindex(to, SerialFor, nullptr, nullptr)->segments_rebuilt, 0u);
    EXPECT_EQ(Difference(before, Contents(*store)), "");
  }
}

TEST(Reindex, InvertedListsAreDroppedWithTheirHeads) {
  World w;
  const auto store = w.Ingested(TwoHeads());
  const auto lists = [&] {
    int count = 0;
    EXPECT_TRUE(store
                    ->Scan(Table::kIndex, "", "\xff",
                           [&](std::string_view key, std::string_view) {
                             return count += key.back() == 'F', true;
                           })
                    .ok());
    return count;
  };
  const auto open = [&] {
    auto memory = w.Open(*store);
    memory->UseLists({.memory_tokens_min = 1, .document_tokens_min = 5000});
    return memory;
  };
  ASSERT_TRUE(open()->BuildLists(SerialFor).ok());
  EXPECT_EQ(lists(), 2);
  const auto memory = open();
  ASSERT_TRUE(memory->Reindex(TwoHeads(), SerialFor, nullptr, nullptr).ok());
  EXPECT_EQ(lists(), 2) << "nothing was wrong with them";
  ASSERT_TRUE(memory->Reindex(OneHead(), SerialFor, nullptr, nullptr).ok());
  EXPECT_EQ(lists(), 0);
  ASSERT_TRUE(memory->BuildLists(SerialFor).ok());
  EXPECT_EQ(lists(), 1);
  const auto again = open();
  ASSERT_TRUE(again->LoadIndexes().ok());
  EXPECT_TRUE(again->HasLists(again->Find("long")->id));
}

TEST(Reindex, ReindexingBackAndForthLeavesNothingBehind) {
  World w;
  const auto store = w.Ingested(OneHead());
  const StoreContents before = Comparable(*store);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(w.Open(*store)->Reindex(TwoHeads(), SerialFor, nullptr, nullptr).ok());
    ASSERT_TRUE(w.Open(*store)->Reindex(OneHead(), SerialFor, nullptr, nullptr).ok());
    EXPECT_EQ(Difference(before, Comparable(*store)), "");
  }
  const auto memory = w.Open(*store);
  for (const char* name : {"long", "short", "stopped"})
    ASSERT_TRUE(memory->Forget(memory->Find(name)->id, name).ok());
  EXPECT_EQ(Contents(*store).size(), 1u) << "more than the manifest is left";
}

TEST(Reindex, KilledAtAnyWriteLeavesAUsableMemory) {
  World w;
  const auto expected = w.Ingested(TwoHeads());
  for (uint64_t writes = 1;; ++writes) {
    SCOPED_TRACE("write " + std::to_string(writes));
    const auto store = w.Ingested(OneHead());
    if (w.Open(NewFaultyStore(store.get(), {.fail_write_after = writes}))
            ->Reindex(TwoHeads(), SerialFor, nullptr, nullptr)
            .ok()) {
      EXPECT_EQ(writes, 5u + 1 + 1) << "a write a segment, and the last";
      break;
    }
    const auto after = w.Open(*store);
    EXPECT_TRUE(after->HasHeadsOf(OneHead()));
    ASSERT_TRUE(after->Verify().ok());
    ASSERT_TRUE(after->LoadIndexes().ok());
    EXPECT_EQ(after->index_report().segments_rebuilt, 0u);
    EXPECT_EQ(after->scan().token_count(), after->committed_tokens());
    // Meanwhile the memory changes: leftovers of the killed run must not become visible.
    ASSERT_TRUE(after->Forget(after->Find("short")->id, "short").ok());
    ASSERT_TRUE(IngestDocument(w.model, *after, w.vocabulary, {"stopped", PlainText(6000, 3)},
                               nullptr, nullptr)
                    .ok());
    ASSERT_TRUE(w.Open(*store)->Reindex(TwoHeads(), SerialFor, nullptr, nullptr).ok());
    const auto done = w.Open(*store);
    ASSERT_TRUE(done->Verify().ok());
    EXPECT_EQ(Comparable(*store).size(), Contents(*store).size());
  }
}

TEST(Reindex, StopsBetweenSegmentsAndChangesNothing) {
  World w;
  const auto store = w.Ingested(OneHead());
  std::atomic<bool> stop{false};
  const auto memory = w.Open(*store);
  const Result<IndexReport> r =
      memory->Reindex(TwoHeads(), SerialFor, &stop, [&](uint64_t, uint64_t) { stop = true; });
  EXPECT_EQ(r.status().code(), StatusCode::kCancelled);
  EXPECT_TRUE(memory->HasHeadsOf(OneHead()));
  EXPECT_TRUE(memory->Verify().ok());
  ASSERT_TRUE(memory->Reindex(TwoHeads(), SerialFor, nullptr, nullptr).ok());
  EXPECT_EQ(Difference(Comparable(*w.Ingested(TwoHeads())), Comparable(*store)), "");
}

// Tokens whose keys are lost draw no more attention mass than the segment's tokens do on average.
// Their words still find them.
TEST(Reindex, LostBlocksAreReportedAndDrawNoExtraMass) {
  World w;
  const auto store = w.Ingested(OneHead());
  std::string key;
  AppendBigEndian32(&key, 1);
  AppendBigEndian32(&key, 70);  // in segment 1
  ASSERT_TRUE(DeleteValue(*store, Table::kBlocks, key).ok());
  const auto memory = w.Open(*store);
  const Result<IndexReport> r = memory->Reindex(TwoHeads(), SerialFor, nullptr, nullptr);
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  EXPECT_EQ(r->blocks_lost, 1u);
  ASSERT_TRUE(memory->LoadIndexes().ok());
  EXPECT_EQ(memory->scan().token_count(), memory->committed_tokens());
  std::mt19937_64 rng(1);
  std::normal_distribution<float> normal;
  for (int i = 0; i < 20; ++i) {
    ScanQuery q{.head = 0, .rows = 1, .head_dim = 4, .scale = 2.0f, .q = {}, .row_weight = {1}};
    for (int c = 0; c < 4; ++c) q.q.push_back(normal(rng));
    const ScanResult scan = memory->scan().Query(q, 1000, SerialFor);
    double segment = 0, lost = 0;
    for (const auto& b : scan.blocks) {
      if (b.block.document != DocumentId{1} || b.block.block < 64 || b.block.block >= 128) continue;
      segment += b.score;
      if (b.block.block == 70) lost = b.score;
    }
    EXPECT_LE(lost, segment / 64 * 1.05) << "beyond what int8 rounds";
  }
}

TEST(Reindex, ALexicalSegmentWithDamagedTextIsReportedAndTheRestServes) {
  World w;
  const auto store = w.Ingested(OneHead());
  std::string key;
  AppendBigEndian32(&key, 2);
  AppendBigEndian32(&key, 0);
  ASSERT_TRUE(DeleteValue(*store, Table::kIndex, key + "L").ok());
  ASSERT_TRUE(DeleteValue(*store, Table::kText, key).ok());
  const auto memory = w.Open(*store);
  ASSERT_TRUE(memory->LoadIndexes().ok());
  EXPECT_EQ(memory->index_report().segments_lost, 1u);
  EXPECT_EQ(memory->lexical().token_count(),
            memory->searchable_tokens() - memory->Find("short")->tokens);
  EXPECT_EQ(memory->scan().token_count(), memory->committed_tokens());
  EXPECT_EQ(memory->Reindex(TwoHeads(), SerialFor, nullptr, nullptr)->segments_lost, 1u);
}

}  // namespace
}  // namespace longhold
