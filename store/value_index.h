// The index of a value log: where each value is, the order of use, and the values in RAM.
//
// Owner: ValueLog. Thread use: *external*. Internal to store/.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>

#include "store/value_store.h"

namespace longhold {

// Where the log holds a value. Value type.
struct LogPlace {
  uint64_t file = 0;
  uint64_t offset = 0;        // of the value in the log file's file
  uint64_t record_bytes = 0;  // of head, key and value
  uint32_t stored_bytes = 0;  // of the value as stored; a sealed one is longer than the plain one
  uint32_t value_bytes = 0;
  uint64_t hash = 0;  // Hash64 of the stored bytes
  int64_t expires_ms = 0;
  friend bool operator==(const LogPlace&, const LogPlace&) = default;
};

class ValueIndex {
 public:
  struct Entry {
    const std::string* key = nullptr;  // of the map
    LogPlace place;
    Value ram;                                          // null: on disk only
    std::list<Entry*>::iterator used, in_file, in_ram;  // in_ram is set if `ram` is
  };

  // Null if there is none. Stays valid until the entry is erased.
  Entry* Find(std::string_view key);
  // Makes `entry` the most recently used one.
  void Touch(Entry* entry);
  // Adds the value as the most recently used one, or replaces an older one. `ram` may be null.
  void Put(std::string_view key, const LogPlace& place, Value ram);
  // The value is now at `place`, as the last one of that log file. Its use does not change.
  void Move(Entry* entry, const LogPlace& place);
  void KeepInRam(Entry* entry, Value value);
  void Erase(Entry* entry);

  // The least recently used entry; null if there is none.
  Entry* Oldest() { return used_.empty() ? nullptr : used_.back(); }
  // The entry with the lowest offset in the log file; null if it has none.
  Entry* First(uint64_t file);
  // Drops the least recently used values from RAM until the index and they have at most
  // `bytes_max`.
  void ShrinkRam(uint64_t bytes_max);

  uint64_t keys() const { return entries_.size(); }
  uint64_t keys_expiring() const { return keys_expiring_; }
  // Of all records that the index refers to.
  uint64_t live_bytes() const { return live_bytes_; }
  uint64_t value_bytes() const { return value_bytes_; }
  // RAM of the entries themselves: an estimate from the sizes of their nodes.
  uint64_t index_bytes() const { return index_bytes_; }
  uint64_t ram_bytes() const { return index_bytes_ + ram_value_bytes_; }

 private:
  struct KeyHash {
    using is_transparent = void;
    size_t operator()(std::string_view key) const;
  };
  void Count(const Entry& entry, int sign);
  void DropRam(Entry* entry);

  std::unordered_map<std::string, Entry, KeyHash, std::equal_to<>> entries_;
  std::list<Entry*> used_;                       // most recently used first
  std::list<Entry*> in_ram_;                     // likewise, those with a value in RAM
  std::map<uint64_t, std::list<Entry*>> files_;  // by offset
  uint64_t keys_expiring_ = 0, live_bytes_ = 0, value_bytes_ = 0, index_bytes_ = 0;
  uint64_t ram_value_bytes_ = 0;
};

}  // namespace longhold
