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
#include "store/value_segment.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSuffix = ".values";
// Share of the disk limit that values may fill. The rest is what cleaning needs: overwritten values
// and deletions that have not been removed yet. With a smaller rest the same values are copied more
// often: at most 1 / (1 - share) times in total.
constexpr double kLiveShare = 0.8;
constexpr uint64_t kSegmentBytesMax = 256ull << 20, kSegmentBytesMin = 512ull << 10;
constexpr uint64_t kSegmentsOfLimit = 32;
// Segments of the limit that stay free: two that are removed after the next sync, the one that is
// being cleaned, and the one that is being written.
constexpr uint64_t kSpareSegments = 4;
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
// A segment gets a table of contents if that has at most this share of its bytes, and at most these
// bytes. The heads of smaller records are as quickly read from the segment itself.
constexpr uint64_t kTableOfSegment = 16, kTableBytesMax = 4ull << 20;
// The free disk space is checked once per this many written bytes.
constexpr uint64_t kDiskCheckBytes = 8ull << 20;
// A value above this share of the RAM tier is not kept in it.
constexpr uint64_t kRamValues = 4;
// Contexts of sealed bytes. Behind the second follows the key, so a value cannot be moved to
// another.
constexpr std::string_view kSealedKey = "key", kSealedValue = "value of ";

