#include "store/rocks_store.h"

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "base/crc32c.h"
#include "store/rocks_files.h"
#include "store/sync_mark.h"

#if defined(__x86_64__)
namespace rocksdb::crc32c {

// RocksDB's checksum of logs and blob files. Debian builds RocksDB without SSE 4.2. Its checksum
// then runs at 1 GB/s and takes longer than everything else about reading a block (docs/figures.md,
// "Checksums of reads").
//
// The dynamic linker prefers this definition in the program to the one in librocksdb, just as it
// prefers a program's malloc to libc's. If it did not, everything would still work, but slower.
// RocksDB's header for this is not installed
uint32_t Extend(uint32_t before, const char* data, size_t size);
uint32_t Extend(uint32_t before, const char* data, size_t size) {
  return longhold::Crc32c({data, size}, before);
}

}  // namespace rocksdb::crc32c
#endif

namespace longhold {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTableNames[kTableCount] = {"meta", "text", "index", "blocks"};

constexpr uint64_t kWalBytesMax = 256ull << 20;
constexpr uint64_t kBlobFileBytes = 256ull << 20;
constexpr uint64_t kBlobValueBytesMin = 4096;
constexpr int kOpenFilesMax = 512;
// The free disk space is checked once per this many written bytes.
constexpr uint64_t kDiskCheckBytes = 8ull << 20;
// A batch that deletes and puts at most this much is exempt from the reserve: forgetting must work
// on a full disk.
constexpr uint64_t kSmallBatchBytes = 64ull << 10;
// How often a reader retries if it finds the writer in the middle of a change.
constexpr int kReaderAttemptsMax = 50;
constexpr std::chrono::milliseconds kReaderPause{20};

// Converts RocksDB's status to ours. `doing` names the operation and the path; RocksDB's message
// names the file. Must hold: !s.ok().
Status FromRocks(const std::string& doing, const std::string& path, const rocksdb::Status& s) {
  const std::string why = s.ToString();
  const auto says = [&](const char* words) { return why.find(words) != std::string::npos; };
  if (s.IsNotFound()) return NotFound(doing + ": no such key");
  if (s.IsMemoryLimit()) return ResourceExhausted(doing + ": " + why);
  // RocksDB sets a subcode for some errors only. The others contain strerror's text, in
  // the C locale.
  if (s.IsNoSpace() || says(std::strerror(ENOSPC)) || says(std::strerror(EFBIG)) ||
      says(std::strerror(EDQUOT))) {
    return DiskFull(doing, path, why);
  }
  if (says(std::strerror(EMFILE)) || says(std::strerror(ENFILE))) {
    return ResourceExhausted(doing + ": " + why + "; raise the limit of open files (ulimit -n)");
  }
  if (says(std::strerror(EACCES)) || says(std::strerror(EPERM)) || says(std::strerror(EROFS))) {
    return NoPermission(doing, why);
  }
  if (s.IsCorruption() || s.IsIOError()) return DataLoss(doing + ": " + why);
  if (s.IsBusy() || s.IsTryAgain() || s.IsShutdownInProgress() || s.IsTimedOut())
    return Unavailable(doing + ": " + why);
  return Internal(doing + ": " + why);
}

rocksdb::Slice ToSlice(std::string_view s) { return {s.data(), s.size()}; }
std::string_view ToView(const rocksdb::Slice& s) { return {s.data(), s.size()}; }

// Discards log messages. Readers must not log: their log would replace the writer's.
class NullLogger final : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char*, va_list) override {}
};

std::atomic<uint64_t> stalls{0};

class StallCounter final : public rocksdb::EventListener {
 public:
  void OnStallConditionsChanged(const rocksdb::WriteStallInfo& info) override {
    if (info.condition.cur != rocksdb::WriteStallCondition::kNormal) ++stalls;
  }
};

class RocksStore final : public ColdStore {
 public:
  explicit RocksStore(const RocksOptions& options) : options_(options) {}

