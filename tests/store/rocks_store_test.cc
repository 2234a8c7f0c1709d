// What only the store on disk promises. Deleted bytes leave every file: the test searches all files
// for a canary, before and after. There is one writer, with readers next to it. Errors name the
// path, a full disk harms nothing, and damage is reported. store_contract_test.cc tests the
// contract shared with the in-memory store.
#include "store/rocks_store.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <iostream>
#include <random>

#include "tests/store/store_child.h"
#include "tests/store/temp_dir.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;
using testing::Test;

constexpr Table kTables[] = {Table::kMeta, Table::kText, Table::kIndex, Table::kBlocks};

class RocksStoreTest : public Test {
 protected:
  RocksOptions Options() const { return OptionsAt(path_); }
  RocksOptions OptionsAt(const std::string& path) const {
    return {.path = path, .write_buffer_bytes = 1 << 20, .disk_reserve_bytes = 0};
  }
  void Open() { Open(Options()); }
  void Open(const RocksOptions& options) {
    store_.reset();
    auto store = OpenRocksStore(options);
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    store_ = std::move(store).value();
  }
  Status Put(Table table, const std::string& key, const std::string& value) {
    WriteBatch batch;
    batch.Put(table, key, value);
    return store_->Write(std::move(batch), Durability::kBuffered);
  }
  // The files of `path` that contain `bytes`.
  static std::vector<std::string> FilesWith(const std::string& path, const std::string& bytes) {
    std::vector<std::string> files;
    for (const auto& entry : fs::directory_iterator(path)) {
      if (ReadWholeFile(entry.path()).find(bytes) != std::string::npos)
        files.push_back(entry.path().filename());
    }
    return files;
  }
  // The files whose names end with the given suffix, in order.
  static std::vector<fs::path> Files(const std::string& path, const std::string& suffix) {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(path)) {
      const std::string name = entry.path().filename();
      if (name.size() >= suffix.size() && name.substr(name.size() - suffix.size()) == suffix)
        files.push_back(entry);
    }
    std::sort(files.begin(), files.end());
    return files;
  }
  static void FlipByte(const fs::path& path, uint64_t offset) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    const int byte = file.get();
    ASSERT_NE(byte, EOF) << path;
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(static_cast<char>(byte ^ 0x40));
  }

  TempDir dir_;
  std::string path_ = dir_ / "store";
  std::unique_ptr<ColdStore> store_;
};

// ---- Deletion

std::string Filler(uint64_t seed, size_t size) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>('a' + random() % 26);
  return bytes;
}

TEST_F(RocksStoreTest, DeletedBytesAreGoneFromEveryFileAfterCompact) {
  const std::string canary = "CANARY-7f3a91c2", doomed_key = "k-DOOMEDKEY-5512-";
  Open();
  for (int round = 0; round < 3; ++round) {
    // Canaries among neighbours that stay: small ones (in tables) and large ones (in blob files),
    // deleted in each of three ways.
    for (const Table table : kTables) {
      for (int i = 0; i < 12; ++i) {
        const size_t size = i % 2 == 0 ? 500 : 50000;
        ASSERT_TRUE(Put(table, "k" + std::to_string(100 + i), Filler(i, size)).ok());
        ASSERT_TRUE(Put(table, doomed_key + std::to_string(100 + i),
                        Filler(i, size) + canary + Filler(i, size))
                        .ok());
      }
      ASSERT_TRUE(Put(table, "overwritten", canary + Filler(1, 50000)).ok());
    }
    if (round == 1) Open();  // moves the canaries to tables and blob files
    if (round == 2) {
      ASSERT_TRUE(store_->Compact().ok());
    }
    EXPECT_FALSE(FilesWith(path_, canary).empty()) << "the search itself must work";
    EXPECT_FALSE(FilesWith(path_, "DOOMEDKEY").empty());
    WriteBatch batch;
    for (const Table table : kTables) {
      for (int i = 0; i < 6; ++i) batch.Delete(table, doomed_key + std::to_string(100 + i));
      batch.DeleteRange(table, doomed_key + "106", doomed_key + "999");
      batch.Put(table, "overwritten", "now harmless");
    }
    ASSERT_TRUE(store_->Write(std::move(batch), Durability::kBuffered).ok());
    const Status compacted = store_->Compact();
    ASSERT_TRUE(compacted.ok()) << compacted.ToString();
    EXPECT_EQ(FilesWith(path_, canary), std::vector<std::string>()) << "round " << round;
    EXPECT_EQ(FilesWith(path_, "DOOMEDKEY"), std::vector<std::string>()) << "round " << round;
    for (const Table table : kTables) {
      for (int i = 0; i < 12; ++i) {
        EXPECT_EQ(*store_->Get(table, "k" + std::to_string(100 + i)),
                  Filler(i, i % 2 == 0 ? 500 : 50000));
      }
    }
  }
  store_.reset();
  EXPECT_EQ(FilesWith(path_, canary), std::vector<std::string>());
  EXPECT_EQ(FilesWith(path_, "DOOMEDKEY"), std::vector<std::string>());
}