struct Segment {
  Segment(uint64_t segment_id, std::string file, int descriptor)
      : id(segment_id), path(std::move(file)), fd(descriptor) {}
  const uint64_t id;
  const std::string path;
  const FileDescriptor fd;
  SegmentHead head;
  uint64_t head_bytes = 0;
  uint64_t bytes = 0;  // of the file; guarded by the log's mutex_
};
// Shared by the log and by reads in progress: a segment may be removed meanwhile.
using SegmentRef = std::shared_ptr<Segment>;

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
  }

  Status Open() {
    if (const std::error_code ec = MakePrivateDirectory(options_.path); ec)
      return NoPermission("open values " + options_.path, ec.message());
    LH_RETURN_IF_ERROR(writer_lock_.Take(options_.path));
    LH_ASSIGN_OR_RETURN(const std::vector<uint64_t> ids, List());
    for (size_t i = 0; i < ids.size(); ++i)
      LH_RETURN_IF_ERROR(Load(ids[i], /*last=*/i + 1 == ids.size()));
    while (segments_.size() > 1 && index_.First(segments_.front()->id) == nullptr) RemoveFirst();
    LH_RETURN_IF_ERROR(StartSegmentUnlessOpen());
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
    SegmentRef segment;
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
      segment = SegmentOf(place.segment);
    }
    Result<Value> value = Read(*segment, place, key);
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

  uint64_t SegmentBytes() const {
    return std::clamp(disk_bytes_max_ / kSegmentsOfLimit, kSegmentBytesMin, kSegmentBytesMax);
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
    const SegmentRef segment = SegmentOf(entry->place.segment);
    Note("values: " + segment->path + " offset " + std::to_string(entry->place.offset) + ": " +
         why.message() + "; the value is gone, and its key is a miss");
    index_.Erase(entry);
  }

  void EvictOldest() {
    ValueIndex::Entry* const oldest = index_.Oldest();
    const int64_t expires = oldest->place.expires_ms;
    ++(expires != 0 && expires <= options_.now_ms() ? stats_.expired : stats_.evicted);
    index_.Erase(oldest);
  }

  SegmentRef SegmentOf(uint64_t id) const {
    const auto found = std::lower_bound(
        segments_.begin(), segments_.end(), id,
        [](const SegmentRef& segment, uint64_t sought) { return segment->id < sought; });
    LH_CHECK(found != segments_.end() && (*found)->id == id);
    return *found;
  }

  // ---- Reading

  // Reads and checks a value. Errors: data_loss; those of the disk.
  Result<Value> Read(const Segment& segment, const LogPlace& place, std::string_view key) const {
    auto stored = std::make_shared<ValueBytes>(place.stored_bytes);
    LH_RETURN_IF_ERROR(PreadAll(segment.fd.get(), stored->data(), stored->size(), place.offset));
    if (Hash64(stored->view()) != place.hash) return DataLoss("checksum mismatch");
    if (!segment.head.seal.has_value()) return Value(std::move(stored));
    LH_ASSIGN_OR_RETURN(
        const std::string plain,
        segment.head.seal->Open(stored->view(), std::string(kSealedValue) + std::string(key)));
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

  // Adds the change's head, its key and its value as the open segment stores them.
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

  // Writes the records to the end of the open segment, all of them or none. Returns their places,
  // without value_bytes.
  Result<std::vector<LogPlace>> Append(const std::vector<RecordHead>& heads,
                                       const std::vector<std::string>& keys,
                                       const std::vector<Value>& values) {
    Segment& segment = active();
    std::vector<std::string> fronts;
    fronts.reserve(heads.size());
    std::vector<iovec> parts;
    std::vector<LogPlace> places;
    uint64_t end = segment.bytes;
    for (size_t i = 0; i < heads.size(); ++i) {
      fronts.push_back(EncodeRecordHead(heads[i], keys[i], segment.head.nonce));
      parts.push_back(PartOf(fronts.back()));
      if (values[i] != nullptr && values[i]->size() > 0) parts.push_back(PartOf(values[i]->view()));
      places.push_back({.segment = segment.id,
                        .offset = end + fronts.back().size(),
                        .record_bytes = heads[i].record_bytes(),
                        .stored_bytes = static_cast<uint32_t>(heads[i].value_bytes),
                        .hash = heads[i].value_hash,
                        .expires_ms = heads[i].expires_ms});
      end += heads[i].record_bytes();
    }
    LH_RETURN_IF_ERROR(AppendBytes(parts, end - segment.bytes));
    for (const std::string& front : fronts) AddToTable(front);
    return places;
  }

  Status AppendBytes(std::span<iovec> parts, uint64_t bytes) {
    Segment& segment = active();
    const Status written = PwriteAll(segment.fd.get(), parts, segment.bytes);
    if (!written.ok()) {
      // What was written of it must not be taken for records when more follows.
      if (ftruncate(segment.fd.get(), static_cast<off_t>(segment.bytes)) != 0) must_start_ = true;
      return Status(written.code(), written.message() + " (" + segment.path + ")");
    }
    const std::lock_guard lock(mutex_);
    segment.bytes += bytes;
    total_bytes_ += bytes;
    unsynced_.insert(segments_.back());
    return OkStatus();
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

  // ---- Segments. Requires: write_mutex_ is held (or nobody else knows the log yet).

  Segment& active() const { return *segments_.back(); }

  std::string PathOf(uint64_t id) const {
    std::string number = std::to_string(id);
    number.insert(0, number.size() < 10 ? 10 - number.size() : 0, '0');
    return options_.path + "/" + number + std::string(kSuffix);
  }

  // Finishes the open segment, if any, and opens a new one.
  Status StartSegment() {
    if (!segments_.empty()) FinishSegment();
    const uint64_t id = segments_.empty() ? next_id_ : std::max(next_id_, segments_.back()->id + 1);
    const std::string path = PathOf(id);
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return FromErrno("make a segment of values", path, errno);
    auto segment = std::make_shared<Segment>(id, path, fd);
    std::string bytes;
    segment->head = SegmentHead::Make(options_.master, options_.owner, &bytes);
    segment->head_bytes = segment->bytes = bytes.size();
    iovec part = PartOf(bytes);
    if (const Status written = PwriteAll(fd, {&part, 1}, 0); !written.ok()) {
      unlink(path.c_str());
      return written;
    }
    table_.clear();
    table_full_ = false;
    must_start_ = false;
    const std::lock_guard lock(mutex_);
    segments_.push_back(segment);
    total_bytes_ += segment->bytes;
    unsynced_.insert(segment);
    new_files_ = true;
    return OkStatus();
  }

  // Appends the table of contents. Without one the segment is read as a whole when it is opened, so
  // errors do not matter.
  void FinishSegment() {
    Segment& segment = active();
    if (table_full_ || must_start_ || table_.size() > segment.bytes / kTableOfSegment) return;
    const RecordHead head{.kind = RecordHead::Kind::kTable,
                          .value_bytes = table_.size(),
                          .value_hash = Hash64(table_)};
    const std::string front = EncodeRecordHead(head, "", segment.head.nonce);
    const std::string end = EncodeTableEnd(segment.bytes, segment.head.nonce);
    iovec parts[] = {PartOf(front), PartOf(table_), PartOf(end)};
    (void)AppendBytes(parts, front.size() + table_.size() + end.size());
  }

  // Evicts and cleans until `bytes` more fit, and makes sure that the open segment takes them.
  Status MakeRoom(uint64_t bytes) {
    uint64_t copy_max = kCopyBytes + 4 * bytes;
    for (;;) {
      LogPlace place;
      std::string key;
      SegmentRef from;
      {
        std::unique_lock lock(mutex_);
        const auto live_max =
            static_cast<uint64_t>(static_cast<double>(disk_bytes_max_) * kLiveShare);
        while (index_.keys() > 0 && index_.live_bytes() + bytes > live_max) EvictOldest();
        // Segments that wait for a sync still take space.
        while (doomed_bytes_ > 2 * SegmentBytes()) {
          if (sync_failed_) return Internal("write values: the disk cannot be synced");
          synced_.wait(lock);
        }
        ValueIndex::Entry* const first = index_.First(segments_.front()->id);
        const uint64_t cleaned = first == nullptr ? segments_.front()->bytes : first->place.offset;
        const uint64_t used = total_bytes_ - cleaned + bytes;
        const bool full = used + kSpareSegments * SegmentBytes() > disk_bytes_max_;
        const bool garbage = used > 2 * index_.live_bytes() + kGarbageBytes;
        const bool dead = first == nullptr && segments_.size() > 1;
        if (!dead && !full && !(garbage && copy_max > 0)) break;
        if (segments_.size() == 1) {
          // The open segment is the oldest: go on in another one, so that it can be cleaned.
          if (active().bytes == active().head_bytes) break;
        } else if (dead) {
          DoomFirst();
          continue;
        } else {
          place = first->place;
          key = *first->key;
          from = segments_.front();
        }
      }
      if (from == nullptr) {
        LH_RETURN_IF_ERROR(StartSegment());
        continue;
      }
      LH_RETURN_IF_ERROR(CopyForward(*from, place, key));
      copy_max -= std::min(copy_max, place.record_bytes);
    }
    const Segment& open = active();
    if (must_start_ || (open.bytes > open.head_bytes && open.bytes + bytes > SegmentBytes()))
      return StartSegment();
    return OkStatus();
  }

  // Copies a value to the end of the log. A damaged one is dropped.
  Status CopyForward(const Segment& from, const LogPlace& place, const std::string& key) {
    if (active().bytes + place.record_bytes > SegmentBytes() &&
        active().bytes > active().head_bytes)
      LH_RETURN_IF_ERROR(StartSegment());
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

  // The first segment is removed after the next sync: what replaced its values must be on the disk
  // before. Requires: mutex_ is held.
  void DoomFirst() {
    const SegmentRef first = segments_.front();
    segments_.pop_front();
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

  // Reads a segment into the index. The last one stays open for appending if it is not finished.
  Status Load(uint64_t id, bool last) {
    const std::string path = PathOf(id);
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return FromErrno("open a segment of values", path, errno);
    auto segment = std::make_shared<Segment>(id, path, fd);
    struct stat info {};
    if (fstat(fd, &info) != 0) return FromErrno("open a segment of values", path, errno);
    if (!S_ISREG(info.st_mode))
      return FailedPrecondition("values " + path + ": is not a regular file; remove it");
    next_id_ = id + 1;
    std::string front(std::min<uint64_t>(kSegmentHeadBytesMax, info.st_size), '\0');
    LH_RETURN_IF_ERROR(PreadAll(fd, front.data(), front.size(), 0));
    Result<SegmentHead> head =
        SegmentHead::Parse(front, options_.master, options_.owner, &segment->head_bytes);
    if (!head.ok() && front.find_first_not_of('\0') == std::string::npos) {
      // A crash came between the making of the file and its first bytes.
      unlink(path.c_str());
      return OkStatus();
    }
    if (!head.ok() && head.status().code() == StatusCode::kDataLoss)
      return SetAside(path, head.status());
    if (!head.ok())
      return Status(head.status().code(), "values " + path + ": " + head.status().message());
    segment->head = std::move(*head);
    table_.clear();
    table_full_ = false;
    const auto visit = [&](const RecordHead& record, std::string_view stored_key, uint64_t offset) {
      LoadRecord(*segment, record, stored_key, offset);
    };
    LH_ASSIGN_OR_RETURN(const ScannedSegment scanned,
                        ScanSegment(fd, static_cast<uint64_t>(info.st_size), segment->head_bytes,
                                    segment->head.nonce, visit));
    segment->bytes = last && !scanned.has_table ? scanned.end : static_cast<uint64_t>(info.st_size);
    // What a crash left behind the last whole record must not be taken for records later.
    if (last && ftruncate(fd, static_cast<off_t>(segment->bytes)) != 0)
      return FromErrno("open a segment of values", path, errno);
    if (!last && !scanned.has_table && scanned.end < static_cast<uint64_t>(info.st_size)) {
      Note("values: " + path + " offset " + std::to_string(scanned.end) +
           ": the record is damaged; it and those behind it are gone");
      ++stats_.damaged;
    }
    must_start_ = scanned.has_table || segment->head.seal.has_value() == options_.master.empty();
    total_bytes_ += segment->bytes;
    segments_.push_back(std::move(segment));
    return OkStatus();
  }

  void LoadRecord(const Segment& segment, const RecordHead& record, std::string_view stored_key,
                  uint64_t offset) {
    std::string key(stored_key);
    if (segment.head.seal.has_value()) {
      Result<std::string> opened = segment.head.seal->Open(stored_key, kSealedKey);
      if (!opened.ok()) {
        ++stats_.damaged;
        return;
      }
      key = std::move(*opened);
    }
    AddToTable(EncodeRecordHead(record, stored_key, segment.head.nonce));
    const uint64_t extra = segment.head.seal.has_value() ? kSealExtraBytes : 0;
    ValueIndex::Entry* const entry = index_.Find(key);
    const bool expired = record.expires_ms != 0 && record.expires_ms <= options_.now_ms();
    if (record.kind == RecordHead::Kind::kDelete || expired || record.value_bytes < extra) {
      if (entry != nullptr) index_.Erase(entry);
      return;
    }
    index_.Put(key,
               {.segment = segment.id,
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
    if (ec) return FromErrno("set a damaged segment aside", path, ec.value());
    ++stats_.damaged;
    Note("values: " + path + ": " + why.message() + "; it was renamed to " + path +
         ".aside, and its values are misses");
    return OkStatus();
  }

  Status StartSegmentUnlessOpen() {
    return segments_.empty() || must_start_ ? StartSegment() : OkStatus();
  }

  // Removes the first segment at once. For Open, when nobody else uses the log.
  void RemoveFirst() {
    total_bytes_ -= segments_.front()->bytes;
    unlink(segments_.front()->path.c_str());
    segments_.pop_front();
  }

  // ---- Syncing: the thread of syncing_

  void Sync() {
    std::unique_lock lock(mutex_);
    for (bool last = false; !last;) {
      wake_sync_.wait_for(lock, options_.sync_period,
                          [this] { return ending_ || !doomed_.empty(); });
      last = ending_;
      const std::set<SegmentRef> dirty = std::exchange(unsynced_, {});
      const std::vector<SegmentRef> doomed = std::exchange(doomed_, {});
      const bool new_files = std::exchange(new_files_, false);
      if (dirty.empty() && doomed.empty() && !new_files) continue;
      lock.unlock();
      const Status synced = SyncAll(dirty, new_files);
      if (synced.ok()) {
        for (const SegmentRef& segment : doomed) unlink(segment->path.c_str());
      } else {
        Note(synced.message() +
             "; what was written lately is not safe from a crash of the machine");
      }
      lock.lock();
      ++stats_.syncs;
      sync_failed_ = !synced.ok();
      if (synced.ok()) {
        for (const SegmentRef& segment : doomed) doomed_bytes_ -= segment->bytes;
      } else if (!last) {
        // Tried again with the next sync.
        unsynced_.insert(dirty.begin(), dirty.end());
        doomed_.insert(doomed_.end(), doomed.begin(), doomed.end());
        new_files_ = new_files_ || new_files;
        wake_sync_.wait_for(lock, options_.sync_period, [this] { return ending_; });
      }
      synced_.notify_all();
    }
  }

  Status SyncAll(const std::set<SegmentRef>& dirty, bool new_files) const {
    for (const SegmentRef& segment : dirty) {
      if (fdatasync(segment->fd.get()) != 0) return FromErrno("sync values", segment->path, errno);
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
  std::string table_;        // heads and keys of the open segment's records
  bool table_full_ = false;  // it would be too long
  bool must_start_ = false;  // nothing may be appended to the open segment

  mutable std::mutex mutex_;
  // Guarded by mutex_. segments_ changes only under both locks, so a writer may read it under
  // write_mutex_ alone.
  ValueIndex index_;
  ValueStats stats_;
  std::deque<SegmentRef> segments_;  // by id; the last one is open for appending
  uint64_t total_bytes_ = 0;         // of segments_
  std::vector<SegmentRef> doomed_;   // to be removed after the next sync
  uint64_t doomed_bytes_ = 0;        // of these, and of those that the sync in progress removes
  std::set<SegmentRef> unsynced_;
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