  ~RocksStore() override {
    // Empties the log, so that the next open is quick and readers need not replay it.
    if (db_ != nullptr && sync_mark_.has_value() && Failure().ok()) {
      const uint64_t last = db_->GetLatestSequenceNumber();
      const Status flushed = Guarded("close " + Name(), [&] { return FlushAll(); });
      if (flushed.ok()) sync_mark_->Raise(last);  // otherwise the log still has everything
    }
    CloseDatabase();
  }

  // Must hold: called once, before anything else.
  Status Open() {
    return Guarded("open " + Name(),
                   [&] { return options_.read_only ? OpenForReading() : OpenForWriting(); });
  }

  Status Write(WriteBatch batch, Durability durability) override {
    if (options_.read_only)
      return FailedPrecondition("write " + Name() + ": it was opened read-only");
    return Guarded("write " + Name(), [&]() -> Status {
      LH_RETURN_IF_ERROR(Failure());
      LH_RETURN_IF_ERROR(CheckDisk(batch));
      std::shared_lock lock(mutex_);
      LH_RETURN_IF_ERROR(CheckOpen());
      rocksdb::WriteBatch rocks_batch = ToRocks(&batch);
      rocksdb::WriteOptions write;
      write.sync = durability == Durability::kSynced;
      // Computed before Write: other threads may write meanwhile, so it is never above this batch's
      // last sequence number.
      const uint64_t last = db_->GetLatestSequenceNumber() + rocks_batch.Count();
      const rocksdb::Status s = db_->Write(write, &rocks_batch);
      if (s.ok() && write.sync) sync_mark_->Raise(last);
      if (s.ok()) return OkStatus();
      const Status failure = FromRocks("write " + Name(), options_.path, s);
      SetFailure(failure);
      return failure;
    });
  }

  Result<std::string> Get(Table table, std::string_view key) override {
    std::shared_lock lock(mutex_);
    return GetLocked(table, key);
  }

  // One Get per key. Each is one pread of a whole value, so RocksDB's MultiGet could not merge
  // anything, and it would hold all values twice.
  std::vector<Result<std::string>> MultiGet(Table table,
                                            const std::vector<std::string>& keys) override {
    std::shared_lock lock(mutex_);
    std::vector<Result<std::string>> results;
    results.reserve(keys.size());
    for (const auto& key : keys) results.push_back(GetLocked(table, key));
    return results;
  }

