// The encrypted (sealed) store: what its files contain, and who can open it. store_contract_test.cc
// tests that it is a store.
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

using testing::AllOf;
using testing::HasSubstr;

const std::string kRecord("\0seal", 5);

const std::string kKey(kSealKeyBytes, 'k'), kName = "firm/tales";

class SealedStoreTest : public testing::Test {
 protected:
  std::unique_ptr<ColdStore> ContainedPath() {
    auto store = OpenRocksStore({.path = dir_ / "store", .disk_reserve_bytes = 0});
    EXPECT_TRUE(store.ok()) << store.status().ToString();
    return std::move(store).value();
  }
  Result<std::unique_ptr<ColdStore>> Open(const std::string& key, const std::string& name = kName,
                                          bool read_only = false) {
    const auto inside = [this](ColdStore&) { return inside_; };
    Result<OpenedStore> opened = OpenSealed(
        ContainedPath(),
        {.master = Secret(key), .name = name, .read_only = read_only, .name_inside = inside});
    if (!opened.ok()) return opened.status();
    sealed_ = opened->sealed;
    return std::move(opened->store);
  }
  static void Put(ColdStore& store, Table table, const std::string& key, const std::string& value) {
    WriteBatch batch;
    batch.Put(table, key, value);
    ASSERT_TRUE(store.Write(std::move(batch), Durability::kSynced).ok());
  }

  TempDir dir_;
  bool sealed_ = false;
  // the name that the memory itself states
  Result<std::string> inside_ = Internal("a record of version 2 holds the name");
};

std::string FromHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

TEST_F(SealedStoreTest, FilesContainNothingReadable) {
  const std::string canary = "the canary sings at seven";
  {
    const auto store = Open(kKey);
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    EXPECT_TRUE(sealed_);
    for (int i = 0; i < kTableCount; ++i)
      Put(**store, static_cast<Table>(i), "key", canary + std::string(9000, ' ') + canary);
    ASSERT_TRUE((*store)->Compact().ok());
    Put(**store, Table::kMeta, "later", canary);  // stays in the log
  }
  size_t files = 0;
  for (const auto& file : std::filesystem::directory_iterator(dir_ / "store")) {
    std::ifstream stream(file.path(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(stream)),
                            std::istreambuf_iterator<char>());
    EXPECT_EQ(bytes.find("canary"), std::string::npos) << file.path();
    ++files;
  }
  EXPECT_GT(files, 3u);
  EXPECT_THAT(*(*Open(kKey))->Get(Table::kText, "key"), HasSubstr(canary));
}

