// Recoding a memory's blocks with another codec: which blocks are recoded and which are not, what a
// kill leaves behind, and damage to blocks and to the archive codec's basis.
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

struct World : Tales {
  // A complete document of somewhat more than `tokens` tokens and, with `stopped`, an incomplete
  // one.
  std::unique_ptr<ColdStore> Ingested(uint64_t tokens, std::string_view codec,
                                      bool stopped = false) {
    auto store = NewMemStore();
    RecallProfile profile;
    profile.name = "toy";
    profile.heads = {{.layer = 0, .kv_head = 0}};
    profile.window_tokens = 64;
    const auto memory =
        std::move(Memory::Create(Borrow(*store), "tales", model.info(), profile, codec)).value();
    EXPECT_TRUE(IngestDocument(model, *memory, vocabulary, {"whole", RandomText(3 * tokens, 1)},
                               nullptr, nullptr)
                    .ok());
    std::atomic<bool> stop{false};
    if (stopped) {
      EXPECT_TRUE(IngestDocument(model, *memory, vocabulary, {"stopped", RandomText(9000, 2)},
                                 &stop,
                                 [&](const IngestProgress& p) {
                                   stop = p.step == IngestStep::kReading && p.tokens_done >= 1024;
                                 })
                      .ok());
    }
    return store;
  }
};

const std::function<void(uint64_t, uint64_t)> kNobody;

uint64_t BlockBytes(ColdStore& store) {
  uint64_t bytes = 0;
  for (const auto& [key, value] : Contents(store))
    bytes += key.first == static_cast<int>(Table::kBlocks) ? value.size() : 0;
  return bytes;
}

// The codec that a stored block names.
int CodecOf(const std::string& block) { return static_cast<uint8_t>(block[8]); }

std::string BlockKeyOf(uint32_t document, uint32_t block) {
  std::string key;
  AppendBigEndian32(&key, document);
  AppendBigEndian32(&key, block);
  return key;
}

TEST(Recode, ArchivesCompleteDocumentsButNotSinksOrIncompleteOnes) {
  World world;
  const auto store = world.Ingested(6000, "exact", true);
  const StoreContents before = Contents(*store);
  const auto memory = world.Open(*store);
  const Result<RecodeReport> report = memory->Recode("archive", SerialFor, nullptr, kNobody);
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  const uint32_t whole = static_cast<uint32_t>(memory->Find("whole")->id);
  const uint64_t blocks = (memory->Find("whole")->tokens + 63) / 64 - 1;
  EXPECT_EQ(report->blocks, blocks);
  EXPECT_EQ(report->blocks_coded, blocks);
  EXPECT_EQ(report->blocks_lost, 0u);
  EXPECT_EQ(memory->manifest().codec, "archive");
  for (const auto& [key, value] : Contents(*store)) {
    if (key.first != static_cast<int>(Table::kBlocks)) continue;
    const bool coded = key.second.starts_with(BlockKeyOf(whole, 0).substr(0, 4)) &&
                       key.second != BlockKeyOf(whole, 0);
    EXPECT_EQ(CodecOf(value), coded ? 3 : 1);
    if (!coded) {
      EXPECT_EQ(value, before.at(key));
    }
  }
  EXPECT_TRUE(memory->Verify().ok()) << memory->Verify().ToString();
  // After reopening, the memory reads what it wrote, and nothing is left to do.
  const auto again = world.Open(*store);
  EXPECT_TRUE(again->Verify().ok()) << again->Verify().ToString();
  EXPECT_EQ(again->Recode("archive", SerialFor, nullptr, kNobody)->blocks_coded, 0u);
  // The incomplete document is ingested to its end, in the archive codec.
  ASSERT_TRUE(IngestDocument(world.model, *again, world.vocabulary,
                             {"stopped", RandomText(9000, 2)}, nullptr, nullptr)
                  .ok());
  const uint32_t stopped = static_cast<uint32_t>(again->Find("stopped")->id);
  EXPECT_EQ(
      CodecOf(Contents(*store).at({static_cast<int>(Table::kBlocks), BlockKeyOf(stopped, 40)})), 3);
  EXPECT_TRUE(again->Verify().ok()) << again->Verify().ToString();
}

TEST(Recode, DoesNotMakeBlocksLargerAgain) {
  World world;
  const auto store = world.Ingested(6000, "exact");
  const auto memory = world.Open(*store);
  const uint64_t exact = BlockBytes(*store);
  ASSERT_TRUE(memory->Recode("k5v4", SerialFor, nullptr, kNobody).ok());
  const uint64_t rounded = BlockBytes(*store);
  ASSERT_TRUE(memory->Recode("archive", SerialFor, nullptr, kNobody).ok());
  const uint64_t archived = BlockBytes(*store);
  EXPECT_LT(rounded, exact);
  EXPECT_LT(archived, rounded);
  const Result<RecodeReport> back = memory->Recode("exact", SerialFor, nullptr, kNobody);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->blocks_coded, 0u);
  EXPECT_EQ(BlockBytes(*store), archived);
  EXPECT_EQ(memory->manifest().codec, "exact");
  EXPECT_TRUE(world.Open(*store)->Verify().ok());
}

