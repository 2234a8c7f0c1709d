// The ordered key-value store that holds a memory. Keys and values are bytes.
//
// Implementations: RocksDB (rocks_store.h), a map in RAM (mem_store.h), and two wrappers, which
// encrypt values (sealed_store.h) or inject faults (faulty_store.h).
//
// Thread use of every implementation: *synchronised*.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace longhold {

// Separate key spaces. Values in kText, kIndex and kBlocks are large. RocksDB keeps large values in
// separate files (blob files).
enum class Table : uint8_t { kMeta = 0, kText = 1, kIndex = 2, kBlocks = 3 };
inline constexpr int kTableCount = 4;

// A list of changes that the store applies atomically, in order. Value type; not synchronised.
// Copies the keys and takes over the values.
class WriteBatch {
 public:
  struct Change {
    enum class Kind : uint8_t { kPut, kDelete, kDeleteRange } kind;
    Table table;
    std::string key;    // begin of the range for kDeleteRange
    std::string value;  // exclusive end of the range for kDeleteRange
  };
  void Put(Table table, std::string_view key, std::string value) {
    changes_.push_back({Change::Kind::kPut, table, std::string(key), std::move(value)});
  }
  void Delete(Table table, std::string_view key) {
    changes_.push_back({Change::Kind::kDelete, table, std::string(key), {}});
  }
  // Deletes the keys in [begin, end). Does nothing if end <= begin.
  void DeleteRange(Table table, std::string_view begin, std::string_view end) {
    changes_.push_back({Change::Kind::kDeleteRange, table, std::string(begin), std::string(end)});
  }
  const std::vector<Change>& changes() const { return changes_; }
  std::vector<Change>& changes() { return changes_; }

 private:
  std::vector<Change> changes_;
};

// What a write survives. kBuffered: the death of the process (kill -9). kSynced: also a crash
// of the machine.
enum class Durability : uint8_t { kBuffered, kSynced };

class ColdStore {
 public:
  virtual ~ColdStore() = default;

  // Applies the changes of `batch` atomically, in their order, and after every earlier Write
  // that has returned.
  //
  // Memory: a batch exists about three times while it is written. For large amounts of data, write
  // many small batches and finally the one that commits them.
  //
  // Errors: resource_exhausted (the disk is full), failed_precondition (opened read-only),
  // invalid_argument (larger than 2 GiB), data_loss, internal.
  virtual Status Write(WriteBatch batch, Durability durability) = 0;
  // Returns the value. Errors: not_found, data_loss.
  virtual Result<std::string> Get(Table table, std::string_view key) = 0;
  // Reads many values. Result i belongs to keys[i].
  virtual std::vector<Result<std::string>> MultiGet(Table table,
                                                    const std::vector<std::string>& keys) = 0;
  // Calls `visit` for each key in [begin, end), in ascending byte order, until it returns false.
  // The scan sees the store's state at its start.
  //
  // `key` and `value` are valid during the call only. `visit` may call the store, except Compact.
  virtual Status Scan(
      Table table, std::string_view begin, std::string_view end,
      const std::function<bool(std::string_view key, std::string_view value)>& visit) = 0;
  // Removes overwritten and deleted data from one table's files as far as that is quick. Values of
  // some kilobytes or more may stay in their blob files until Compact. Does not check the data.
  // Errors: as Write.
  virtual Status Reclaim(Table table) = 0;
  // Rewrites the store so that no file contains deleted bytes any more. Slow.
  virtual Status Compact() = 0;
  // The current size of all files, in bytes.
  virtual Result<uint64_t> DiskBytes() = 0;
  // The size of one table's keys and values on disk, in bytes. The most recent writes are missing
  // if they are still only in the log.
  virtual Result<uint64_t> TableBytes(Table table) = 0;
};

// Big-endian integers for keys, so that the order of bytes is the order of numbers.
void AppendBigEndian32(std::string* out, uint32_t value);
// Must hold: in.size() >= 4.
uint32_t ReadBigEndian32(std::string_view in);

}  // namespace longhold