  Status Scan(Table table, std::string_view begin, std::string_view end,
              const std::function<bool(std::string_view, std::string_view)>& visit) override {
    if (begin >= end) return OkStatus();
    std::shared_lock lock(mutex_);
    LH_RETURN_IF_ERROR(CheckOpen());
    return Guarded("scan " + Name(table), [&]() -> Status {
      const rocksdb::Slice upper = ToSlice(end);
      rocksdb::ReadOptions read;
      read.iterate_upper_bound = &upper;
      read.fill_cache = false;
      const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(read, Family(table)));
      for (it->Seek(ToSlice(begin)); it->Valid(); it->Next()) {
        if (!visit(ToView(it->key()), ToView(it->value()))) return OkStatus();
      }
      if (it->status().ok()) return OkStatus();
      return ReadError("scan " + Name(table), it->status());
    });
  }

  Status Reclaim(Table table) override {
    const std::string doing = "reclaim room of " + Name(table);
    if (options_.read_only) return FailedPrecondition(doing + ": it was opened read-only");
    std::lock_guard one_at_a_time(compact_mutex_);
    return Guarded(doing, [&] { return WhenFlushed([&] { return CompactKeys(table); }); });
  }

  Status Compact() override {
    const std::string doing = "compact " + Name();
    if (options_.read_only) return FailedPrecondition(doing + ": it was opened read-only");
    std::lock_guard one_at_a_time(compact_mutex_);
    return Guarded(doing, [&]() -> Status {
      LH_RETURN_IF_ERROR(WhenFlushed([&]() -> Status {
        for (int table = 0; table < kTableCount; ++table)
          LH_RETURN_IF_ERROR(CompactTable(static_cast<Table>(table)));
        return OkStatus();
      }));
      std::unique_lock lock(mutex_);
      // The manifest still contains deleted keys, as bounds of dead files. Reopening writes a new
      // manifest and removes the old one.
      CloseDatabase();
      const Status opened = OpenDatabase(0);
      if (!opened.ok()) SetFailure(opened);
      return opened;
    });
  }

  Result<uint64_t> DiskBytes() override {
    std::error_code error;
    uint64_t bytes = 0;
    for (fs::directory_iterator it(options_.path, error), end; !error && it != end;
         it.increment(error)) {
      std::error_code gone;  // files may appear and disappear meanwhile
      const auto size = it->file_size(gone);
      if (!gone) bytes += size;
    }
    if (error) return FromErrno("measure " + Name(), options_.path, error.value());
    return bytes;
  }

  Result<uint64_t> TableBytes(Table table) override {
    std::shared_lock lock(mutex_);
    LH_RETURN_IF_ERROR(CheckOpen());
    return Guarded("measure " + Name(table), [&]() -> Result<uint64_t> {
      rocksdb::ColumnFamilyMetaData meta;
      db_->GetColumnFamilyMetaData(Family(table), &meta);
      return meta.size + meta.blob_file_size;
    });
  }

 private:
  std::string Name() const { return "memory store " + options_.path; }
  std::string Name(Table table) const {
    return Name() + " (" + kTableNames[static_cast<int>(table)] + ")";
  }

  // ---- Opening and closing

  Status OpenForWriting() {
    const std::string doing = "open " + Name();
    std::error_code error;
    if (options_.create_if_missing) fs::create_directories(options_.path, error);
    if (error) return FromErrno(doing, options_.path, error.value());
    LH_RETURN_IF_ERROR(CheckFiles(options_.path));
    LH_ASSIGN_OR_RETURN(const DirectoryState state, DirectoryState::Of(options_.path));
    if (state.manifest.empty()) {
      // RocksDB would create a new database and remove the files that it does not know.
      if (state.has_data)
        return DataLoss(doing + ": the file CURRENT is missing; restore it or import a copy");
      if (!options_.create_if_missing) return NotFound(doing + ": it does not exist");
      if (const uint64_t free = FreeBytes(options_.path); free < options_.disk_reserve_bytes) {
        return DiskFull(doing, options_.path,
                        "less than the reserve of " + std::to_string(options_.disk_reserve_bytes));
      }
    }
    LH_RETURN_IF_ERROR(writer_lock_.Take(options_.path));
    LH_ASSIGN_OR_RETURN(const uint64_t synced, Synced());
    LH_RETURN_IF_ERROR(OpenDatabase(synced));
    sync_mark_.emplace(options_.path);
    return OkStatus();
  }

  // RocksDB reads the manifest first, then the logs that the manifest does not cover. If a writer
  // flushes in between, it moves data from a log to a table that this reader does not know, and
  // removes the log. The reader would miss that data silently. So the result counts only if no log
  // disappeared meanwhile. (Logs are removed oldest first, so a log that appeared and disappeared
  // meanwhile would have taken the older ones with it.)
  Status OpenForReading() {
    const std::string doing = "open " + Name();
    LH_RETURN_IF_ERROR(CheckFiles(options_.path));
    Status opened = Unavailable(doing + ": the writer is changing it; try again");
    for (int attempt = 0; attempt < kReaderAttemptsMax; ++attempt) {
      if (attempt > 0) std::this_thread::sleep_for(kReaderPause);
      LH_ASSIGN_OR_RETURN(const DirectoryState before, DirectoryState::Of(options_.path));
      if (before.manifest.empty()) {
        if (before.has_data)
          return DataLoss(doing + ": the file CURRENT is missing; restore it or import a copy");
        return NotFound(doing + ": it does not exist");
      }
      // Read before opening: this reader need not see what is synced later.
      LH_ASSIGN_OR_RETURN(const uint64_t synced, Synced());
      opened = OpenDatabase(synced);
      LH_ASSIGN_OR_RETURN(const DirectoryState after, DirectoryState::Of(options_.path));
      const bool kept_logs = before.manifest == after.manifest &&
                             std::includes(after.logs.begin(), after.logs.end(),
                                           before.logs.begin(), before.logs.end());
      if (opened.ok() && kept_logs) {
        state_at_open_ = before;
        return opened;
      }
      if (!opened.ok() && before == after) return opened;
      CloseDatabase();
      if (opened.ok()) opened = Unavailable(doing + ": the writer is changing it; try again");
    }
    return opened;
  }

  Result<uint64_t> Synced() const {
    const Result<uint64_t> synced = ReadSyncMark(options_.path);
    return synced.ok() ? synced
                       : Status(synced.status().code(),
                                "open " + Name() + ": " + synced.status().message());
  }

  // Must hold: db_ == nullptr, and a writer holds the lock. `synced` is the sequence number that
  // the store must have reached.
  Status OpenDatabase(uint64_t synced) {
    const std::string doing = "open " + Name();
    std::vector<rocksdb::ColumnFamilyDescriptor> descriptors;
    // RocksDB requires this column family; we do not use it.
    descriptors.emplace_back(rocksdb::kDefaultColumnFamilyName, FamilyOptions(Table::kMeta));
    for (int table = 0; table < kTableCount; ++table) {
      descriptors.emplace_back(kTableNames[table], FamilyOptions(static_cast<Table>(table)));
    }
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* db = nullptr;
    const rocksdb::Status s =
        options_.read_only
            ? rocksdb::DB::OpenForReadOnly(DatabaseOptions(), options_.path, descriptors, &handles,
                                           &db)
            : rocksdb::DB::Open(DatabaseOptions(), options_.path, descriptors, &handles, &db);
    const auto incomplete = [&](const std::string& what) {
      return DataLoss(doing + ": the last writes are missing (" + what +
                      "), because a log or manifest was removed or truncated; restore it or "
                      "import a copy, or remove the file " +
                      kSyncMarkName + " in it to go on with the data that is left");
    };
    if (s.IsInvalidArgument() && synced > 0) return incomplete(s.ToString());
    if (s.IsInvalidArgument()) {
      return FailedPrecondition(
          doing + ": not a store of this version of longhold, or its creation was interrupted: " +
          s.ToString());
    }
    if (!s.ok()) return FromRocks(doing, options_.path, s);
    db_.reset(db);
    families_ = std::move(handles);
    const uint64_t last = db_->GetLatestSequenceNumber();
    return last >= synced ? OkStatus()
                          : incomplete("it has " + std::to_string(last) + " of " +
                                       std::to_string(synced) + " changes");
  }

  void CloseDatabase() {
    if (db_ == nullptr) return;
    try {
      for (auto* family : families_) static_cast<void>(db_->DestroyColumnFamilyHandle(family));
      families_.clear();
      static_cast<void>(db_->Close());
      // Nothing can be lost here: acknowledged data is in the log.
    } catch (const std::exception&) {
    }
    db_.reset();
  }

  rocksdb::DBOptions DatabaseOptions() const {
    rocksdb::DBOptions db;
    db.listeners.push_back(std::make_shared<StallCounter>());
    db.create_if_missing = !options_.read_only && options_.create_if_missing;
    db.create_missing_column_families = !options_.read_only;
    // Not -1: with -1, a read-only database of fully compacted blobs answers NotFound to every
    // key (RocksDB 7.8.3).
    db.max_open_files = kOpenFilesMax;
    // kill -9 leaves a torn tail of the log, which is tolerated. Damage anywhere else fails the
    // open; otherwise RocksDB would drop everything after it.
    db.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
    db.track_and_verify_wals_in_manifest = true;
    db.paranoid_checks = true;
    db.max_total_wal_size = kWalBytesMax;
    db.recycle_log_file_num = 0;  // a recycled log would keep deleted bytes
    db.db_write_buffer_size = options_.write_buffers_bytes_max;
    db.max_background_jobs = 2;
    db.max_subcompactions = 1;
    // After a failed write, nothing is written until the store is opened again.
    db.max_bgerror_resume_count = 0;
    // Spreads the writeback of a flush, so that its fsync does not stall the next flush.
    db.bytes_per_sync = 4 << 20;
    db.skip_stats_update_on_db_open = true;
    db.stats_dump_period_sec = 0;
    db.stats_persist_period_sec = 0;
    db.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
    db.keep_log_file_num = 1;
    db.max_log_file_size = 1 << 20;
    if (options_.read_only) db.info_log = std::make_shared<NullLogger>();
    return db;
  }

  rocksdb::ColumnFamilyOptions FamilyOptions(Table table) const {
    rocksdb::ColumnFamilyOptions family;
    family.write_buffer_size = options_.write_buffer_bytes;
    family.max_write_buffer_number = 2;
    family.compression = rocksdb::kNoCompression;
    family.bottommost_compression = rocksdb::kDisableCompressionOption;
    family.paranoid_file_checks = true;  // reads back the keys only, not the blobs: cheap
    rocksdb::BlockBasedTableOptions format;
    format.block_cache = block_cache_;
    format.checksum = rocksdb::kXXH3;
    family.table_factory.reset(rocksdb::NewBlockBasedTableFactory(format));
    if (table != Table::kMeta) {
      family.enable_blob_files = true;
      family.min_blob_size = kBlobValueBytesMin;
      family.blob_file_size = kBlobFileBytes;
      family.blob_compression_type = rocksdb::kNoCompression;
      family.enable_blob_garbage_collection = false;  // Compact collects garbage on demand
    }
    return family;
  }

  // ---- Writing

  static size_t BytesOf(const WriteBatch& batch) {
    size_t bytes = 0;
    for (const auto& change : batch.changes())
      bytes += change.key.size() + change.value.size() + 32;
    return bytes;
  }

  // Empties `batch` as it goes, so that a large value exists twice only while it is copied.
  rocksdb::WriteBatch ToRocks(WriteBatch* batch) const {
    rocksdb::WriteBatch out(BytesOf(*batch) + 64);
    for (auto& change : batch->changes()) {
      auto* family = Family(change.table);
      // These calls fail only for keys or batches above 4 GiB.
      switch (change.kind) {
        case WriteBatch::Change::Kind::kPut:
          LH_CHECK(out.Put(family, change.key, change.value).ok());
          break;
        case WriteBatch::Change::Kind::kDelete:
          LH_CHECK(out.Delete(family, change.key).ok());
          break;
        case WriteBatch::Change::Kind::kDeleteRange:
          // RocksDB rejects a backward range only after it has logged the batch.
          if (change.key < change.value)
            LH_CHECK(out.DeleteRange(family, change.key, change.value).ok());
          break;
      }
      std::string().swap(change.value);
    }
    return out;
  }

  Status CheckDisk(const WriteBatch& batch) {
    const uint64_t bytes = BytesOf(batch);
    if (bytes > (uint64_t{1} << 31)) {
      return InvalidArgument("write " + Name() + ": a batch of " + std::to_string(bytes) +
                             " bytes; the limit is 2 GiB");
    }
    const auto deletes = [](const WriteBatch::Change& c) {
      return c.kind != WriteBatch::Change::Kind::kPut;
    };
    if (bytes <= kSmallBatchBytes &&
        std::any_of(batch.changes().begin(), batch.changes().end(), deletes)) {
      return OkStatus();
    }
    if (unchecked_bytes_.fetch_add(bytes) + bytes < kDiskCheckBytes) return OkStatus();
    const uint64_t free = FreeBytes(options_.path);
    if (free >= options_.disk_reserve_bytes && free - options_.disk_reserve_bytes >= bytes) {
      unchecked_bytes_ = 0;
      return OkStatus();
    }
    unchecked_bytes_ = kDiskCheckBytes;  // check again at the next write
    return ResourceExhausted(
        "write " + Name() + ": " + std::to_string(free) + " bytes are free, but " +
        std::to_string(bytes) + " are needed and " + std::to_string(options_.disk_reserve_bytes) +
        " are kept in reserve; nothing was written: free some space and try again");
  }

  // Must hold: mutex_ is held, db_ is open.
  Status FlushAll() {
    const std::vector<rocksdb::ColumnFamilyHandle*> tables(families_.begin() + 1, families_.end());
    for (auto* family : tables) {  // one by one, to avoid parallel flushes
      const rocksdb::Status s = db_->Flush(rocksdb::FlushOptions(), family);
      if (!s.ok()) {
        const Status failure = FromRocks("flush " + Name(), options_.path, s);
        SetFailure(failure);
        return failure;
      }
    }
    return OkStatus();
  }

  // Flushes everything that was written, then runs `work` on the files. Reads and writes
  // go on meanwhile.
  template <typename Work>
  Status WhenFlushed(Work work) {
    std::shared_lock lock(mutex_);
    LH_RETURN_IF_ERROR(CheckOpen());
    LH_RETURN_IF_ERROR(Failure());
    LH_RETURN_IF_ERROR(FlushAll());
    return work();
  }

  static rocksdb::CompactRangeOptions KeysOnly() {
    rocksdb::CompactRangeOptions compact;
    compact.exclusive_manual_compaction = true;
    compact.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForce;
    compact.blob_garbage_collection_policy = rocksdb::BlobGarbageCollectionPolicy::kDisable;
    return compact;
  }
  // Rewrites the keys, and the small values that are stored with them.
  Status CompactKeys(Table table) {
    const rocksdb::Status s = db_->CompactRange(KeysOnly(), Family(table), nullptr, nullptr);
    return s.ok() ? OkStatus() : FailCompact("compact " + Name(table), s);
  }
  // First compacts the keys. This determines how much of each blob file is garbage, and removes
  // blob files that contain nothing else. Then rewrites the values, from the oldest blob file up to
  // the newest one with garbage. Without garbage, the values stay where they are.
  Status CompactTable(Table table) {
    const std::string doing = "compact " + Name(table);
    LH_RETURN_IF_ERROR(CompactKeys(table));

    rocksdb::ColumnFamilyMetaData meta;
    db_->GetColumnFamilyMetaData(Family(table), &meta);
    size_t dirty_count = 0;  // files to rewrite, oldest first
    uint64_t live_bytes = 0, dirty_live_bytes = 0;
    for (size_t i = 0; i < meta.blob_files.size(); ++i) {
      const auto& file = meta.blob_files[i];
      live_bytes += file.total_blob_bytes - file.garbage_blob_bytes;
      if (file.garbage_blob_count == 0) continue;
      dirty_count = i + 1;
      dirty_live_bytes = live_bytes;
    }
    if (dirty_count == 0) return OkStatus();
    const uint64_t free = FreeBytes(options_.path);
    if (free < dirty_live_bytes) {
      return ResourceExhausted(doing + ": needs " + std::to_string(dirty_live_bytes) +
                               " bytes temporarily, but only " + std::to_string(free) +
                               " are free; nothing is lost: free some space and try again");
    }
    rocksdb::CompactRangeOptions compact = KeysOnly();
    compact.blob_garbage_collection_policy = rocksdb::BlobGarbageCollectionPolicy::kForce;
    // RocksDB uses the integer part of cutoff * files.
    compact.blob_garbage_collection_age_cutoff =
        std::min(1.0, (static_cast<double>(dirty_count) + 0.5) /
                          static_cast<double>(meta.blob_files.size()));
    const rocksdb::Status s = db_->CompactRange(compact, Family(table), nullptr, nullptr);
    return s.ok() ? OkStatus() : FailCompact(doing, s);
  }

  Status FailCompact(const std::string& doing, const rocksdb::Status& s) {
    const Status failure = FromRocks(doing, options_.path, s);
    SetFailure(failure);
    return failure;
  }

  // ---- Reading

  // Must hold: mutex_ is held.
  Result<std::string> GetLocked(Table table, std::string_view key) {
    LH_RETURN_IF_ERROR(CheckOpen());
    const std::string doing = "read " + Name(table);
    return Guarded(doing, [&]() -> Result<std::string> {
      std::string value;
      const rocksdb::Status s =
          db_->Get(rocksdb::ReadOptions(), Family(table), ToSlice(key), &value);
      if (!s.ok()) return ReadError(doing, s);
      return value;
    });
  }

  // The writer may remove a reader's files. That is no damage, unless the writer
  // has changed nothing.
  Status ReadError(const std::string& doing, const rocksdb::Status& s) const {
    if (options_.read_only && !s.IsNotFound() &&
        s.ToString().find(std::strerror(ENOENT)) != std::string::npos) {
      const auto now = DirectoryState::Of(options_.path);
      if (now.ok() && !(*now == state_at_open_)) {
        return Unavailable(
            doing + ": the writer has removed a file since this store was opened; open it again");
      }
    }
    return FromRocks(doing, options_.path, s);
  }

  rocksdb::ColumnFamilyHandle* Family(Table table) const {
    return families_[1 + static_cast<size_t>(table)];
  }

  // ---- State

  Status CheckOpen() {
    if (db_ != nullptr) return OkStatus();
    return Failure();  // Compact could not reopen it
  }

  // The first failed write ends all writing. What reached the log is unknown until the store is
  // opened again and the log replayed.
  void SetFailure(const Status& failure) {
    std::lock_guard lock(failure_mutex_);
    if (failure_.ok()) failure_ = failure;
  }
  Status Failure() {
    std::lock_guard lock(failure_mutex_);
    return failure_;
  }

  const RocksOptions options_;
  const std::shared_ptr<rocksdb::Cache> block_cache_ = rocksdb::NewLRUCache(options_.cache_bytes);
  WriterLock writer_lock_;
  std::optional<SyncMark> sync_mark_;  // set for a writer whose store is complete
  DirectoryState state_at_open_;       // set for a reader

  // Lock order: compact_mutex_, mutex_, failure_mutex_. Every use of the database holds mutex_
  // shared; Compact holds it exclusively while it closes and reopens. A Scan's visitor takes it a
  // second time, which glibc's reader-preferring lock allows.
  std::mutex compact_mutex_;
  std::shared_mutex mutex_;
  std::unique_ptr<rocksdb::DB> db_;  // guarded by mutex_
  // "default", then one per Table; guarded by mutex_.
  std::vector<rocksdb::ColumnFamilyHandle*> families_;

  std::mutex failure_mutex_;
  Status failure_;  // guarded by failure_mutex_

  // Bytes written since the free space was last checked.
  std::atomic<uint64_t> unchecked_bytes_{kDiskCheckBytes};
};

}  // namespace

uint64_t RocksStalls() { return stalls; }

Result<std::unique_ptr<ColdStore>> OpenRocksStore(const RocksOptions& options) {
  auto store = std::make_unique<RocksStore>(options);
  LH_RETURN_IF_ERROR(store->Open());
  return std::unique_ptr<ColdStore>(std::move(store));
}

}  // namespace longhold
