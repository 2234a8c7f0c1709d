// One suite for every cold store: what store/cold_store.h promises, tested on the in-memory store
// and on RocksDB. The model test compares a store with std::map under random batches, reads, scans,
// compactions and (for RocksDB) reopening. Its values straddle 4096 bytes, where RocksDB moves from
// tables to blob files. It prints its seed on failure.
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "base/seal.h"
#include "store/mem_store.h"
#include "store/rocks_store.h"
#include "store/sealed_store.h"
#include "tests/store/temp_dir.h"

namespace longhold {
namespace {

constexpr Table kTables[] = {Table::kMeta, Table::kText, Table::kIndex, Table::kBlocks};

enum class Kind { kMem, kRocks, kSealed };

const Secret kKey(std::string(kSealKeyBytes, 'k'));

class StoreContract : public testing::TestWithParam<Kind> {
 protected:
  StoreContract() { Open(); }

  void Open() {
    if (GetParam() == Kind::kMem) {
      store_ = NewMemStore();
      return;
    }
    auto store = OpenRocksStore(
        {.path = dir_ / "store", .write_buffer_bytes = 256 << 10, .disk_reserve_bytes = 0});
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    store_ = std::move(store).value();
    if (GetParam() != Kind::kSealed) return;
    auto opened = OpenSealed(std::move(store_), {.master = kKey, .name = "tales"});
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    EXPECT_TRUE(opened->sealed);
    store_ = std::move(opened->store);
  }
  // Closes and reopens stores that persist their data.
  void Reopen() {
    if (GetParam() == Kind::kMem) return;
    store_.reset();
    Open();
  }

