// The faulty store against its plan. The given call fails and none before it. Nothing of a failed
// write is applied. A corrupt value differs from the stored one in exactly one bit, at the same
// place for the same seed.
#include "store/faulty_store.h"

#include <gtest/gtest.h>

#include <bitset>

#include "store/mem_store.h"

namespace longhold {
namespace {

Status Put(ColdStore& store, Table table, const std::string& key, const std::string& value) {
  WriteBatch batch;
  batch.Put(table, key, value);
  return store.Write(std::move(batch), Durability::kSynced);
}

int BitsThatDiffer(const std::string& a, const std::string& b) {
  EXPECT_EQ(a.size(), b.size());
  int bits = 0;
  for (size_t i = 0; i < a.size(); ++i)
    bits += std::bitset<8>(static_cast<uint8_t>(a[i] ^ b[i])).count();
  return bits;
}

TEST(FaultyStore, ForwardsEverythingWithoutAPlan) {
  const auto base = NewMemStore();
  const auto store = NewFaultyStore(base.get(), {});
  ASSERT_TRUE(Put(*store, Table::kBlocks, "a", "1").ok());
  EXPECT_EQ(*base->Get(Table::kBlocks, "a"), "1");
  EXPECT_EQ(*store->Get(Table::kBlocks, "a"), "1");
  EXPECT_EQ(store->Get(Table::kBlocks, "b").status().code(), StatusCode::kNotFound);
  int visits = 0;
  EXPECT_TRUE(store->Scan(Table::kBlocks, "a", "z", [&](auto, auto) { return ++visits < 9; }).ok());
  EXPECT_EQ(visits, 1);
  EXPECT_TRUE(store->Compact().ok());
  EXPECT_EQ(*store->DiskBytes(), *base->DiskBytes());
}

TEST(FaultyStore, FailsTheNthWriteAndAllLaterOnesAndAppliesNothing) {
  const auto base = NewMemStore();
  const auto store = NewFaultyStore(base.get(), {.fail_write_after = 3});
  EXPECT_TRUE(Put(*store, Table::kMeta, "1", "").ok());
  EXPECT_TRUE(Put(*store, Table::kMeta, "2", "").ok());
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Put(*store, Table::kMeta, "3", "").code(), StatusCode::kResourceExhausted);
  }
  EXPECT_TRUE(base->Get(Table::kMeta, "2").ok());
  EXPECT_FALSE(base->Get(Table::kMeta, "3").ok());
}

TEST(FaultyStore, FailsTheNthGetAndAllLaterOnes) {
  const auto base = NewMemStore();
  ASSERT_TRUE(Put(*base, Table::kText, "a", "1").ok());
  const auto store = NewFaultyStore(base.get(), {.fail_get_after = 3});
  EXPECT_TRUE(store->Get(Table::kText, "a").ok());
  const auto values = store->MultiGet(Table::kText, {"a", "a"});  // counts as one get per key
  EXPECT_TRUE(values[0].ok());
  EXPECT_EQ(values[1].status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(store->Get(Table::kText, "a").status().code(), StatusCode::kDataLoss);
}

TEST(FaultyStore, FlipsOneBitOfEveryNthBlock) {
  const auto base = NewMemStore();
  const std::string value(1000, 'v');
  ASSERT_TRUE(Put(*base, Table::kBlocks, "a", value).ok());
  ASSERT_TRUE(Put(*base, Table::kText, "a", value).ok());
  const auto run = [&](uint64_t seed) {
    const auto store = NewFaultyStore(base.get(), {.corrupt_get_every = 3, .seed = seed});
    std::string all;
    for (int i = 1; i <= 9; ++i) {
      EXPECT_EQ(*store->Get(Table::kText, "a"), value) << "only blocks are corrupted";
      const std::string got = *store->Get(Table::kBlocks, "a");
      EXPECT_EQ(BitsThatDiffer(got, value), i % 3 == 0 ? 1 : 0) << "value " << i;
      all += got;
    }
    return all;
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
  EXPECT_EQ(*base->Get(Table::kBlocks, "a"), value);
}

}  // namespace
}  // namespace longhold