TEST_F(RocksStoreTest, TheLogIsQuietAndTheFilesAreFew) {
  for (int i = 0; i < 10; ++i) {
    Open();
    ASSERT_TRUE(Put(Table::kMeta, "key", std::to_string(i)).ok());
  }
  store_.reset();
  uint64_t files = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(path_)) ++files;
  EXPECT_LT(files, 25u);
  EXPECT_LT(fs::file_size(path_ + "/LOG"), 100000u);
}

// ---- One writer, many readers

TEST_F(RocksStoreTest, ASecondWriterIsRefused) {
  const std::string refused = "failed_precondition: memory store " + path_ +
                              " is in use by another process; wait for it or stop it";
  {
    StoreChild holder({"hold", path_});
    ASSERT_EQ(holder.Line(), "ok");
    EXPECT_EQ(OpenRocksStore(Options()).status().ToString(), refused);
    EXPECT_EQ(OpenRocksStore(Options()).status().ToString(), refused)
        << "a refusal must not free the lock";
  }
  Open();  // its death releases the lock
  EXPECT_EQ(OpenRocksStore(Options()).status().ToString(), refused) << "also within one process";
  EXPECT_EQ(StoreChild({"try", path_, std::to_string(geteuid())}).Line(), refused);
  ASSERT_TRUE(store_->Compact().ok());
  EXPECT_EQ(StoreChild({"try", path_, std::to_string(geteuid())}).Line(), refused)
      << "also after Compact";
  EXPECT_TRUE(Put(Table::kMeta, "still", "works").ok());
}

TEST_F(RocksStoreTest, AReaderSeesTheStateAtItsOpening) {
  Open();
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(Put(Table::kBlocks, std::to_string(100 + i), Filler(i, 50000)).ok());
    ASSERT_TRUE(Put(Table::kMeta, std::to_string(100 + i), "old").ok());
  }
  RocksOptions options = Options();
  options.read_only = true;
  auto reader = OpenRocksStore(options);
  ASSERT_TRUE(reader.ok()) << reader.status().ToString();
  auto second = OpenRocksStore(options);
  ASSERT_TRUE(second.ok()) << "any number of readers";
  // flushes many times and removes the logs and tables that the reader uses
  for (int i = 0; i < 300; ++i) {
    ASSERT_TRUE(Put(Table::kBlocks, std::to_string(500 + i), Filler(i, 50000)).ok());
    ASSERT_TRUE(Put(Table::kMeta, std::to_string(100 + i % 100), "new" + Filler(i, 20000)).ok());
  }
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(*(*reader)->Get(Table::kBlocks, std::to_string(100 + i)), Filler(i, 50000));
    EXPECT_EQ(*(*reader)->Get(Table::kMeta, std::to_string(100 + i)), "old");
  }
  EXPECT_EQ((*reader)->Get(Table::kBlocks, "500").status().code(), StatusCode::kNotFound);
  auto later = OpenRocksStore(options);
  ASSERT_TRUE(later.ok());
  EXPECT_EQ(*(*later)->Get(Table::kBlocks, "799"), Filler(299, 50000));
}