TEST(Recode, ReportsTooLittleTextAndArchivesOnceThereIsMore) {
  World world;
  const auto store = world.Ingested(1500, "exact");
  const auto memory = world.Open(*store);
  EXPECT_EQ(memory->Recode("archive", SerialFor, nullptr, kNobody).status().code(),
            StatusCode::kFailedPrecondition);
  EXPECT_TRUE(memory->Verify().ok());
  ASSERT_TRUE(IngestDocument(world.model, *memory, world.vocabulary, {"more", RandomText(15000, 3)},
                             nullptr, nullptr)
                  .ok());
  const Result<RecodeReport> report = memory->Recode("archive", SerialFor, nullptr, kNobody);
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_GT(report->blocks_coded, 0u);
}

TEST(Recode, WhenStoppedOrKilledItLeavesAWholeMemoryAndContinues) {
  World world;
  const auto unbroken = world.Ingested(5000, "exact");
  ASSERT_TRUE(world.Open(*unbroken)->Recode("archive", SerialFor, nullptr, kNobody).ok());
  const auto stopped = world.Ingested(5000, "exact");
  {
    std::atomic<bool> stop{false};
    const Result<RecodeReport> r = world.Open(*stopped)->Recode(
        "archive", SerialFor, &stop, [&](uint64_t, uint64_t) { stop = true; });
    EXPECT_EQ(r.status().code(), StatusCode::kCancelled);
  }
  EXPECT_TRUE(world.Open(*stopped)->Verify().ok());
  ASSERT_TRUE(world.Open(*stopped)->Recode("archive", SerialFor, nullptr, kNobody).ok());
  EXPECT_EQ(Difference(Contents(*unbroken), Contents(*stopped)), "");
  uint64_t writes = 1;
  for (;; ++writes) {
    SCOPED_TRACE(writes);
    const auto store = world.Ingested(5000, "exact");
    const bool done = world.Open(NewFaultyStore(store.get(), {.fail_write_after = writes}))
                          ->Recode("archive", SerialFor, nullptr, kNobody)
                          .ok();
    if (done) break;
    ASSERT_TRUE(world.Open(*store)->Verify().ok());
    ASSERT_TRUE(world.Open(*store)->Recode("archive", SerialFor, nullptr, kNobody).ok());
    ASSERT_EQ(Difference(Contents(*unbroken), Contents(*store)), "");
  }
  EXPECT_GT(writes, 5u);
}

TEST(Recode, SkipsUnreadableBlocks) {
  World world;
  const auto store = world.Ingested(5000, "exact");
  const std::string key =
      BlockKeyOf(static_cast<uint32_t>(world.Open(*store)->Find("whole")->id), 7);
  std::string damaged = Contents(*store).at({static_cast<int>(Table::kBlocks), key});
  damaged[100] = static_cast<char>(damaged[100] ^ 1);
  ASSERT_TRUE(PutValue(*store, Table::kBlocks, key, damaged).ok());
  const Result<RecodeReport> report =
      world.Open(*store)->Recode("archive", SerialFor, nullptr, kNobody);
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->blocks_lost, 1u);
  // the last block has few tokens, which may not get smaller in a basis
  EXPECT_GE(report->blocks_coded, report->blocks - 2);
  EXPECT_EQ(Contents(*store).at({static_cast<int>(Table::kBlocks), key}), damaged);
}

TEST(Recode, ADamagedBasisIsReportedAndCostsOnlyArchivedBlocks) {
  World world;
  const auto store = world.Ingested(5000, "archive");
  std::string basis = Contents(*store).at({static_cast<int>(Table::kMeta), "basis"});
  basis[basis.size() / 2] = static_cast<char>(basis[basis.size() / 2] ^ 1);
  ASSERT_TRUE(PutValue(*store, Table::kMeta, "basis", basis).ok());
  const auto memory = world.Open(*store);
  EXPECT_EQ(memory->Verify().code(), StatusCode::kDataLoss);
  EXPECT_NE(memory->Verify().message().find("basis"), std::string::npos);
  const DocumentId id = memory->Find("whole")->id;
  EXPECT_TRUE(memory->LoadBlock({id, 1}).ok()) << "written before there was a basis";
  const Status lost = memory->LoadBlock({id, 70}).status();
  EXPECT_EQ(lost.code(), StatusCode::kDataLoss);
  EXPECT_NE(lost.message().find("basis"), std::string::npos) << lost.message();
  EXPECT_TRUE(memory->LoadIndexes().ok());
  EXPECT_TRUE(memory->Locate(id, {4500, 4600}).ok());
  // New text is stored in the default codec, and the damaged basis stays as it is.
  ASSERT_TRUE(IngestDocument(world.model, *memory, world.vocabulary, {"more", RandomText(15000, 3)},
                             nullptr, nullptr)
                  .ok());
  EXPECT_EQ(Contents(*store).at({static_cast<int>(Table::kMeta), "basis"}), basis);
  EXPECT_TRUE(memory->LoadBlock({memory->Find("more")->id, 70}).ok());
  EXPECT_EQ(memory->Recode("archive", SerialFor, nullptr, kNobody).status().code(),
            StatusCode::kDataLoss);
}

}  // namespace
}  // namespace longhold
