#include "store/value_log.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <filesystem>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "base/durable_file.h"
#include "base/file_descriptor.h"
#include "base/hash.h"
#include "base/joined_thread.h"
#include "store/rocks_files.h"
#include "store/value_index.h"
#include "store/value_log_file.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffix = ".values";
// Share of the disk limit that values may fill. The rest is what cleaning needs: overwritten values
// and deletions that have not been removed yet. With a smaller rest the same values are copied more
// often: at most 1 / (1 - share) times in total.
constexpr double kLiveShare = 0.8;
constexpr uint64_t kLogFileBytesMax = 256ull << 20, kLogFileBytesMin = 512ull << 10;
constexpr uint64_t kLogFilesOfLimit = 32;
// Log files of the limit that stay free: two that are removed after the next sync, the one that is
// being cleaned, and the one that is being written.
constexpr uint64_t kSpareFiles = 4;
// A value may have this share of the limit.
constexpr uint64_t kValuesOfLimit = 16;
// Below the disk limit, overwritten values may take as much as the others, and this.
constexpr uint64_t kGarbageBytes = 1ull << 30;
// What one batch copies at most for garbage below the limit: this, and four times its own bytes.
constexpr uint64_t kCopyBytes = 1ull << 20;
// Changes and bytes that one call of pwritev writes. Each change takes two of at most IOV_MAX
// parts.
constexpr size_t kGroupChangesMax = 256;
constexpr uint64_t kGroupBytesMax = 8ull << 20, kGroupsOfLimit = 32;
// A log file gets a table of contents if that has at most this share of its bytes, and at most
// these bytes. The heads of smaller records are as quickly read from the log file itself.
constexpr uint64_t kTableOfFile = 16, kTableBytesMax = 4ull << 20;
// Disk space is allocated in such steps before it is written. So most writes do not change the size
// of the file, which is a change of the file system's journal: 10 us instead of 15 us for 64 KiB.
constexpr uint64_t kAllocateBytes = 16ull << 20;
// How often the thread that syncs hands new bytes to the disk, from so many on, without waiting. A
// sync then takes hundredths of a second instead of up to 0.7 s.
constexpr std::chrono::milliseconds kFlushPeriod{100};
constexpr uint64_t kFlushBytes = 4ull << 20;
// The free disk space is checked once per this many written bytes.
constexpr uint64_t kDiskCheckBytes = 8ull << 20;
// A value above this share of the RAM tier is not kept in it.
constexpr uint64_t kRamValues = 4;
// Contexts of sealed bytes. Behind the second follows the key, so a value cannot be moved to
// another.
constexpr std::string_view kSealedKey = "key", kSealedValue = "value of ";

struct LogFile {
  LogFile(uint64_t file_id, std::string file_path, int descriptor)
      : id(file_id), path(std::move(file_path)), fd(descriptor) {}
  const uint64_t id;
  const std::string path;
  const FileDescriptor fd;
  LogFileHead head;
  uint64_t head_bytes = 0;
  uint64_t bytes = 0;      // that were written; guarded by the log's mutex_
  uint64_t allocated = 0;  // of the file; guarded by the log's write_mutex_
};
// Shared by the log and by reads in progress: a log file may be removed meanwhile.
using LogFileRef = std::shared_ptr<LogFile>;

