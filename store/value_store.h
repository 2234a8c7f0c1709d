// A store of values under keys: a cache that survives restarts. The server for Redis clients
// (service/resp) keeps what other inference engines compute in it.
//
// Implementation: an append-only log with an index in RAM (value_log.h). The tests of the server
// use a map (tests/support/map_value_store.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace longhold {

inline constexpr uint64_t kValueKeyBytesMax = 64ull << 10;
inline constexpr uint64_t kValueBytesMax = 64ull << 20;

// The bytes of a value. They are not initialised, so that a socket or a file can be read into them
// without a pass over the memory before. Thread use: *external* until it is complete, then
// *immutable*.
class ValueBytes {
 public:
  explicit ValueBytes(size_t size)
      : bytes_(std::make_unique_for_overwrite<char[]>(size)), size_(size) {}
  char* data() { return bytes_.get(); }
  const char* data() const { return bytes_.get(); }
  size_t size() const { return size_; }
  std::string_view view() const { return {bytes_.get(), size_}; }

 private:
  std::unique_ptr<char[]> bytes_;
  size_t size_;
};

// Shared by the RAM tier, a write in progress and the replies that are being sent. The last one
// frees the bytes.
using Value = std::shared_ptr<const ValueBytes>;
Value MakeValue(std::string_view bytes);

// One change of a batch. Value type.
struct ValueChange {
  enum class When : uint8_t { kAlways, kIfAbsent, kIfPresent };
  std::string key;
  Value value;                // null: delete the key
  int64_t expires_ms = 0;     // milliseconds since 1970; 0: never
  When when = When::kAlways;  // ignored for a deletion
  bool applied = false;       // out: the value was set, or the key existed and was deleted
};

// Counts since the store was opened, and what it holds now. Value type.
struct ValueStats {
  uint64_t hits_ram = 0, hits_disk = 0, misses = 0;
  uint64_t written_bytes = 0;  // of values
  uint64_t evicted = 0;        // values that made room for others, except expired ones
  uint64_t expired = 0;
  uint64_t damaged = 0;  // values that could not be read or whose checksum was wrong
  uint64_t keys = 0, keys_expiring = 0;
  uint64_t value_bytes = 0;  // of all values
  uint64_t ram_bytes = 0;    // of the RAM tier: index and values
  uint64_t disk_bytes = 0;   // of all files
  uint64_t ram_bytes_max = 0, disk_bytes_max = 0;
  uint64_t syncs = 0;

  ValueStats& operator+=(const ValueStats& other);
};

// What the index in RAM knows of a key.
struct ValuePlace {
  enum class Where : uint8_t { kNowhere, kRam, kDisk } where = Where::kNowhere;
  uint64_t bytes = 0;  // length of the value
  Value value;         // set for kRam
};

// Thread use: *synchronised*. Times come from the clock that the implementation was given.
class ValueStore {
 public:
  virtual ~ValueStore() = default;

  // Looks the key up and marks it as used. Never waits for the disk. Counts a hit or a miss, but
  // for kDisk leaves that to Get.
  virtual ValuePlace Find(std::string_view key) = 0;
  // Length of the value, if there is one. Neither counts nor marks as used. Never waits for the
  // disk.
  virtual ValuePlace Look(std::string_view key) = 0;
  // Returns the value, if need be from the disk. A damaged value is removed, counted and reported
  // as a note, and is then a miss. Errors: not_found; unavailable or internal (the disk failed).
  virtual Result<Value> Get(std::string_view key) = 0;
  // Applies the changes in their order, and sets their `applied`. When it returns, they survive the
  // death of the process (kill -9). ValueLog says what a crash of the machine may lose.
  //
  // Errors: resource_exhausted (disk full), invalid_argument (a key or value is too long),
  // internal. On an error a prefix of the changes may have been applied.
  virtual Status Write(std::vector<ValueChange>& changes) = 0;
  // Values larger than this do not fit the store.
  virtual uint64_t ValueBytesMax() const = 0;
  // Changes the limits. Values are evicted with the next writes.
  virtual void Limit(uint64_t disk_bytes_max, uint64_t ram_bytes_max) = 0;
  virtual ValueStats Stats() const = 0;
};

}  // namespace longhold