  void Put(Table table, const std::string& key, const std::string& value) {
    WriteBatch batch;
    batch.Put(table, key, value);
    Write(std::move(batch));
  }
  void Write(WriteBatch batch) {
    const Status status = store_->Write(std::move(batch), Durability::kBuffered);
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  // Returns "<none>" if the key is not found.
  std::string Get(Table table, const std::string& key) {
    const auto value = store_->Get(table, key);
    if (value.ok()) return *value;
    EXPECT_EQ(value.status().code(), StatusCode::kNotFound) << value.status().ToString();
    return "<none>";
  }
  // Formats as "a=1 b=2 ".
  std::string ScanText(Table table, const std::string& begin, const std::string& end,
                       int limit = 1000) {
    std::string text;
    const Status status =
        store_->Scan(table, begin, end, [&](std::string_view key, std::string_view value) {
          text += std::string(key) + "=" + std::string(value) + " ";
          return --limit > 0;
        });
    EXPECT_TRUE(status.ok()) << status.ToString();
    return text;
  }

  TempDir dir_;
  std::unique_ptr<ColdStore> store_;
};

TEST_P(StoreContract, ReturnsWhatWasPut) {
  const std::string binary("\0\xff\n\0", 4);
  for (const Table table : kTables) {
    Put(table, "key", "value");
    Put(table, binary, binary);
    Put(table, "empty", "");
    Put(table, "long", std::string(1 << 20, 'x'));
  }
  for (int round = 0; round < 2; ++round) {
    for (const Table table : kTables) {
      EXPECT_EQ(Get(table, "key"), "value");
      EXPECT_EQ(Get(table, binary), binary);
      EXPECT_EQ(Get(table, "empty"), "");
      EXPECT_EQ(Get(table, "long"), std::string(1 << 20, 'x'));
      EXPECT_EQ(Get(table, "other"), "<none>");
    }
    Reopen();
  }
}

TEST_P(StoreContract, TablesAreSeparate) {
  Put(Table::kMeta, "key", "meta");
  Put(Table::kBlocks, "key", "blocks");
  EXPECT_EQ(Get(Table::kMeta, "key"), "meta");
  EXPECT_EQ(Get(Table::kBlocks, "key"), "blocks");
  EXPECT_EQ(Get(Table::kText, "key"), "<none>");
}

TEST_P(StoreContract, TheLastPutWins) {
  for (const std::string& value :
       {std::string("short"), std::string(10000, 'l'), std::string("again")}) {
    Put(Table::kText, "key", value);
    EXPECT_EQ(Get(Table::kText, "key"), value);
    Reopen();
    EXPECT_EQ(Get(Table::kText, "key"), value);
  }
}

TEST_P(StoreContract, DeleteRemovesOneKeyAndIgnoresAMissingOne) {
  Put(Table::kText, "a", "1");
  Put(Table::kText, "b", "2");
  WriteBatch batch;
  batch.Delete(Table::kText, "a");
  batch.Delete(Table::kText, "missing");
  Write(std::move(batch));
  EXPECT_EQ(ScanText(Table::kText, "", "z"), "b=2 ");
}

TEST_P(StoreContract, DeleteRangeIsHalfOpenAndAffectsOneTable) {
  for (const char* key : {"a", "b", "c", "d"}) {
    Put(Table::kBlocks, key, key);
    Put(Table::kIndex, key, key);
  }
  WriteBatch batch;
  batch.DeleteRange(Table::kBlocks, "b", "d");
  Write(std::move(batch));
  EXPECT_EQ(ScanText(Table::kBlocks, "", "z"), "a=a d=d ");
  EXPECT_EQ(ScanText(Table::kIndex, "", "z"), "a=a b=b c=c d=d ");
  Reopen();
  EXPECT_EQ(ScanText(Table::kBlocks, "", "z"), "a=a d=d ");
}

TEST_P(StoreContract, AnEmptyOrBackwardRangeDeletesNothing) {
  Put(Table::kMeta, "b", "1");
  WriteBatch batch;
  batch.DeleteRange(Table::kMeta, "c", "a");
  batch.DeleteRange(Table::kMeta, "b", "b");
  batch.Put(Table::kMeta, "d", "2");
  Write(std::move(batch));
  EXPECT_EQ(ScanText(Table::kMeta, "", "z"), "b=1 d=2 ");
  EXPECT_EQ(ScanText(Table::kMeta, "z", "a"), "");
  EXPECT_EQ(ScanText(Table::kMeta, "b", "b"), "");
}

TEST_P(StoreContract, ChangesOfABatchApplyInOrder) {
  WriteBatch batch;
  batch.Put(Table::kMeta, "a", "1");
  batch.Put(Table::kMeta, "b", "1");
  batch.DeleteRange(Table::kMeta, "a", "c");
  batch.Put(Table::kMeta, "b", "2");
  batch.Put(Table::kMeta, "c", "1");
  batch.Delete(Table::kMeta, "c");
  Write(std::move(batch));
  EXPECT_EQ(ScanText(Table::kMeta, "", "z"), "b=2 ");
  Write(WriteBatch());
}

TEST_P(StoreContract, ScanAscendsByUnsignedBytesAndStopsOnRequest) {
  std::string begin, end;
  AppendBigEndian32(&begin, 0);
  AppendBigEndian32(&end, 0xffffffff);
  const uint32_t numbers[] = {0x80000000, 1, 0xff, 0x100, 0x7fffffff, 0xfffffffe, 0};
  for (const uint32_t number : numbers) {
    std::string key;
    AppendBigEndian32(&key, number);
    EXPECT_EQ(ReadBigEndian32(key), number);
    Put(Table::kBlocks, key, std::to_string(number));
  }
  std::vector<uint32_t> seen;
  const Status status =
      store_->Scan(Table::kBlocks, begin, end, [&](std::string_view key, std::string_view value) {
        EXPECT_EQ(std::to_string(ReadBigEndian32(key)), value);
        seen.push_back(ReadBigEndian32(key));
        return seen.size() < 6;
      });
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(seen, (std::vector<uint32_t>{0, 1, 0xff, 0x100, 0x7fffffff, 0x80000000}));
}

TEST_P(StoreContract, ScanIsASnapshotAndItsVisitorMayUseTheStore) {
  for (const char* key : {"a", "b", "c"}) Put(Table::kMeta, key, "1");
  std::string seen;
  const Status status =
      store_->Scan(Table::kMeta, "a", "z", [&](std::string_view key, std::string_view) {
        WriteBatch batch;
        batch.Delete(Table::kMeta, "b");
        batch.Put(Table::kMeta, "d", "1");
        EXPECT_TRUE(store_->Write(std::move(batch), Durability::kBuffered).ok());
        EXPECT_TRUE(store_->Get(Table::kMeta, "a").ok());
        seen += key;
        return true;
      });
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(seen, "abc");
  EXPECT_EQ(ScanText(Table::kMeta, "", "z"), "a=1 c=1 d=1 ");
}

TEST_P(StoreContract, MultiGetAnswersInTheOrderOfTheKeys) {
  Put(Table::kBlocks, "a", "1");
  Put(Table::kBlocks, "b", std::string(5000, '2'));
  const auto values = store_->MultiGet(Table::kBlocks, {"b", "missing", "a", "b"});
  ASSERT_EQ(values.size(), 4u);
  EXPECT_EQ(*values[0], std::string(5000, '2'));
  EXPECT_EQ(values[1].status().code(), StatusCode::kNotFound);
  EXPECT_EQ(*values[2], "1");
  EXPECT_EQ(*values[3], std::string(5000, '2'));
  EXPECT_TRUE(store_->MultiGet(Table::kBlocks, {}).empty());
}

TEST_P(StoreContract, CompactChangesNoReadableData) {
  for (int i = 0; i < 100; ++i)
    Put(Table::kBlocks, std::to_string(1000 + i), std::string(5000 + i, 'v'));
  WriteBatch batch;
  batch.DeleteRange(Table::kBlocks, "1010", "1090");
  Write(std::move(batch));
  const std::string before = ScanText(Table::kBlocks, "", "z");
  ASSERT_TRUE(store_->Compact().ok());
  EXPECT_EQ(ScanText(Table::kBlocks, "", "z"), before);
  Put(Table::kBlocks, "1010", "new");
  EXPECT_EQ(Get(Table::kBlocks, "1010"), "new");
  Reopen();
  EXPECT_EQ(Get(Table::kBlocks, "1009"), std::string(5009, 'v'));
  EXPECT_EQ(Get(Table::kBlocks, "1089"), "<none>");
  EXPECT_EQ(Get(Table::kBlocks, "1090"), std::string(5090, 'v'));
}

TEST_P(StoreContract, ReclaimChangesNoReadableData) {
  for (int i = 0; i < 20; ++i)
    Put(Table::kMeta, "state", std::string(300000, static_cast<char>('a' + i)));
  Put(Table::kMeta, "other", "kept");
  Put(Table::kBlocks, "b", std::string(5000, 'v'));
  ASSERT_TRUE(store_->Reclaim(Table::kMeta).ok());
  EXPECT_EQ(Get(Table::kMeta, "state"), std::string(300000, 't'));
  WriteBatch batch;
  batch.Delete(Table::kMeta, "state");
  Write(std::move(batch));
  ASSERT_TRUE(store_->Reclaim(Table::kMeta).ok());
  ASSERT_TRUE(store_->Reclaim(Table::kText).ok()) << "an empty one, too";
  EXPECT_LT(store_->DiskBytes().value(), 300000u) << "nothing is left of what was overwritten";
  EXPECT_EQ(Get(Table::kMeta, "state"), "<none>");
  Reopen();
  EXPECT_EQ(Get(Table::kMeta, "other"), "kept");
  EXPECT_EQ(Get(Table::kBlocks, "b"), std::string(5000, 'v'));
}

TEST_P(StoreContract, DiskBytesFollowTheData) {
  const uint64_t empty = store_->DiskBytes().value();
  for (int i = 0; i < 32; ++i)
    Put(Table::kBlocks, std::to_string(100 + i), std::string(100000, 'v'));
  EXPECT_GT(store_->DiskBytes().value(), empty + 3000000);
  ASSERT_TRUE(store_->Compact().ok());
  EXPECT_GT(store_->TableBytes(Table::kBlocks).value(), 3000000u);
  EXPECT_LT(store_->TableBytes(Table::kBlocks).value(), 4000000u);
  EXPECT_LT(store_->TableBytes(Table::kText).value(), 100000u) << "another table's";
  WriteBatch batch;
  batch.DeleteRange(Table::kBlocks, "", "z");
  Write(std::move(batch));
  ASSERT_TRUE(store_->Compact().ok());
  EXPECT_LT(store_->DiskBytes().value(), empty + 100000);
}

TEST_P(StoreContract, OtherThreadsSeeABatchWholeOrNotAtAll) {
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (int i = 0; i < 2000; ++i) {
      WriteBatch batch;
      for (const char* key : {"a", "b", "c"}) batch.Put(Table::kMeta, key, std::to_string(i));
      EXPECT_TRUE(store_->Write(std::move(batch), Durability::kBuffered).ok());
    }
    stop = true;
  });
  while (!stop) {
    std::vector<std::string> values;
    const Status status =
        store_->Scan(Table::kMeta, "a", "d", [&](std::string_view, std::string_view value) {
          values.emplace_back(value);
          return true;
        });
    EXPECT_TRUE(status.ok());
    if (values.empty()) continue;
    ASSERT_EQ(values.size(), 3u);
    EXPECT_EQ(values[0], values[1]);
    EXPECT_EQ(values[0], values[2]);
  }
  writer.join();
}

TEST_P(StoreContract, ReadsAndWritesContinueDuringCompact) {
  for (int i = 0; i < 50; ++i)
    Put(Table::kBlocks, std::to_string(100 + i), std::string(20000, 'v'));
  std::atomic<bool> stop{false};
  std::thread other([&] {
    for (int i = 0; !stop; ++i) {
      WriteBatch batch;
      batch.Put(Table::kBlocks, "new" + std::to_string(i % 10), std::string(5000, 'n'));
      EXPECT_TRUE(store_->Write(std::move(batch), Durability::kBuffered).ok());
      EXPECT_EQ(store_->Get(Table::kBlocks, "149").value(), std::string(20000, 'v'));
    }
  });
  for (int i = 0; i < 5; ++i) {
    WriteBatch batch;
    batch.Delete(Table::kBlocks, std::to_string(100 + i));
    Write(std::move(batch));
    const Status status = store_->Compact();
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
  stop = true;
  other.join();
}

using Model = std::map<std::string, std::string>;

TEST_P(StoreContract, EqualsAMapUnderRandomUse) {
  for (const uint64_t seed : {1, 2, 3}) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const auto below = [&](uint64_t n) { return random() % n; };
    const auto some_key = [&] { return std::to_string(1000 + below(150)); };
    Model models[kTableCount];
    WriteBatch clear;
    for (const Table table : kTables) clear.DeleteRange(table, "", "z");
    Write(std::move(clear));

    for (int step = 0; step < 400; ++step) {
      const Table table = kTables[below(4)];
      Model& model = models[static_cast<int>(table)];
      const uint64_t action = below(100);
      if (action < 60) {
        WriteBatch batch;
        for (uint64_t n = 1 + below(8); n > 0; --n) {
          const Table target = kTables[below(4)];
          Model& rows = models[static_cast<int>(target)];
          const std::string key = some_key();
          if (const uint64_t what = below(10); what < 7) {
            const std::string value(below(2) == 0 ? below(200) : 3900 + below(6000),
                                    static_cast<char>(below(256)));
            batch.Put(target, key, value);
            rows[key] = value;
          } else if (what < 9) {
            batch.Delete(target, key);
            rows.erase(key);
          } else {
            std::string end = std::to_string(std::stoi(key) + static_cast<int>(below(12)));
            batch.DeleteRange(target, key, end);
            rows.erase(rows.lower_bound(key), rows.lower_bound(end));
          }
        }
        const auto durability = below(20) == 0 ? Durability::kSynced : Durability::kBuffered;
        ASSERT_TRUE(store_->Write(std::move(batch), durability).ok());
      } else if (action < 80) {
        const std::string key = some_key();
        ASSERT_EQ(Get(table, key), model.count(key) ? model[key] : "<none>") << "step " << step;
      } else if (action < 96) {
        const std::string begin = some_key(), end = some_key();
        std::string expected;
        for (auto it = model.lower_bound(begin); it != model.end() && it->first < end; ++it) {
          expected += it->first + "=" + it->second + " ";
        }
        ASSERT_EQ(ScanText(table, begin, end), expected) << "step " << step;
      } else if (action < 99) {
        Reopen();
      } else {
        ASSERT_TRUE(store_->Compact().ok());
      }
    }
    for (const Table table : kTables) {
      std::string expected;
      for (const auto& [key, value] : models[static_cast<int>(table)])
        expected += key + "=" + value + " ";
      EXPECT_EQ(ScanText(table, "", "z"), expected);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, StoreContract,
                         testing::Values(Kind::kMem, Kind::kRocks, Kind::kSealed),
                         [](const auto& info) {
                           return info.param == Kind::kMem     ? "Mem"
                                  : info.param == Kind::kRocks ? "Rocks"
                                                               : "Sealed";
                         });

}  // namespace
}  // namespace longhold
