// What lies beneath a sealed store, and who can open it. That it is a store at all is the contract's test.
#include "store/sealed_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/seal.h"
#include "store/rocks_store.h"
#include "tests/store/temp_dir.h"

namespace longhold {
namespace {

using testing::HasSubstr;

const std::string kKey(kSealKeyBytes, 'k');

class SealedStoreTest : public testing::Test {
 protected:
  std::unique_ptr<ColdStore> Beneath() {
    auto store = OpenRocksStore({.path = dir_ / "store", .disk_reserve_bytes = 0});
    EXPECT_TRUE(store.ok()) << store.status().ToString();
    return std::move(store).value();
  }
  Result<std::unique_ptr<ColdStore>> Open(const std::string& key) { return OpenSealed(Beneath(), key, &sealed_); }
  static void Put(ColdStore& store, Table table, const std::string& key, const std::string& value) {
    WriteBatch batch;
    batch.Put(table, key, value);
    ASSERT_TRUE(store.Write(std::move(batch), Durability::kSynced).ok());
  }

  TempDir dir_;
  bool sealed_ = false;
};

TEST_F(SealedStoreTest, FilesHoldNothingThatCanBeRead) {
  const std::string canary = "the canary sings at seven";
  {
    const auto store = Open(kKey);
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    EXPECT_TRUE(sealed_);
    for (int i = 0; i < kTableCount; ++i) Put(**store, static_cast<Table>(i), "key", canary + std::string(9000, ' ') + canary);
    ASSERT_TRUE((*store)->Compact().ok());
    Put(**store, Table::kMeta, "later", canary);  // in the log
  }
  size_t files = 0;
  for (const auto& file : std::filesystem::directory_iterator(dir_ / "store")) {
    std::ifstream stream(file.path(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    EXPECT_EQ(bytes.find("canary"), std::string::npos) << file.path();
    ++files;
  }
  EXPECT_GT(files, 3u);
  EXPECT_THAT(*(*Open(kKey))->Get(Table::kText, "key"), HasSubstr(canary));
}

TEST_F(SealedStoreTest, NeedsTheKeyThatItWasMadeWith) {
  { ASSERT_TRUE(Open(kKey).ok()); }
  EXPECT_THAT(Open("").status().message(), HasSubstr("--encryption-key"));
  EXPECT_EQ(Open("").status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(Open(std::string(kSealKeyBytes, 'x')).status().message(), HasSubstr("another key"));
  EXPECT_TRUE(Open(kKey).ok());
}

TEST_F(SealedStoreTest, APlainStoreStaysPlain) {
  Put(*Beneath(), Table::kMeta, "manifest", "plain");
  const auto store = Open(kKey);
  ASSERT_TRUE(store.ok());
  EXPECT_FALSE(sealed_);
  Put(**store, Table::kMeta, "more", "plain too");
  EXPECT_EQ(*(*store)->Get(Table::kMeta, "manifest"), "plain");
}

// Whoever can write to the files cannot put one value in another one's place, nor an old one's table.
TEST_F(SealedStoreTest, AValueBelongsToItsKey) {
  {
    const auto store = Open(kKey);
    Put(**store, Table::kMeta, "a", "value of a");
    Put(**store, Table::kMeta, "b", "value of b");
  }
  {
    const auto beneath = Beneath();
    const std::string a = *beneath->Get(Table::kMeta, "a");
    Put(*beneath, Table::kMeta, "b", a);
    Put(*beneath, Table::kText, "a", a);
    std::string changed = a;
    changed.back() = static_cast<char>(changed.back() ^ 1);
    Put(*beneath, Table::kMeta, "c", changed);
    Put(*beneath, Table::kMeta, "d", "");
  }
  const auto store = Open(kKey);
  EXPECT_EQ(*(*store)->Get(Table::kMeta, "a"), "value of a");
  for (const char* key : {"b", "c", "d"}) EXPECT_EQ((*store)->Get(Table::kMeta, key).status().code(), StatusCode::kDataLoss) << key;
  EXPECT_EQ((*store)->Get(Table::kText, "a").status().code(), StatusCode::kDataLoss);
  EXPECT_EQ((*store)->Scan(Table::kMeta, "", "z", [](std::string_view, std::string_view) { return true; }).code(), StatusCode::kDataLoss);
  EXPECT_EQ((*store)->MultiGet(Table::kMeta, {"a", "b"})[1].status().code(), StatusCode::kDataLoss);
}

TEST_F(SealedStoreTest, ForgettingAllLeavesTheKeyGood) {
  {
    const auto store = Open(kKey);
    Put(**store, Table::kMeta, "a", "1");
    WriteBatch batch;
    batch.DeleteRange(Table::kMeta, "", "z");
    ASSERT_TRUE((*store)->Write(std::move(batch), Durability::kSynced).ok());
    EXPECT_EQ((*store)->Get(Table::kMeta, "a").status().code(), StatusCode::kNotFound);
    Put(**store, Table::kMeta, "b", "2");
  }
  const auto store = Open(kKey);
  ASSERT_TRUE(store.ok()) << store.status().ToString();
  EXPECT_TRUE(sealed_);
  EXPECT_EQ(*(*store)->Get(Table::kMeta, "b"), "2");
}

TEST_F(SealedStoreTest, ADamagedRecordIsTold) {
  { ASSERT_TRUE(Open(kKey).ok()); }
  Put(*Beneath(), Table::kMeta, std::string("\0seal", 5), "x");
  EXPECT_EQ(Open(kKey).status().code(), StatusCode::kDataLoss);
}

}  // namespace
}  // namespace longhold
