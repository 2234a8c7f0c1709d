// Bytes in, bytes out: the ordered key-value store under a memory. Three implementations: RocksDB
// (rocks_store.h), the in-memory twin (mem_store.h) and a fault-injecting wrapper (faulty_store.h).
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

// Separate key spaces. Values of kText, kIndex and kBlocks are large and go to blob files where
// there are such.
enum class Table : uint8_t { kMeta = 0, kText = 1, kIndex = 2, kBlocks = 3 };
inline constexpr int kTableCount = 4;

// Changes that are applied all or not at all. Value type; not synchronised. Keys and values are
// copied.
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
  // Deletes keys in [begin, end); nothing when end <= begin.
  void DeleteRange(Table table, std::string_view begin, std::string_view end) {
    changes_.push_back({Change::Kind::kDeleteRange, table, std::string(begin), std::string(end)});
  }
  const std::vector<Change>& changes() const { return changes_; }
  std::vector<Change>& changes() { return changes_; }

 private:
  std::vector<Change> changes_;
};

// kBuffered survives the process's death (kill -9); kSynced also the machine's.
enum class Durability : uint8_t { kBuffered, kSynced };

class ColdStore {
 public:
  virtual ~ColdStore() = default;

  // Applies `batch` atomically, in order with every earlier Write that returned. Errors:
  // resource_exhausted (disk full), failed_precondition (opened read-only), invalid_argument (above
  // 2 GiB), data_loss, internal. The changes of one batch apply in their order. A batch is held in
  // memory some three times while it is written: many small ones, then the one that commits them,
  // cost less than one large one.
  virtual Status Write(WriteBatch batch, Durability durability) = 0;
  // The value, not_found, or data_loss.
  virtual Result<std::string> Get(Table table, std::string_view key) = 0;
  // Values of many keys; result i belongs to key i.
  virtual std::vector<Result<std::string>> MultiGet(Table table,
                                                    const std::vector<std::string>& keys) = 0;
  // Calls `visit` for keys in [begin, end) in ascending order of their bytes until it returns
  // false. Sees the state at its start. The views live for the call; `visit` may call the store,
  // but not Compact.
  virtual Status Scan(
      Table table, std::string_view begin, std::string_view end,
      const std::function<bool(std::string_view key, std::string_view value)>& visit) = 0;
  // Takes from one table's files what was overwritten or deleted, as far as that is quick: values
  // of some kilobytes and more may stay in tables that keep them apart, until Compact. No data_loss
  // is looked for. Errors: as Write's.
  virtual Status Reclaim(Table table) = 0;
  // Rewrites the store so that deleted bytes are gone from every file. Slow.
  virtual Status Compact() = 0;
  // Bytes of all files now.
  virtual Result<uint64_t> DiskBytes() = 0;
  // Of them, those of one table's values and keys, but for what was written last and is only in the
  // log yet.
  virtual Result<uint64_t> TableBytes(Table table) = 0;
};

// Big-endian integers for keys, so that byte order is number order.
void AppendBigEndian32(std::string* out, uint32_t value);
// Must hold: in.size() >= 4.
uint32_t ReadBigEndian32(std::string_view in);

}  // namespace longhold