Status PwriteAll(int fd, std::span<iovec> parts, uint64_t offset) {
  while (!parts.empty()) {
    const int count = static_cast<int>(std::min<size_t>(parts.size(), IOV_MAX));
    ssize_t n = pwritev(fd, parts.data(), count, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FromErrno("write values", "", errno);
    offset += static_cast<uint64_t>(n);
    for (; !parts.empty() && static_cast<size_t>(n) >= parts[0].iov_len; parts = parts.subspan(1))
      n -= static_cast<ssize_t>(parts[0].iov_len);
    if (n > 0) {
      parts[0].iov_base = static_cast<char*>(parts[0].iov_base) + n;
      parts[0].iov_len -= static_cast<size_t>(n);
    }
  }
  return OkStatus();
}

Status PreadAll(int fd, char* data, size_t bytes, uint64_t offset) {
  for (size_t have = 0; have < bytes;) {
    const ssize_t n = pread(fd, data + have, bytes - have, static_cast<off_t>(offset + have));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FromErrno("read values", "", errno);
    if (n == 0) return DataLoss("read values: the file ends too early");
    have += static_cast<size_t>(n);
  }
  return OkStatus();
}

iovec PartOf(std::string_view bytes) {
  return {.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()};
}

class ValueLog final : public ValueStore {
 public:
  explicit ValueLog(const ValueLogOptions& options)
      : options_(options),
        disk_bytes_max_(std::max(options.disk_bytes_max, kValueDiskBytesMin)),
        ram_bytes_max_(options.ram_bytes_max) {}

  ~ValueLog() override {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    wake_sync_.notify_all();
    syncing_.reset();
    if (!files_.empty()) Trim();
  }

  Status Open() {
    if (const std::error_code ec = MakePrivateDirectory(options_.path); ec)
      return NoPermission("open values " + options_.path, ec.message());
    LH_RETURN_IF_ERROR(writer_lock_.Take(options_.path));
    LH_ASSIGN_OR_RETURN(const std::vector<uint64_t> ids, List());
    for (size_t i = 0; i < ids.size(); ++i)
      LH_RETURN_IF_ERROR(Load(ids[i], /*last=*/i + 1 == ids.size()));
    while (files_.size() > 1 && index_.First(files_.front()->id) == nullptr) DoomFirst();
    LH_RETURN_IF_ERROR(StartFileUnlessOpen());
    index_.ShrinkRam(ram_bytes_max_);
    syncing_.emplace([this] { Sync(); });
    return OkStatus();
  }

  ValuePlace Find(std::string_view key) override {
    const std::lock_guard lock(mutex_);
    ValueIndex::Entry* const entry = FindLive(key);
    if (entry == nullptr) {
      ++stats_.misses;
      return {};
    }
    index_.Touch(entry);
    if (entry->ram == nullptr)
      return {.where = ValuePlace::Where::kDisk, .bytes = entry->place.value_bytes, .value = {}};
    ++stats_.hits_ram;
    return {
        .where = ValuePlace::Where::kRam, .bytes = entry->place.value_bytes, .value = entry->ram};
  }

  ValuePlace Look(std::string_view key) override {
    const std::lock_guard lock(mutex_);
    ValueIndex::Entry* const entry = FindLive(key);
    if (entry == nullptr) return {};
    return {.where = ValuePlace::Where::kDisk, .bytes = entry->place.value_bytes, .value = {}};
  }

  Result<Value> Get(std::string_view key) override {
    LogPlace place;
    LogFileRef file;
    {
      const std::lock_guard lock(mutex_);
      ValueIndex::Entry* const entry = FindLive(key);
      if (entry == nullptr) {
        ++stats_.misses;
        return NotFound("no such value");
      }
      index_.Touch(entry);
      if (entry->ram != nullptr) {
        ++stats_.hits_ram;
        return entry->ram;
      }
      place = entry->place;
      file = FileOf(place.file);
    }
    Result<Value> value = Read(*file, place, key);
    const std::lock_guard lock(mutex_);
    ValueIndex::Entry* const entry = index_.Find(key);
    const bool same = entry != nullptr && entry->place == place;
    if (!value.ok()) {
      ++stats_.misses;
      if (value.status().code() != StatusCode::kDataLoss) return value;
      if (same) Damaged(entry, value.status());
      return NotFound("the value is damaged");
    }
    ++stats_.hits_disk;
    if (same && entry->ram == nullptr) Keep(entry, *value);
    return value;
  }

  Status Write(std::vector<ValueChange>& changes) override {
    for (const ValueChange& change : changes) {
      if (change.key.size() > kValueKeyBytesMax)
        return InvalidArgument("the key is longer than 64 KiB");
      if (change.value != nullptr && change.value->size() > ValueBytesMax())
        return InvalidArgument("the value is longer than " + std::to_string(ValueBytesMax()) +
                               " bytes, the most that this store takes");
    }
    const std::lock_guard writing(write_mutex_);
    const uint64_t group_bytes_max = std::min(kGroupBytesMax, disk_bytes_max_ / kGroupsOfLimit);
    std::span<ValueChange> rest = changes;
    while (!rest.empty()) {
      // Conditions see all changes before them, so each conditional change is a group of its own.
      size_t count = 1;
      uint64_t bytes = BytesOf(rest[0]);
      while (rest[0].when == ValueChange::When::kAlways && count < rest.size() &&
             count < kGroupChangesMax && rest[count].when == ValueChange::When::kAlways &&
             bytes + BytesOf(rest[count]) <= group_bytes_max)
        bytes += BytesOf(rest[count++]);
      LH_RETURN_IF_ERROR(WriteGroup(rest.first(count)));
      rest = rest.subspan(count);
    }
    return OkStatus();
  }

  uint64_t ValueBytesMax() const override {
    return std::min(kValueBytesMax, disk_bytes_max_ / kValuesOfLimit);
  }

  void Limit(uint64_t disk_bytes_max, uint64_t ram_bytes_max) override {
    disk_bytes_max_ = std::max(disk_bytes_max, kValueDiskBytesMin);
    ram_bytes_max_ = ram_bytes_max;
    const std::lock_guard lock(mutex_);
    index_.ShrinkRam(ram_bytes_max);
  }

  ValueStats Stats() const override {
    const std::lock_guard lock(mutex_);
    ValueStats stats = stats_;
    stats.keys = index_.keys();
    stats.keys_expiring = index_.keys_expiring();
    stats.value_bytes = index_.value_bytes();
    stats.ram_bytes = index_.ram_bytes();
    stats.disk_bytes = total_bytes_ + doomed_bytes_;
    stats.ram_bytes_max = ram_bytes_max_;
    stats.disk_bytes_max = disk_bytes_max_;
    return stats;
  }

 private:
  void Note(const std::string& text) const {
    if (options_.note) options_.note(text);
  }

  uint64_t LogFileBytes() const {
    return std::clamp(disk_bytes_max_ / kLogFilesOfLimit, kLogFileBytesMin, kLogFileBytesMax);
  }

  static uint64_t BytesOf(const ValueChange& change) {
    return kRecordHeadBytes + 2 * kSealExtraBytes + change.key.size() +
           (change.value == nullptr ? 0 : change.value->size());
  }

  // ---- The index. Requires: mutex_ is held.

  // Null if there is none, or if it has expired.
  ValueIndex::Entry* FindLive(std::string_view key) {
    ValueIndex::Entry* const entry = index_.Find(key);
    if (entry == nullptr || entry->place.expires_ms == 0 ||
        entry->place.expires_ms > options_.now_ms())
      return entry;
    ++stats_.expired;
    index_.Erase(entry);
    return nullptr;
  }

  void Keep(ValueIndex::Entry* entry, Value value) {
    if (value->size() > ram_bytes_max_ / kRamValues) return;
    index_.KeepInRam(entry, std::move(value));
    index_.ShrinkRam(ram_bytes_max_);
  }

  void Damaged(ValueIndex::Entry* entry, const Status& why) {
    ++stats_.damaged;
    const LogFileRef file = FileOf(entry->place.file);
    Note("values: " + file->path + " offset " + std::to_string(entry->place.offset) + ": " +
         why.message() + "; the value is gone, and its key is a miss");
    index_.Erase(entry);
  }

  void EvictOldest() {
    ValueIndex::Entry* const oldest = index_.Oldest();
    const int64_t expires = oldest->place.expires_ms;
    ++(expires != 0 && expires <= options_.now_ms() ? stats_.expired : stats_.evicted);
    index_.Erase(oldest);
  }

  LogFileRef FileOf(uint64_t id) const {
    const auto found =
        std::lower_bound(files_.begin(), files_.end(), id,
                         [](const LogFileRef& file, uint64_t sought) { return file->id < sought; });
    LH_CHECK(found != files_.end() && (*found)->id == id);
    return *found;
  }

  // ---- Reading

  // Reads and checks a value. Errors: data_loss; those of the disk.
  Result<Value> Read(const LogFile& file, const LogPlace& place, std::string_view key) const {
    auto stored = std::make_shared<ValueBytes>(place.stored_bytes);
    LH_RETURN_IF_ERROR(PreadAll(file.fd.get(), stored->data(), stored->size(), place.offset));
    if (Hash64(stored->view()) != place.hash) return DataLoss("checksum mismatch");
    if (!file.head.seal.has_value()) return Value(std::move(stored));
    LH_ASSIGN_OR_RETURN(
        const std::string plain,
        file.head.seal->Open(stored->view(), std::string(kSealedValue) + std::string(key)));
    return MakeValue(plain);
  }

  // ---- Writing. Requires: write_mutex_ is held, mutex_ is not.

  Status WriteGroup(std::span<ValueChange> group) {
    if (group[0].when != ValueChange::When::kAlways && group[0].value != nullptr) {
      const std::lock_guard lock(mutex_);
      const bool there = FindLive(group[0].key) != nullptr;
      if (there != (group[0].when == ValueChange::When::kIfPresent)) return OkStatus();
    }
    uint64_t bytes = 0;
    for (const ValueChange& change : group) bytes += BytesOf(change);
    LH_RETURN_IF_ERROR(CheckDisk(bytes));
    LH_RETURN_IF_ERROR(MakeRoom(bytes));
    std::vector<std::string> keys;  // as stored
    std::vector<Value> values;
    std::vector<RecordHead> heads;
    for (const ValueChange& change : group)
      LH_RETURN_IF_ERROR(Store(change, &keys, &values, &heads));
    LH_ASSIGN_OR_RETURN(std::vector<LogPlace> places, Append(heads, keys, values));
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < group.size(); ++i) {
      ValueChange& change = group[i];
      ValueIndex::Entry* const entry = FindLive(change.key);
      change.applied = change.value != nullptr || entry != nullptr;
      if (change.value == nullptr) {
        if (entry != nullptr) index_.Erase(entry);
        continue;
      }
      places[i].value_bytes = static_cast<uint32_t>(change.value->size());
      const bool keep = change.value->size() <= ram_bytes_max_ / kRamValues;
      index_.Put(change.key, places[i], keep ? change.value : nullptr);
      stats_.written_bytes += change.value->size();
    }
    while (index_.index_bytes() > ram_bytes_max_ / 2 && index_.keys() > 1) EvictOldest();
    index_.ShrinkRam(ram_bytes_max_);
    return OkStatus();
  }

  // Adds the change's head, its key and its value as the open log file stores them.
  Status Store(const ValueChange& change, std::vector<std::string>* keys,
               std::vector<Value>* values, std::vector<RecordHead>* heads) const {
    const std::optional<Seal>& seal = active().head.seal;
    std::string key = change.key;
    Value value = change.value;
    if (seal.has_value()) {
      LH_ASSIGN_OR_RETURN(key, seal->Close(change.key, kSealedKey));
      if (value != nullptr) {
        LH_ASSIGN_OR_RETURN(
            const std::string sealed,
            seal->Close(change.value->view(), std::string(kSealedValue) + change.key));
        value = MakeValue(sealed);
      }
    }
    RecordHead head{.key_bytes = static_cast<uint32_t>(key.size())};
    head.kind = value == nullptr ? RecordHead::Kind::kDelete : RecordHead::Kind::kPut;
    if (value != nullptr) {
      head.value_bytes = value->size();
      head.value_hash = Hash64(value->view());
      head.expires_ms = change.expires_ms;
    }
    heads->push_back(head);
    keys->push_back(std::move(key));
    values->push_back(std::move(value));
    return OkStatus();
  }

  // Writes the records to the end of the open log file, all of them or none. Returns their places,
  // without value_bytes.
  Result<std::vector<LogPlace>> Append(const std::vector<RecordHead>& heads,
                                       const std::vector<std::string>& keys,
                                       const std::vector<Value>& values) {
    LogFile& file = active();
    std::vector<std::string> fronts;
    fronts.reserve(heads.size());
    std::vector<iovec> parts;
    std::vector<LogPlace> places;
    uint64_t end = file.bytes;
    for (size_t i = 0; i < heads.size(); ++i) {
      fronts.push_back(EncodeRecordHead(heads[i], keys[i], file.head.nonce));
      parts.push_back(PartOf(fronts.back()));
      if (values[i] != nullptr && values[i]->size() > 0) parts.push_back(PartOf(values[i]->view()));
      places.push_back({.file = file.id,
                        .offset = end + fronts.back().size(),
                        .record_bytes = heads[i].record_bytes(),
                        .stored_bytes = static_cast<uint32_t>(heads[i].value_bytes),
                        .hash = heads[i].value_hash,
                        .expires_ms = heads[i].expires_ms});
      end += heads[i].record_bytes();
    }
    LH_RETURN_IF_ERROR(AppendBytes(parts, end - file.bytes));
    for (const std::string& front : fronts) AddToTable(front);
    return places;
  }

  Status AppendBytes(std::span<iovec> parts, uint64_t bytes) {
    LogFile& file = active();
    // If it is refused, the write finds out why.
    if (file.bytes + bytes > file.allocated) {
      const uint64_t more = std::max(bytes, std::min(kAllocateBytes, LogFileBytes()));
      if (fallocate(file.fd.get(), 0, static_cast<off_t>(file.bytes), static_cast<off_t>(more)) ==
          0)
        file.allocated = file.bytes + more;
    }
    const Status written = PwriteAll(file.fd.get(), parts, file.bytes);
    if (!written.ok()) {
      // What was written of it must not be taken for records when more follows.
      if (!Trim()) must_start_ = true;
      return Status(written.code(), written.message() + " (" + file.path + ")");
    }
    const std::lock_guard lock(mutex_);
    file.bytes += bytes;
    total_bytes_ += bytes;
    unsynced_.insert(files_.back());
    return OkStatus();
  }

  // Ends the open log file behind what was written. Returns whether that worked.
  bool Trim() {
    LogFile& file = active();
    file.allocated = 0;
    return ftruncate(file.fd.get(), static_cast<off_t>(file.bytes)) == 0;
  }

  void AddToTable(const std::string& front) {
    if (table_.size() + front.size() > kTableBytesMax) table_full_ = true;
    if (table_full_)
      table_ = std::string();
    else
      table_ += front;
  }

  Status CheckDisk(uint64_t bytes) {
    unchecked_bytes_ += bytes;
    if (unchecked_bytes_ < kDiskCheckBytes) return OkStatus();
    const uint64_t free = FreeBytes(options_.path);
    if (free < options_.disk_reserve_bytes + bytes)
      return DiskFull("write values", options_.path,
                      "less than the reserve of " + std::to_string(options_.disk_reserve_bytes) +
                          " bytes would stay free");
    unchecked_bytes_ = 0;
    return OkStatus();
  }

  // ---- Log files. Requires: write_mutex_ is held (or nobody else knows the log yet).

  LogFile& active() const { return *files_.back(); }

  std::string PathOf(uint64_t id) const {
    std::string number = std::to_string(id);
    number.insert(0, number.size() < 10 ? 10 - number.size() : 0, '0');
    return options_.path + "/" + number + std::string(kSuffix);
  }

  // Finishes the open log file, if any, and opens a new one.
  Status StartFile() {
    if (!files_.empty()) {
      FinishFile();
      must_start_ = true;  // also if no new one can be made: nothing may follow its table
    }
    const uint64_t id = files_.empty() ? next_id_ : std::max(next_id_, files_.back()->id + 1);
    const std::string path = PathOf(id);
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return FromErrno("make a log file of values", path, errno);
    auto file = std::make_shared<LogFile>(id, path, fd);
    std::string bytes;
    file->head = LogFileHead::Make(options_.master, options_.owner, &bytes);
    file->head_bytes = file->bytes = bytes.size();
    iovec part = PartOf(bytes);
    if (const Status written = PwriteAll(fd, {&part, 1}, 0); !written.ok()) {
      unlink(path.c_str());
      return written;
    }
    table_.clear();
    table_full_ = false;
    must_start_ = false;
    const std::lock_guard lock(mutex_);
    files_.push_back(file);
    total_bytes_ += file->bytes;
    unsynced_.insert(file);
    new_files_ = true;
    return OkStatus();
  }

  // Appends the table of contents. Without one the log file is read as a whole when it is opened,
  // so errors do not matter.
  void FinishFile() {
    AppendTable();
    (void)Trim();
  }

  void AppendTable() {
    const LogFile& file = active();
    if (table_full_ || must_start_ || table_.size() > file.bytes / kTableOfFile) return;
    const RecordHead head{.kind = RecordHead::Kind::kTable,
                          .value_bytes = table_.size(),
                          .value_hash = Hash64(table_)};
    const std::string front = EncodeRecordHead(head, "", file.head.nonce);
    const std::string end = EncodeTableEnd(file.bytes, file.head.nonce);
    iovec parts[] = {PartOf(front), PartOf(table_), PartOf(end)};
    (void)AppendBytes(parts, front.size() + table_.size() + end.size());
  }

  // Evicts and cleans until `bytes` more fit, and makes sure that the open log file takes them.
  Status MakeRoom(uint64_t bytes) {
    uint64_t copy_max = kCopyBytes + 4 * bytes;
    for (;;) {
      LogPlace place;
      std::string key;
      LogFileRef from;
      {
        std::unique_lock lock(mutex_);
        const auto live_max =
            static_cast<uint64_t>(static_cast<double>(disk_bytes_max_) * kLiveShare);
        while (index_.keys() > 0 && index_.live_bytes() + bytes > live_max) EvictOldest();
        // Files that wait for a sync still take space.
        while (doomed_bytes_ > 2 * LogFileBytes()) {
          if (sync_failed_) return Internal("write values: the disk cannot be synced");
          synced_.wait(lock);
        }
        ValueIndex::Entry* const first = index_.First(files_.front()->id);
        const uint64_t cleaned = first == nullptr ? files_.front()->bytes : first->place.offset;
        const uint64_t used = total_bytes_ - cleaned + bytes;
        const bool full = used + kSpareFiles * LogFileBytes() > disk_bytes_max_;
        const bool garbage = used > 2 * index_.live_bytes() + kGarbageBytes;
        const bool dead = first == nullptr && files_.size() > 1;
        if (!dead && !full && !(garbage && copy_max > 0)) break;
        if (files_.size() == 1) {
          // The open log file is the oldest: go on in another one, so that it can be cleaned.
          if (active().bytes == active().head_bytes) break;
        } else if (dead) {
          DoomFirst();
          continue;
        } else {
          place = first->place;
          key = *first->key;
          from = files_.front();
        }
      }
      if (from == nullptr) {
        LH_RETURN_IF_ERROR(StartFile());
        continue;
      }
      LH_RETURN_IF_ERROR(CopyForward(*from, place, key));
      copy_max -= std::min(copy_max, place.record_bytes);
    }
    return Takes(bytes) ? OkStatus() : StartFile();
  }

  // Whether `bytes` more may be appended to the open log file.
  bool Takes(uint64_t bytes) const {
    const LogFile& open = active();
    return !must_start_ && (open.bytes == open.head_bytes || open.bytes + bytes <= LogFileBytes());
  }

  // Copies a value to the end of the log. A damaged one is dropped.
  Status CopyForward(const LogFile& from, const LogPlace& place, const std::string& key) {
    if (!Takes(place.record_bytes)) LH_RETURN_IF_ERROR(StartFile());
    Result<Value> value = Read(from, place, key);
    if (!value.ok()) {
      if (value.status().code() != StatusCode::kDataLoss) return value.status();
      const std::lock_guard lock(mutex_);
      ValueIndex::Entry* const entry = index_.Find(key);
      if (entry != nullptr && entry->place == place) Damaged(entry, value.status());
      return OkStatus();
    }
    std::vector<std::string> keys;
    std::vector<Value> values;
    std::vector<RecordHead> heads;
    LH_RETURN_IF_ERROR(Store({.key = key, .value = *value, .expires_ms = place.expires_ms}, &keys,
                             &values, &heads));
    LH_ASSIGN_OR_RETURN(std::vector<LogPlace> places, Append(heads, keys, values));
    places[0].value_bytes = place.value_bytes;
    const std::lock_guard lock(mutex_);
    ValueIndex::Entry* const entry = index_.Find(key);
    if (entry != nullptr && entry->place == place) index_.Move(entry, places[0]);
    return OkStatus();
  }

  // The first log file is removed after the next sync: what replaced its values must be on the disk
  // before. Requires: mutex_ is held (or nobody else knows the log yet).
  void DoomFirst() {
    const LogFileRef first = files_.front();
    files_.pop_front();
    total_bytes_ -= first->bytes;
    doomed_bytes_ += first->bytes;
    unsynced_.erase(first);
    doomed_.push_back(first);
    wake_sync_.notify_all();
  }

  // ---- Opening

  Result<std::vector<uint64_t>> List() const {
    std::vector<uint64_t> ids;
    std::error_code ec;
    for (const auto& entry : fs::directory_iterator(options_.path, ec)) {
      const std::string name = entry.path().filename().string();
      if (!name.ends_with(kSuffix) || name.size() == kSuffix.size()) continue;
      uint64_t id = 0;
      const char* const end = name.data() + name.size() - kSuffix.size();
      const auto [stop, error] = std::from_chars(name.data(), end, id);
      if (error == std::errc() && stop == end && PathOf(id).ends_with("/" + name))
        ids.push_back(id);
    }
    if (ec) return FromErrno("open values", options_.path, ec.value());
    std::sort(ids.begin(), ids.end());
    return ids;
  }

  // Reads a log file into the index. The last one stays open for appending if it is not finished.
  Status Load(uint64_t id, bool last) {
    const std::string path = PathOf(id);
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return FromErrno("open a log file of values", path, errno);
    auto file = std::make_shared<LogFile>(id, path, fd);
    struct stat info {};
    if (fstat(fd, &info) != 0) return FromErrno("open a log file of values", path, errno);
    if (!S_ISREG(info.st_mode))
      return FailedPrecondition("values " + path + ": is not a regular file; remove it");
    next_id_ = id + 1;
    std::string front(std::min<uint64_t>(kLogFileHeadBytesMax, info.st_size), '\0');
    LH_RETURN_IF_ERROR(PreadAll(fd, front.data(), front.size(), 0));
    Result<LogFileHead> head =
        LogFileHead::Parse(front, options_.master, options_.owner, &file->head_bytes);
    if (!head.ok() && front.find_first_not_of('\0') == std::string::npos) {
      // A crash came between the making of the file and its first bytes.
      unlink(path.c_str());
      return OkStatus();
    }
    if (!head.ok() && head.status().code() == StatusCode::kDataLoss)
      return SetAside(path, head.status());
    if (!head.ok())
      return Status(head.status().code(), "values " + path + ": " + head.status().message());
    file->head = std::move(*head);
    table_.clear();
    table_full_ = false;
    const auto visit = [&](const RecordHead& record, std::string_view stored_key, uint64_t offset) {
      LoadRecord(*file, record, stored_key, offset);
    };
    LH_ASSIGN_OR_RETURN(const ScannedLogFile scanned,
                        ScanLogFile(fd, static_cast<uint64_t>(info.st_size), file->head_bytes,
                                    file->head.nonce, last, visit));
    file->bytes = last && !scanned.has_table ? scanned.end : static_cast<uint64_t>(info.st_size);
    // What a crash left behind the last whole record must not be taken for records later.
    if (last && ftruncate(fd, static_cast<off_t>(file->bytes)) != 0)
      return FromErrno("open a log file of values", path, errno);
    if (!last && !scanned.good_end) {
      Note("values: " + path + " offset " + std::to_string(scanned.end) +
           ": the record is damaged; it and those behind it are gone");
      ++stats_.damaged;
    }
    // If a later file turns out to be none, this one is the last after all. Its end was not
    // checked.
    must_start_ =
        !last || scanned.has_table || file->head.seal.has_value() == options_.master.empty();
    total_bytes_ += file->bytes;
    // A process that was killed may not have synced it.
    unsynced_.insert(file);
    new_files_ = true;
    files_.push_back(std::move(file));
    return OkStatus();
  }

  void LoadRecord(const LogFile& file, const RecordHead& record, std::string_view stored_key,
                  uint64_t offset) {
    std::string key(stored_key);
    if (file.head.seal.has_value()) {
      Result<std::string> opened = file.head.seal->Open(stored_key, kSealedKey);
      if (!opened.ok()) {
        ++stats_.damaged;
        return;
      }
      key = std::move(*opened);
    }
    AddToTable(EncodeRecordHead(record, stored_key, file.head.nonce));
    const uint64_t extra = file.head.seal.has_value() ? kSealExtraBytes : 0;
    ValueIndex::Entry* const entry = index_.Find(key);
    const bool expired = record.expires_ms != 0 && record.expires_ms <= options_.now_ms();
    if (record.kind == RecordHead::Kind::kDelete || expired || record.value_bytes < extra) {
      if (entry != nullptr) index_.Erase(entry);
      return;
    }
    index_.Put(key,
               {.file = file.id,
                .offset = offset + kRecordHeadBytes + record.key_bytes,
                .record_bytes = record.record_bytes(),
                .stored_bytes = static_cast<uint32_t>(record.value_bytes),
                .value_bytes = static_cast<uint32_t>(record.value_bytes - extra),
                .hash = record.value_hash,
                .expires_ms = record.expires_ms},
               nullptr);
    while (index_.index_bytes() > ram_bytes_max_ / 2 && index_.keys() > 1) EvictOldest();
  }

  Status SetAside(const std::string& path, const Status& why) {
    std::error_code ec;
    fs::rename(path, path + ".aside", ec);
    if (ec) return FromErrno("set a damaged log file aside", path, ec.value());
    ++stats_.damaged;
    Note("values: " + path + ": " + why.message() + "; it was renamed to " + path +
         ".aside, and its values are misses");
    return OkStatus();
  }

  Status StartFileUnlessOpen() { return files_.empty() || must_start_ ? StartFile() : OkStatus(); }

  // ---- Syncing: the thread of syncing_

  void Sync() {
    std::unique_lock lock(mutex_);
    auto next = std::chrono::steady_clock::now() + options_.sync_period;
    LogFileRef flushing;
    uint64_t flushed = 0;  // bytes of `flushing` that were handed to the disk
    for (bool last = false; !last;) {
      wake_sync_.wait_for(lock, std::min(options_.sync_period, kFlushPeriod),
                          [this] { return ending_ || (!doomed_.empty() && !sync_failed_); });
      last = ending_;
      if (!last && (doomed_.empty() || sync_failed_) && std::chrono::steady_clock::now() < next) {
        Flush(lock, &flushing, &flushed);
        continue;
      }
      next = std::chrono::steady_clock::now() + options_.sync_period;
      SyncNow(lock);
    }
  }

  // Hands what was written to the disk, without waiting for it. `lock`: of mutex_; it is released
  // meanwhile, here and in SyncNow.
  void Flush(std::unique_lock<std::mutex>& lock, LogFileRef* flushing, uint64_t* flushed) {
    if (files_.back() != *flushing) {
      *flushing = files_.back();
      *flushed = 0;
    }
    const uint64_t from = *flushed, bytes = (*flushing)->bytes - from;
    if (bytes < kFlushBytes) return;
    *flushed += bytes;
    lock.unlock();
    (void)sync_file_range((*flushing)->fd.get(), static_cast<off_t>(from),
                          static_cast<off_t>(bytes), SYNC_FILE_RANGE_WRITE);
    lock.lock();
  }

  void SyncNow(std::unique_lock<std::mutex>& lock) {
    const std::set<LogFileRef> dirty = std::exchange(unsynced_, {});
    const std::vector<LogFileRef> doomed = std::exchange(doomed_, {});
    const bool new_files = std::exchange(new_files_, false);
    if (dirty.empty() && doomed.empty() && !new_files) return;
    lock.unlock();
    const Status synced = SyncAll(dirty, new_files);
    if (synced.ok()) {
      for (const LogFileRef& file : doomed) unlink(file->path.c_str());
    } else {
      Note(synced.message() + "; what was written lately is not safe from a crash of the machine");
    }
    lock.lock();
    ++stats_.syncs;
    sync_failed_ = !synced.ok();
    if (synced.ok()) {
      for (const LogFileRef& file : doomed) doomed_bytes_ -= file->bytes;
    } else {
      // Tried again with the next sync.
      unsynced_.insert(dirty.begin(), dirty.end());
      // Before younger ones: a process that is killed in between must not leave an older file.
      doomed_.insert(doomed_.begin(), doomed.begin(), doomed.end());
      new_files_ = new_files_ || new_files;
    }
    synced_.notify_all();
  }

  Status SyncAll(const std::set<LogFileRef>& dirty, bool new_files) const {
    for (const LogFileRef& file : dirty) {
      if (fdatasync(file->fd.get()) != 0) return FromErrno("sync values", file->path, errno);
    }
    if (!new_files) return OkStatus();
    const FileDescriptor directory(open(options_.path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory.get() < 0 || fsync(directory.get()) != 0)
      return FromErrno("sync values", options_.path, errno);
    return OkStatus();
  }

  const ValueLogOptions options_;
  std::atomic<uint64_t> disk_bytes_max_, ram_bytes_max_;
  WriterLock writer_lock_;

  // One writer at a time. Lock order: write_mutex_, mutex_. mutex_ is never held across I/O.
  std::mutex write_mutex_;
  // Guarded by write_mutex_.
  uint64_t next_id_ = 1;
  uint64_t unchecked_bytes_ = kDiskCheckBytes;
  std::string table_;        // heads and keys of the open log file's records
  bool table_full_ = false;  // it would be too long
  bool must_start_ = false;  // nothing may be appended to the open log file

  mutable std::mutex mutex_;
  // Guarded by mutex_. files_ changes only under both locks, so a writer may read it under
  // write_mutex_ alone.
  ValueIndex index_;
  ValueStats stats_;
  std::deque<LogFileRef> files_;    // by id; the last one is open for appending
  uint64_t total_bytes_ = 0;        // of files_
  std::vector<LogFileRef> doomed_;  // to be removed after the next sync
  uint64_t doomed_bytes_ = 0;       // of these, and of those that the sync in progress removes
  std::set<LogFileRef> unsynced_;
  bool new_files_ = false, ending_ = false, sync_failed_ = false;
  std::condition_variable wake_sync_, synced_;

  std::optional<JoinedThread> syncing_;  // last, so that it ends first
};

}  // namespace

ValueStats& ValueStats::operator+=(const ValueStats& other) {
  for (uint64_t ValueStats::*const count :
       {&ValueStats::hits_ram, &ValueStats::hits_disk, &ValueStats::misses,
        &ValueStats::written_bytes, &ValueStats::evicted, &ValueStats::expired,
        &ValueStats::damaged, &ValueStats::keys, &ValueStats::keys_expiring,
        &ValueStats::value_bytes, &ValueStats::ram_bytes, &ValueStats::disk_bytes,
        &ValueStats::ram_bytes_max, &ValueStats::disk_bytes_max, &ValueStats::syncs})
    this->*count += other.*count;
  return *this;
}

Value MakeValue(std::string_view bytes) {
  auto value = std::make_shared<ValueBytes>(bytes.size());
  if (!bytes.empty()) std::memcpy(value->data(), bytes.data(), bytes.size());
  return value;
}

Result<std::unique_ptr<ValueStore>> OpenValueLog(const ValueLogOptions& options) {
  auto log = std::make_unique<ValueLog>(options);
  LH_RETURN_IF_ERROR(log->Open());
  return std::unique_ptr<ValueStore>(std::move(log));
}

}  // namespace longhold
