// The contract of store providers, tested on both implementations.
#include "store/store_provider.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "store/mem_provider.h"
#include "store/memory_name.h"
#include "store/rocks_provider.h"
#include "tests/store/temp_dir.h"

namespace longhold {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

Status PutOne(ColdStore& store, const std::string& value) {
  WriteBatch batch;
  batch.Put(Table::kMeta, "key", value);
  return store.Write(std::move(batch), Durability::kBuffered);
}

constexpr uint64_t kBudget = uint64_t{256} << 20;

enum class Kind { kRocks, kMem };

class StoreProviderTest : public testing::TestWithParam<Kind> {
 protected:
  StoreProviderTest() {
    if (GetParam() == Kind::kRocks)
      stores_ = NewRocksProvider(home_ / "h");
    else
      stores_ = NewMemProvider();
  }
  std::unique_ptr<ColdStore> Open(const std::string& name, StoreMode mode) {
    Result<std::unique_ptr<ColdStore>> store = stores_->Open(name, mode, kBudget);
    EXPECT_TRUE(store.ok()) << store.status().ToString();
    return store.ok() ? std::move(*store) : nullptr;
  }

  TempDir home_;
  std::unique_ptr<StoreProvider> stores_;
};

TEST_P(StoreProviderTest, AStoreExistsOnceItIsCreated) {
  EXPECT_EQ(stores_->Exists("a").code(), StatusCode::kNotFound);
  EXPECT_EQ(stores_->Open("a", StoreMode::kRead, kBudget).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(stores_->Open("a", StoreMode::kWrite, kBudget).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(stores_->DiskBytes("a"), 0u);
  ASSERT_TRUE(PutOne(*Open("a", StoreMode::kCreate), "value").ok());
  EXPECT_TRUE(stores_->Exists("a").ok());
  EXPECT_EQ(*Open("a", StoreMode::kRead)->Get(Table::kMeta, "key"), "value");
  EXPECT_GT(stores_->DiskBytes("a"), 0u);
  EXPECT_EQ(PutOne(*Open("a", StoreMode::kRead), "x").code(), StatusCode::kFailedPrecondition);
}

TEST_P(StoreProviderTest, ListsNamesByTenant) {
  EXPECT_THAT(*stores_->List(""), IsEmpty());
  EXPECT_THAT(stores_->Tenants(), IsEmpty());
  for (const char* name : {"b", "a", "acme/notes", "acme/a", "zoo/z"}) {
    ASSERT_TRUE(PutOne(*Open(name, StoreMode::kCreate), name).ok());
    EXPECT_EQ(*Open(name, StoreMode::kRead)->Get(Table::kMeta, "key"), name);
  }
  EXPECT_THAT(*stores_->List(""), ElementsAre("a", "b"));
  EXPECT_THAT(*stores_->List("acme"), ElementsAre("acme/a", "acme/notes"));
  EXPECT_THAT(*stores_->List("nobody"), IsEmpty());
  EXPECT_THAT(stores_->Tenants(), ElementsAre("acme", "zoo"));
}

TEST_P(StoreProviderTest, OneWriterAtATimeAndReadersWithIt) {
  std::unique_ptr<ColdStore> writer = Open("a", StoreMode::kCreate);
  ASSERT_TRUE(PutOne(*writer, "value").ok());
  EXPECT_EQ(stores_->Open("a", StoreMode::kWrite, kBudget).status().code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(stores_->Remove("a").code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(*Open("a", StoreMode::kRead)->Get(Table::kMeta, "key"), "value");
  writer.reset();
  EXPECT_NE(Open("a", StoreMode::kWrite), nullptr);
}

TEST_P(StoreProviderTest, TheStampChangesWithAWriter) {
  ASSERT_TRUE(PutOne(*Open("a", StoreMode::kCreate), "value").ok());
  const std::string stamp = stores_->Stamp("a");
  EXPECT_EQ(*Open("a", StoreMode::kRead)->Get(Table::kMeta, "key"), "value");
  EXPECT_EQ(stores_->Stamp("a"), stamp) << "a reader leaves no trace";
  ASSERT_TRUE(PutOne(*Open("a", StoreMode::kWrite), "another").ok());
  EXPECT_NE(stores_->Stamp("a"), stamp);
}

TEST_P(StoreProviderTest, AStagedStoreHasNoNameUntilItIsPublished) {
  ASSERT_TRUE(PutOne(**stores_->Stage("a", kBudget), "first").ok());  // an interrupted attempt
  {
    const std::unique_ptr<ColdStore> staged = std::move(stores_->Stage("a", kBudget)).value();
    EXPECT_EQ(staged->Get(Table::kMeta, "key").status().code(), StatusCode::kNotFound);
    ASSERT_TRUE(PutOne(*staged, "second").ok());
  }
  EXPECT_FALSE(stores_->Exists("a").ok());
  EXPECT_THAT(*stores_->List(""), IsEmpty());
  ASSERT_TRUE(stores_->Publish("a").ok());
  EXPECT_EQ(*Open("a", StoreMode::kRead)->Get(Table::kMeta, "key"), "second");
  ASSERT_TRUE(PutOne(**stores_->Stage("b", kBudget), "value").ok());
  stores_->Discard("b");
  EXPECT_FALSE(stores_->Publish("b").ok());
  EXPECT_FALSE(stores_->Exists("b").ok());
}

TEST_P(StoreProviderTest, RemovesAStore) {
  EXPECT_EQ(stores_->Remove("a").code(), StatusCode::kNotFound);
  ASSERT_TRUE(PutOne(*Open("a", StoreMode::kCreate), "value").ok());
  ASSERT_TRUE(stores_->Remove("a").ok());
  EXPECT_FALSE(stores_->Exists("a").ok());
  EXPECT_EQ(Open("a", StoreMode::kCreate)->Get(Table::kMeta, "key").status().code(),
            StatusCode::kNotFound)
      << "what comes under its name is empty";
}

INSTANTIATE_TEST_SUITE_P(Kinds, StoreProviderTest, testing::Values(Kind::kRocks, Kind::kMem),
                         [](const auto& p) {
                           return std::string(p.param == Kind::kRocks ? "Rocks" : "Mem");
                         });

}  // namespace
}  // namespace longhold