TEST_F(SealedStoreTest, NeedsTheKeyThatItWasCreatedWith) {
  { ASSERT_TRUE(Open(kKey).ok()); }
  EXPECT_THAT(Open("").status().message(), HasSubstr("--encryption-key"));
  EXPECT_EQ(Open("").status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(Open(std::string(kSealKeyBytes, 'x')).status().message(), HasSubstr("another key"));
  EXPECT_TRUE(Open(kKey).ok());
}

TEST_F(SealedStoreTest, APlainStoreStaysPlain) {
  Put(*ContainedPath(), Table::kMeta, "manifest", "plain");
  const auto store = Open(kKey);
  ASSERT_TRUE(store.ok());
  EXPECT_FALSE(sealed_);
  Put(**store, Table::kMeta, "more", "plain too");
  EXPECT_EQ(*(*store)->Get(Table::kMeta, "manifest"), "plain");
}

// Somebody who can write to the files cannot move a value to another key or another table.
TEST_F(SealedStoreTest, AValueIsBoundToItsKey) {
  {
    const auto store = Open(kKey);
    Put(**store, Table::kMeta, "a", "value of a");
    Put(**store, Table::kMeta, "b", "value of b");
  }
  {
    const auto beneath = ContainedPath();
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
  for (const char* key : {"b", "c", "d"})
    EXPECT_EQ((*store)->Get(Table::kMeta, key).status().code(), StatusCode::kDataLoss) << key;
  EXPECT_EQ((*store)->Get(Table::kText, "a").status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(
      (*store)
          ->Scan(Table::kMeta, "", "z", [](std::string_view, std::string_view) { return true; })
          .code(),
      StatusCode::kDataLoss);
  EXPECT_EQ((*store)->MultiGet(Table::kMeta, {"a", "b"})[1].status().code(), StatusCode::kDataLoss);
}

TEST_F(SealedStoreTest, DeletingAllValuesKeepsTheKeyValid) {
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

TEST_F(SealedStoreTest, ADamagedRecordIsReported) {
  { ASSERT_TRUE(Open(kKey).ok()); }
  const std::string whole = *ContainedPath()->Get(Table::kMeta, kRecord);
  for (size_t i = 0; i <= whole.size(); ++i) {
    std::string bad = whole.substr(0, i);
    if (i == whole.size()) bad.back() = static_cast<char>(bad.back() ^ 1);
    Put(*ContainedPath(), Table::kMeta, kRecord, bad);
    const Status status = Open(kKey).status();
    EXPECT_TRUE(status.code() == StatusCode::kDataLoss ||
                status.code() == StatusCode::kFailedPrecondition)
        << i << status.ToString();
  }
}

// Two memories cannot be swapped by renaming their directories, also between tenants.
TEST_F(SealedStoreTest, OpensOnlyUnderItsOwnName) {
  { ASSERT_TRUE(Open(kKey).ok()); }
  for (const char* other : {"tales", "other/tales", "firm/tale", ""}) {
    const Status status = Open(kKey, other).status();
    EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status.ToString();
    EXPECT_THAT(status.message(), AllOf(HasSubstr("sealed as memory firm/tales"),
                                        HasSubstr("rename"), HasSubstr("export")));
  }
  EXPECT_TRUE(Open(kKey).ok());
}

// The bytes of both versions, and of a value, made with Python's cryptography package as
// docs/formats/sealed.md describes.
TEST_F(SealedStoreTest, OpensStoresOfBothVersions) {
  const std::string salt = "000102030405060708090a0b0c0d0e0f";
  const std::string unnamed =
      FromHex("01" + salt + "202122232425262728292a2b6cdbf324b02e4c336e8656368a19c854");
  const std::string named = FromHex(
      "02" + salt + "202122232425262728292a2b6a05a93ceb4c7f3f5290a46cba0b7c5dd3dd334afa5c55638844");
  const std::string value = FromHex(
      "404142434445464748494a4b5b5838e65d7f5c64511c21382150e12f550ef4421cdc0ff8093c4aa7e7a07cb4e0d0"
      "de4d");
  Put(*ContainedPath(), Table::kText, "key", value);
  for (const bool has_name : {true, false}) {
    Put(*ContainedPath(), Table::kMeta, kRecord, has_name ? named : unnamed);
    if (!has_name) inside_ = kName;
    const auto store = Open(kKey);
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    EXPECT_EQ(*(*store)->Get(Table::kText, "key"), "a value of version 1");
  }
  // A store opened for writing is of version 2 from then on, with the same key.
  const std::string now = *ContainedPath()->Get(Table::kMeta, kRecord);
  EXPECT_EQ(now.substr(0, 17), named.substr(0, 17));
  EXPECT_EQ(now.size(), named.size());
  inside_ = Internal("is not asked for");
  EXPECT_EQ(*(*Open(kKey))->Get(Table::kText, "key"), "a value of version 1");
  EXPECT_THAT(Open(kKey, "firm/other").status().message(),
              HasSubstr("sealed as memory firm/tales"));

  // If the record does not hold the name, the memory inside does.
  const auto version = [&](const Result<std::string>& inside, bool read_only,
                           const std::string& name) {
    Put(*ContainedPath(), Table::kMeta, kRecord, unnamed);
    inside_ = inside;
    const Status status = Open(kKey, name, read_only).status();
    return std::to_string(ContainedPath()->Get(Table::kMeta, kRecord)->at(0)) + " " +
           status.message();
  };
  EXPECT_THAT(version(kName, false, "firm/other"),
              AllOf(testing::StartsWith("1 "), HasSubstr("sealed as memory firm/tales")));
  EXPECT_EQ(version(kName, true, kName), "1 ") << "a reader writes nothing";
  EXPECT_EQ(version(NotFound("no memory is in it yet"), false, kName), "2 ");
  EXPECT_EQ(version(DataLoss("its manifest is damaged"), false, kName),
            "1 its manifest is damaged");
}

}  // namespace
}  // namespace longhold
