// Leases: who shares an open memory, who has to wait, and what stays open. The stores are in RAM
// and have the toy model's shape; no model runs.
#include "memory/catalog/memory_catalog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "store/mem_provider.h"
#include "tests/memory/engine_fixture.h"

namespace longhold {
namespace {

using Access = MemoryCatalog::Access;
using Reader = MemoryCatalog::Reader;

class MemoryCatalogTest : public testing::Test {
 protected:
  MemoryCatalogTest() {
    const RecallProfile profile = Profile();
    context_ = std::move(ModelContext::Make(&model_, &profile)).value();
    catalog_.UseModel(context_.get());
    for (const char* name : {"a", "b"}) EXPECT_TRUE(catalog_.Create(name, "").ok());
  }
  Result<MemoryLease> Read(const std::string& name) {
    return catalog_.Lease(name, Access::kRead, Reader::kModel);
  }
  Result<MemoryLease> Write(const std::string& name) {
    return catalog_.Lease(name, Access::kWrite, Reader::kModel);
  }

  const std::unique_ptr<MemProvider> stores_ = NewMemProvider();
  ToyModel model_;
  MemoryBudget budget_{uint64_t{1} << 30};
  Notes notes_;
  std::unique_ptr<const ModelContext> context_;
  MemoryCatalog catalog_{stores_.get(),
                         &budget_,
                         &notes_,
                         {.encryption_key = {}, .codec = std::string(kDefaultCodec)}};
};

TEST_F(MemoryCatalogTest, ReadersShareAnOpenMemory) {
  const Result<MemoryLease> first = Read("a"), second = Read("a");
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(&**first, &**second);
  EXPECT_EQ(catalog_.opens(), 1u);
  // Now another memory is the most recently used one. The first one is still leased, so the catalog
  // finds it again.
  ASSERT_TRUE(Read("b").ok());
  const Result<MemoryLease> third = Read("a");
  ASSERT_TRUE(third.ok());
  EXPECT_EQ(&**first, &**third);
  EXPECT_EQ(catalog_.opens(), 2u);
}

TEST_F(MemoryCatalogTest, AMemoryStaysOpenAfterItsLastLease) {
  ASSERT_TRUE(Read("a").ok());
  ASSERT_TRUE(Read("a").ok());
  EXPECT_EQ(catalog_.opens(), 1u);
  catalog_.Close();
  ASSERT_TRUE(Read("a").ok());
  EXPECT_EQ(catalog_.opens(), 2u);
}

TEST_F(MemoryCatalogTest, AWriterWaitsForReadersOfAWritableMemory) {
  {
    const Result<MemoryLease> writer = Write("a");
    ASSERT_TRUE(writer.ok());
    EXPECT_EQ(Write("a").status().code(), StatusCode::kUnavailable);
  }
  const Result<MemoryLease> reader = Read("a");  // of a memory that is open for writing already
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ(catalog_.opens(), 1u);
  EXPECT_EQ(Write("a").status().code(), StatusCode::kUnavailable);
  EXPECT_TRUE(Write("b").ok());
}

TEST_F(MemoryCatalogTest, AReaderKeepsItsSnapshotWhileOthersWrite) {
  const Result<MemoryLease> reader = Read("a");
  ASSERT_TRUE(reader.ok());
  const Result<MemoryLease> writer = Write("a");
  ASSERT_TRUE(writer.ok()) << "the reader has its own snapshot";
  EXPECT_NE(&**reader, &**writer);
}

TEST_F(MemoryCatalogTest, AnExclusiveLeaseIsNotShared) {
  Result<MemoryLease> writer = Write("a");
  ASSERT_TRUE(writer.ok());
  writer->MakeExclusive();
  const Result<MemoryLease> reader = Read("a");
  ASSERT_TRUE(reader.ok());
  EXPECT_NE(&**reader, &**writer);
}

TEST_F(MemoryCatalogTest, AnExclusiveLeaseEndsWhenItsObjectIsDestroyed) {
  {
    Result<MemoryLease> writer = Write("a");
    ASSERT_TRUE(writer.ok());
    writer->MakeExclusive();
  }
  ASSERT_TRUE(Read("a").ok());
  EXPECT_EQ(catalog_.opens(), 1u) << "what the writer left open serves again";
}

TEST_F(MemoryCatalogTest, InspectingAMemoryKeepsTheMostRecentlyUsedOneOpen) {
  ASSERT_TRUE(Read("a").ok());
  ASSERT_TRUE(catalog_.Show("b").ok());
  EXPECT_TRUE(catalog_.Tiers("a")->open);
  EXPECT_FALSE(catalog_.Tiers("b")->open);
  ASSERT_TRUE(Read("a").ok());
  EXPECT_EQ(catalog_.opens(), 1u);
}

TEST_F(MemoryCatalogTest, AChangedStampReopensTheMemory) {
  ASSERT_TRUE(Read("a").ok());
  stores_->Change("a", [](ColdStore&) {});
  ASSERT_TRUE(Read("a").ok());
  EXPECT_EQ(catalog_.opens(), 2u);
}

TEST_F(MemoryCatalogTest, CreateUsesTheGivenCodec) {
  ASSERT_TRUE(catalog_.Create("c", "exact").ok());
  EXPECT_EQ(catalog_.Show("c")->codec, "exact");
  EXPECT_EQ(catalog_.Show("a")->codec, kDefaultCodec);
  EXPECT_EQ(catalog_.Create("c", "").code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(catalog_.Create("d", "k9").code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(catalog_.codec(), kDefaultCodec);
}

}  // namespace
}  // namespace longhold