TEST_F(RocksStoreTest, AReaderRefusesToWrite) {
  Open();
  store_.reset();
  RocksOptions options = Options();
  options.read_only = true;
  const auto listing = [&] {
    std::string names;
    for (const auto& file : Files(path_, ""))
      names += file.string() + " " + std::to_string(fs::file_size(file)) + "\n";
    return names;
  };
  const std::string before = listing();
  Open(options);
  EXPECT_EQ(Put(Table::kMeta, "a", "b").code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(store_->Compact().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(store_->Reclaim(Table::kMeta).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(store_->Get(Table::kMeta, "a").status().code(), StatusCode::kNotFound);
  store_.reset();
  EXPECT_EQ(listing(), before) << "a reader leaves no trace";
}

// RocksDB 7.8.3, opened read-only with its default number of open files, answers NotFound to every
// key here.
TEST_F(RocksStoreTest, AReaderReadsAFullyCompactedStore) {
  Open();
  for (int i = 0; i < 30; ++i)
    ASSERT_TRUE(Put(Table::kBlocks, std::to_string(100 + i), Filler(i, 50000)).ok());
  WriteBatch batch;
  batch.Delete(Table::kBlocks, "115");
  ASSERT_TRUE(store_->Write(std::move(batch), Durability::kBuffered).ok());
  ASSERT_TRUE(store_->Compact().ok());
  RocksOptions options = Options();
  options.read_only = true;
  Open(options);
  for (int i = 0; i < 30; ++i) {
    if (i == 15) continue;
    EXPECT_EQ(*store_->Get(Table::kBlocks, std::to_string(100 + i)), Filler(i, 50000));
  }
}

TEST_F(RocksStoreTest, AReaderReportsFilesThatCompactRemoved) {
  Open();
  for (int i = 0; i < 30; ++i)
    ASSERT_TRUE(Put(Table::kBlocks, std::to_string(100 + i), Filler(i, 50000)).ok());
  Open();
  RocksOptions options = Options();
  options.read_only = true;
  auto reader = OpenRocksStore(options);
  ASSERT_TRUE(reader.ok());
  WriteBatch batch;
  for (int i = 0; i < 30; i += 2) batch.Delete(Table::kBlocks, std::to_string(100 + i));
  ASSERT_TRUE(store_->Write(std::move(batch), Durability::kBuffered).ok());
  ASSERT_TRUE(store_->Compact().ok());
  const auto value = (*reader)->Get(Table::kBlocks, "101");
  ASSERT_FALSE(value.ok()) << "its blob file is gone and was never open";
  EXPECT_EQ(value.status().code(), StatusCode::kUnavailable) << value.status().ToString();
  EXPECT_NE(value.status().message().find("open it again"), std::string::npos);
}

// ---- Errors of opening

TEST_F(RocksStoreTest, RemovesADamagedStoreButNotAnotherWritersOrAStrangersFiles) {
  Open();
  ASSERT_TRUE(Put(Table::kText, "a", std::string(9000, 'x')).ok());
  const Status busy = RemoveRocksStore(path_);
  EXPECT_EQ(busy.code(), StatusCode::kFailedPrecondition) << busy.ToString();
  EXPECT_NE(busy.message().find("another process"), std::string::npos);
  ASSERT_TRUE(store_->Get(Table::kText, "a").ok());
  store_.reset();
  fs::remove(path_ + "/CURRENT");
  const Status removed = RemoveRocksStore(path_);
  EXPECT_TRUE(removed.ok()) << removed.ToString();
  EXPECT_FALSE(fs::exists(path_));
  EXPECT_TRUE(fs::is_empty(fs::path(path_).parent_path())) << "files are left next to it";
  EXPECT_EQ(RemoveRocksStore(path_).code(), StatusCode::kNotFound);
  fs::create_directories(path_);
  std::ofstream(path_ + "/letter.txt") << "mine";
  EXPECT_EQ(RemoveRocksStore(path_).code(), StatusCode::kNotFound);
  EXPECT_TRUE(fs::exists(path_ + "/letter.txt"));
}

TEST_F(RocksStoreTest, AMissingStoreIsNotFound) {
  for (const bool read_only : {true, false}) {
    RocksOptions options = Options();
    options.read_only = read_only;
    options.create_if_missing = false;
    const Status status = OpenRocksStore(options).status();
    EXPECT_EQ(status.code(), StatusCode::kNotFound) << status.ToString();
    EXPECT_NE(status.message().find(path_), std::string::npos);
    fs::create_directories(path_);
    EXPECT_EQ(OpenRocksStore(options).status().code(), StatusCode::kNotFound)
        << "an empty directory";
    fs::remove_all(path_);
  }
}

TEST_F(RocksStoreTest, NoPermissionNamesThePathAndTheNextStep) {
  Open();
  store_.reset();
  fs::permissions(path_, fs::perms::owner_read | fs::perms::owner_exec);
  // Root may write anywhere, so a child first becomes nobody. For other users the mode is enough.
  const std::string line =
      StoreChild({"try", path_, geteuid() == 0 ? "65534" : std::to_string(geteuid())}).Line();
  fs::permissions(path_, fs::perms::owner_all);
  EXPECT_EQ(line.find("invalid_argument: "), 0u) << line;
  EXPECT_NE(line.find(path_), std::string::npos) << line;
  EXPECT_NE(line.find("Permission denied"), std::string::npos) << line;
  EXPECT_NE(line.find("change the permissions"), std::string::npos) << line;
}

TEST_F(RocksStoreTest, AFileInItsPlaceIsRefused) {
  std::ofstream(path_) << "not a directory";
  EXPECT_EQ(OpenRocksStore(Options()).status().code(), StatusCode::kInvalidArgument);
}

// ---- A full disk

TEST_F(RocksStoreTest, TheReserveIsKeptAndDeletingStillWorks) {
  Open();
  ASSERT_TRUE(Put(Table::kBlocks, "a", "1").ok());
  RocksOptions options = Options();
  options.disk_reserve_bytes = uint64_t{1} << 62;
  Open(options);
  const Status status = Put(Table::kBlocks, "b", "2");
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find(path_), std::string::npos);
  EXPECT_NE(status.message().find("bytes are free"), std::string::npos);
  EXPECT_EQ(store_->Get(Table::kBlocks, "b").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(Put(Table::kBlocks, "b", "2").code(), StatusCode::kResourceExhausted)
      << "asked again, refused again";
  WriteBatch batch;
  batch.Delete(Table::kBlocks, "a");
  batch.Put(Table::kMeta, "ledger", "a forgotten");
  EXPECT_TRUE(store_->Write(std::move(batch), Durability::kSynced).ok());
  Open();
  EXPECT_TRUE(Put(Table::kBlocks, "b", "2").ok());
}

// Fills `store` until a write fails. Returns the number of acknowledged writes.
int FillUntilRefused(ColdStore& store, Status* refusal) {
  for (int i = 0; i < 200; ++i) {
    WriteBatch batch;
    batch.Put(Table::kBlocks, std::to_string(1000 + i), Filler(i, 300000));
    batch.Put(Table::kMeta, "counter", std::to_string(i));
    *refusal =
        store.Write(std::move(batch), i % 2 == 0 ? Durability::kBuffered : Durability::kSynced);
    if (!refusal->ok()) return i;
  }
  return 200;
}

void ExpectUnharmed(ColdStore& store, int acknowledged) {
  for (int i = 0; i < acknowledged; ++i) {
    const auto value = store.Get(Table::kBlocks, std::to_string(1000 + i));
    ASSERT_TRUE(value.ok()) << i << ": " << value.status().ToString();
    ASSERT_TRUE(*value == Filler(i, 300000));
  }
  const int counter = std::stoi(store.Get(Table::kMeta, "counter").value());
  EXPECT_GE(counter, acknowledged - 1);
  EXPECT_LE(counter, acknowledged);
  EXPECT_EQ(store.Get(Table::kBlocks, std::to_string(1000 + acknowledged)).ok(),
            counter == acknowledged)
      << "the refused batch is stored whole or not at all";
}

// Any user can simulate a full disk with a file size limit: first on a log of 8 MiB, then on a
// buffer that is being flushed.
TEST_F(RocksStoreTest, AWriteBeyondTheFileSizeLimitHarmsNothing) {
  for (const uint64_t write_buffer_bytes : {uint64_t{32} << 20, uint64_t{1} << 20}) {
    path_ = dir_ / std::to_string(write_buffer_bytes);
    RocksOptions options = Options();
    options.write_buffer_bytes = write_buffer_bytes;
    Open(options);
    signal(SIGXFSZ, SIG_IGN);
    rlimit old_limit;
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
    rlimit limit = old_limit;
    limit.rlim_cur = write_buffer_bytes > 8 << 20 ? 8 << 20 : 1 << 20;
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    Status refusal;
    const int acknowledged = FillUntilRefused(*store_, &refusal);
    setrlimit(RLIMIT_FSIZE, &old_limit);
    ASSERT_LT(acknowledged, 200);
    ASSERT_GT(acknowledged, 1);
    EXPECT_EQ(refusal.code(), StatusCode::kResourceExhausted) << refusal.ToString();
    EXPECT_NE(refusal.message().find(path_), std::string::npos);
    EXPECT_NE(refusal.message().find("bytes are free"), std::string::npos);
    EXPECT_EQ(Put(Table::kMeta, "a", "b").code(), StatusCode::kResourceExhausted)
        << "until it is opened again";
    EXPECT_EQ(*store_->Get(Table::kBlocks, "1000"), Filler(0, 300000)) << "reads still work";
    Open(options);
    ExpectUnharmed(*store_, acknowledged);
    EXPECT_TRUE(Put(Table::kBlocks, "more", Filler(9, 5 << 20)).ok());
    EXPECT_TRUE(store_->Compact().ok());
    ExpectUnharmed(*store_, acknowledged);
  }
}

// A real full disk, where mounting is allowed. Elsewhere the limit above tests the same.
TEST_F(RocksStoreTest, AFullDiskHarmsNothing) {
  const std::string disk = dir_ / "disk";
  fs::create_directories(disk);
  if (mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=16m") != 0) {
    std::cout << "cannot mount a tmpfs here; AWriteBeyondTheFileSizeLimitHarmsNothing stands for "
                 "this test\n";
    return;
  }
  for (const uint64_t write_buffer_bytes : {uint64_t{64} << 20, uint64_t{1} << 20}) {
    path_ = disk + "/store";
    RocksOptions options = Options();
    options.write_buffer_bytes = write_buffer_bytes;
    Open(options);
    Status refusal;
    const int acknowledged = FillUntilRefused(*store_, &refusal);
    EXPECT_LT(acknowledged, 200);
    EXPECT_GT(acknowledged, 1);
    EXPECT_EQ(refusal.code(), StatusCode::kResourceExhausted) << refusal.ToString();
    EXPECT_EQ(Put(Table::kMeta, "a", "b").code(), StatusCode::kResourceExhausted);
    store_.reset();
    const auto still_full = OpenRocksStore(options);
    if (!still_full.ok()) {
      EXPECT_EQ(still_full.status().code(), StatusCode::kResourceExhausted)
          << still_full.status().ToString();
    }
    EXPECT_EQ(mount("tmpfs", disk.c_str(), "tmpfs", MS_REMOUNT, "size=200m"), 0);
    if (still_full.ok()) break;
    Open(options);
    if (store_ != nullptr) ExpectUnharmed(*store_, acknowledged);
    EXPECT_TRUE(Put(Table::kBlocks, "more", Filler(9, 1 << 20)).ok());
    store_.reset();
    fs::remove_all(path_);
    EXPECT_EQ(mount("tmpfs", disk.c_str(), "tmpfs", MS_REMOUNT, "size=16m"), 0);
  }
  store_.reset();
  EXPECT_EQ(umount2(disk.c_str(), MNT_DETACH), 0);
}

// ---- Damage

class RocksDamageTest : public RocksStoreTest {
 protected:
  // A store of ten values per table, large ones in all but kMeta, all flushed to tables and blob
  // files.
  void MakeAtRest() {
    Open();
    for (const Table table : kTables) {
      for (int i = 0; i < 10; ++i) {
        ASSERT_TRUE(
            Put(table, std::to_string(100 + i), Filler(i, table == Table::kMeta ? 500 : 20000))
                .ok());
      }
    }
    store_.reset();
  }
};

TEST_F(RocksDamageTest, ADamagedTableIsDataLossWithTheFilesName) {
  MakeAtRest();
  fs::path file;
  for (const auto& table : Files(path_, ".sst")) {
    if (ReadWholeFile(table).find(Filler(5, 500)) != std::string::npos) file = table;
  }
  ASSERT_FALSE(file.empty());
  FlipByte(file, ReadWholeFile(file).find(Filler(5, 500)) + 100);
  Open();
  const auto value = store_->Get(Table::kMeta, "105");
  ASSERT_EQ(value.status().code(), StatusCode::kDataLoss) << value.status().ToString();
  EXPECT_NE(value.status().message().find(file.filename()), std::string::npos)
      << value.status().ToString();
  EXPECT_EQ(store_->Scan(Table::kMeta, "", "z", [](auto, auto) { return true; }).code(),
            StatusCode::kDataLoss);
}

TEST_F(RocksDamageTest, ADamagedValueIsDataLossInEveryTable) {
  MakeAtRest();
  const auto blobs = FilesWith(path_, Filler(5, 20000));
  ASSERT_EQ(blobs.size(), 3u);
  for (const auto& name : blobs) {
    const fs::path file = path_ + "/" + name;
    FlipByte(file, ReadWholeFile(file).find(Filler(5, 20000)) + 9000);
  }
  Open();
  for (const Table table : {Table::kText, Table::kIndex, Table::kBlocks}) {
    EXPECT_EQ(store_->Get(table, "105").status().code(), StatusCode::kDataLoss);
    EXPECT_EQ(*store_->Get(table, "106"), Filler(6, 20000)) << "its neighbour";
  }
}

// The keys of kBlocks and the locations of their values: RocksDB parses these bytes with
// assertions. Flipped at every fifth byte, they must give data_loss or have no effect. Without
// their checksums some of these flips end the process.
TEST_F(RocksDamageTest, DamagedKeysAreDataLossOrHaveNoEffect) {
  MakeAtRest();
  fs::path file;
  for (const auto& table : Files(path_, ".sst")) {
    const std::string bytes = ReadWholeFile(table);
    if (bytes.find(Filler(5, 500)) == std::string::npos &&
        bytes.find("blocks") != std::string::npos)
      file = table;
  }
  ASSERT_FALSE(file.empty());
  RocksOptions options = Options();
  options.read_only = true;
  int lost_count = 0;
  for (uint64_t at = 0; at < fs::file_size(file); at += 5) {
    FlipByte(file, at);
    const auto store = OpenRocksStore(options);
    for (int i = 0; i < 10; ++i) {
      const auto value =
          store.ok() ? (*store)->Get(Table::kBlocks, std::to_string(100 + i)) : store.status();
      if (value.ok()) {
        EXPECT_TRUE(*value == Filler(i, 20000)) << at;
      } else {
        EXPECT_EQ(value.status().code(), StatusCode::kDataLoss)
            << at << " " << value.status().ToString();
        ++lost_count;
      }
    }
    FlipByte(file, at);
  }
  EXPECT_GT(lost_count, 0);
}

#if defined(__x86_64__)
// RocksDB's own checksum runs in software, and reads and writes of blocks then wait for it.
TEST(RocksChecksum, UsesOurHardwareImplementation) {
  // the function that librocksdb's calls are bound to
  void* const used = dlsym(RTLD_DEFAULT, "_ZN7rocksdb6crc32c6ExtendEjPKcm");
  ASSERT_NE(used, nullptr);
  Dl_info where{};
  ASSERT_NE(dladdr(used, &where), 0);
  EXPECT_EQ(std::string(where.dli_fname).find("librocksdb"), std::string::npos) << where.dli_fname;
  const auto extend = reinterpret_cast<uint32_t (*)(uint32_t, const char*, size_t)>(used);
  EXPECT_EQ(extend(0, "123456789", 9), 0xe3069283u);
}
#endif

TEST_F(RocksDamageTest, AMissingOrShortFileIsDataLossAndNeverAMissingKey) {
  for (const std::string suffix : {".blob", ".sst", "CURRENT"}) {
    for (const bool cut : {false, true}) {
      for (const bool read_only : {false, true}) {
        MakeAtRest();
        for (const auto& file : Files(path_, suffix)) {
          if (cut) {
            fs::resize_file(file, fs::file_size(file) / 2);
          } else {
            fs::remove(file);
          }
        }
        RocksOptions options = Options();
        options.read_only = read_only;
        const auto store = OpenRocksStore(options);
        const Status status =
            store.ok() ? (*store)->Get(Table::kText, "109").status() : store.status();
        EXPECT_EQ(status.code(), StatusCode::kDataLoss)
            << suffix << (cut ? " cut" : " removed") << (read_only ? " reader: " : " writer: ")
            << status.ToString();
        fs::remove_all(path_);
      }
    }
  }
}

// To RocksDB a shortened manifest is an older state, and it removes that state's newer tables. At
// every length the store must refuse to open, or hold all data.
TEST_F(RocksDamageTest, ACutManifestIsRefusedOrHarmless) {
  MakeAtRest();
  const std::string image = dir_ / "image";
  fs::copy(path_, image);
  const std::string name = ReadWholeFile(image + "/CURRENT").substr(0, 15);
  int refused_count = 0;
  for (uint64_t bytes = fs::file_size(image + "/" + name); bytes > 3; bytes -= 3) {
    fs::resize_file(path_ + "/" + name, bytes);
    RocksOptions options = Options();
    options.read_only =
        bytes % 4 != 0;  // mostly so: an image opened for writing must be copied anew
    const auto store = OpenRocksStore(options);
    if (!store.ok()) {
      EXPECT_EQ(store.status().code(), StatusCode::kDataLoss) << store.status().ToString();
      ++refused_count;
    }
    for (const Table table : kTables) {
      for (int key = 0; store.ok() && key < 10; ++key)
        EXPECT_TRUE((*store)->Get(table, std::to_string(100 + key)).ok()) << bytes;
    }
    if (options.read_only) continue;
    fs::remove_all(path_);
    fs::copy(image, path_);
  }
  EXPECT_GT(refused_count, 100);
}

// If a log goes, batches acknowledged as synced must be reported missing. A machine crash may take
// the others.
TEST_F(RocksDamageTest, AMissingLogIsReportedIfItWasSynced) {
  Open();
  for (int i = 0; i < 10; ++i)
    ASSERT_TRUE(Put(Table::kMeta, std::to_string(100 + i), "value").ok());
  const std::string buffered = dir_ / "buffered", synced = dir_ / "synced";
  fs::copy(path_, buffered);
  WriteBatch batch;
  batch.Put(Table::kMeta, "a", "1");
  batch.Put(Table::kText, "b", "2");
  ASSERT_TRUE(store_->Write(std::move(batch), Durability::kSynced).ok());
  ASSERT_TRUE(Put(Table::kMeta, "later", "value").ok());
  fs::copy(path_, synced);
  for (const bool read_only : {true, false}) {
    RocksOptions options = Options();
    options.read_only = read_only;
    const auto open = [&](const std::string& path) {
      options.path = path;
      return OpenRocksStore(options).status();
    };
    for (const bool removed : {false, true}) {
      for (const auto& log : Files(synced, ".log"))
        removed ? static_cast<void>(fs::remove(log)) : fs::resize_file(log, 0);
      const Status status = open(synced);
      EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status.ToString();
      EXPECT_NE(status.message().find("SYNCED"), std::string::npos) << status.ToString();
    }
    for (const auto& log : Files(buffered, ".log")) fs::remove(log);
    EXPECT_TRUE(open(buffered).ok());
  }
  fs::remove(synced + "/SYNCED");
  Open(OptionsAt(synced));
  EXPECT_EQ(store_->Get(Table::kMeta, "a").status().code(), StatusCode::kNotFound)
      << "what is left";
}

// The SYNCED file, which guards the log, is damaged: then nobody can tell whether the log is whole.
// The file may even be the log itself under another name.
TEST_F(RocksDamageTest, ADamagedSyncedFileIsDataLoss) {
  Open();
  ASSERT_TRUE(Put(Table::kMeta, "a", "1").ok());
  WriteBatch batch;
  batch.Put(Table::kText, "b", "2");
  ASSERT_TRUE(store_->Write(std::move(batch), Durability::kSynced).ok());
  const std::string image = dir_ / "image", synced_file = image + "/SYNCED",
                    good = ReadWholeFile(path_ + "/SYNCED");
  ASSERT_EQ(good.size(), 16u);
  const auto open = [&](std::optional<std::string> bytes, bool read_only) {
    fs::remove_all(image);
    fs::copy(path_, image);
    if (bytes.has_value()) {
      std::ofstream(synced_file, std::ios::binary | std::ios::trunc) << *bytes;
    } else {
      const std::string log = Files(image, ".log").at(0), aside = dir_ / "aside";
      fs::rename(synced_file, aside);
      fs::rename(log, synced_file);
      fs::rename(aside, log);
    }
    RocksOptions options = OptionsAt(image);
    options.read_only = read_only;
    return OpenRocksStore(options).status();
  };
  for (const bool read_only : {true, false}) {
    EXPECT_TRUE(open(good, read_only).ok());
    for (size_t i = 0; i < good.size(); ++i) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ 4);
      const Status status = open(bad, read_only);
      EXPECT_EQ(status.code(), StatusCode::kDataLoss) << i;
      EXPECT_NE(status.message().find("SYNCED"), std::string::npos) << status.ToString();
      const std::string cut = good.substr(0, i);
      EXPECT_EQ(open(cut, read_only).ok(), cut.find_first_not_of('\0') == std::string::npos) << i;
    }
    EXPECT_EQ(open(std::nullopt, read_only).code(), StatusCode::kDataLoss)
        << "changed places with the log";
    EXPECT_TRUE(open(std::string(16, '\0'), read_only).ok())
        << "as a crash of the machine may leave a new file";
  }
}

// A directory from a stranger: nothing in it may be followed out of it, waited for, or read into
// memory however large it is.
TEST_F(RocksDamageTest, LinksPipesAndOversizedFilesAreRefusedAndCanBeRemoved) {
  const std::string outside = dir_ / "outside";
  for (const std::string name :
       {"CURRENT", "IDENTITY", "LOG", "WRITER", ".log", ".sst", ".blob", "OPTIONS-999999.dbtmp"}) {
    for (const std::string kind : {"link", "pipe", "large"}) {
      if (kind == "large" && name != "CURRENT" && name != "IDENTITY") continue;
      SCOPED_TRACE(name + " " + kind);
      MakeAtRest();
      const auto files = Files(path_, name);
      const fs::path file = files.empty() ? fs::path(path_ + "/" + name) : files[0];
      std::ofstream(outside) << "mine";
      if (kind != "large") fs::remove(file);
      if (kind == "link") fs::create_symlink(outside, file);
      if (kind == "pipe") {
        ASSERT_EQ(mkfifo(file.c_str(), 0600), 0);
      }
      if (kind == "large") fs::resize_file(file, uint64_t{1} << 40);  // a sparse file
      for (const bool read_only : {true, false}) {
        RocksOptions options = Options();
        options.read_only = read_only;
        const Status status = OpenRocksStore(options).status();
        EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status.ToString();
        EXPECT_NE(status.message().find(file.filename()), std::string::npos) << status.ToString();
      }
      EXPECT_EQ(ReadWholeFile(outside), "mine");
      if (name == "WRITER" && kind == "link") fs::remove(file);  // a link cannot be locked
      const Status removed = RemoveRocksStore(path_);
      EXPECT_TRUE(removed.ok()) << removed.ToString();
      EXPECT_EQ(ReadWholeFile(outside), "mine");
      EXPECT_FALSE(fs::exists(path_));
    }
  }
}

// The log as kill -9 leaves it, copied while the writer is idle. After a flipped byte the store
// must refuse to open, or hold the first n batches for some n. Only a damaged tail may be taken for
// a torn tail.
TEST_F(RocksDamageTest, ADamagedLogIsRefusedOrLosesOnlyItsTail) {
  Open();
  constexpr int kBatches = 40;
  for (int i = 0; i < kBatches; ++i)
    ASSERT_TRUE(Put(Table::kMeta, std::to_string(100 + i), Filler(i, 5000)).ok());
  const std::string image = dir_ / "image";
  fs::copy(path_, image);
  store_.reset();
  const auto logs = Files(image, ".log");
  ASSERT_EQ(logs.size(), 1u);
  const uint64_t log_bytes = fs::file_size(logs[0]);
  ASSERT_GT(log_bytes, uint64_t{kBatches} * 5000);
  int refused_count = 0, tail_lost_count = 0;
  std::mt19937_64 random(1);
  for (int i = 0; i < 30; ++i) {
    fs::remove_all(path_);
    fs::copy(image, path_);
    const uint64_t offset = i < 20 ? random() % log_bytes : log_bytes - 1 - (i - 20);
    FlipByte(path_ + "/" + logs[0].filename().string(), offset);
    const auto store = OpenRocksStore(Options());
    if (!store.ok()) {
      ASSERT_EQ(store.status().code(), StatusCode::kDataLoss) << store.status().ToString();
      ++refused_count;
      continue;
    }
    int seen_count = 0;
    ASSERT_TRUE((*store)
                    ->Scan(Table::kMeta, "", "z",
                           [&](std::string_view key, std::string_view value) {
                             EXPECT_EQ(key, std::to_string(100 + seen_count));
                             EXPECT_TRUE(value == Filler(seen_count, 5000));
                             return ++seen_count > 0;
                           })
                    .ok());
    if (seen_count < kBatches) ++tail_lost_count;
    if (offset < log_bytes - (64 << 10)) {
      ADD_FAILURE() << "damage at " << offset << " of " << log_bytes << " accepted, " << seen_count
                    << " batches";
    }
  }
  std::cout << "refused " << refused_count << ", tail lost " << tail_lost_count << " of 30\n";
}

TEST_F(RocksDamageTest, ADamagedManifestIsRefusedOrHarmless) {
  MakeAtRest();
  const std::string image = dir_ / "image";
  fs::copy(path_, image);
  const auto manifest = fs::path(image).append(ReadWholeFile(image + "/CURRENT").substr(0, 15));
  const uint64_t bytes = fs::file_size(manifest);
  int refused_count = 0, lost_count = 0, fine_count = 0;
  for (int i = 0; i < 30; ++i) {
    fs::remove_all(path_);
    fs::copy(image, path_);
    FlipByte(path_ + "/" + manifest.filename().string(), bytes * i / 30);
    const auto store = OpenRocksStore(Options());
    if (!store.ok()) {
      EXPECT_EQ(store.status().code(), StatusCode::kDataLoss) << store.status().ToString();
      ++refused_count;
      continue;
    }
    bool lost = false;
    for (const Table table : kTables) {
      for (int key = 0; key < 10; ++key)
        lost = lost || !(*store)->Get(table, std::to_string(100 + key)).ok();
    }
    ++(lost ? lost_count : fine_count);
  }
  std::cout << "refused " << refused_count << ", silently lost " << lost_count << ", harmless "
            << fine_count << " of 30\n";
  EXPECT_EQ(lost_count, 0);
}

}  // namespace
}  // namespace longhold
