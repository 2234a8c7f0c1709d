// A value store in a directory: an append-only log in several files, with its index in RAM.
// docs/formats/values.md specifies the files, docs/decisions/0035 says why it is not RocksDB.
//
// Tiers: values used last stay in RAM, up to a bound; all values are in the log, whose recent parts
// the operating system keeps in its page cache.
//
// Durability: a change is acknowledged when write(2) has returned, so kill -9 loses nothing that
// was acknowledged. A thread syncs the log to the disk once a second, as Redis does with
// `appendfsync everysec`. A crash of the machine may lose what was written since the begin of the
// last sync that ended: a second, and more while the disk cannot follow. What a sync covered stays,
// whatever the log did with its files meanwhile.
//
// Eviction: the log is a ring of files. When it is full, the values that were used least
// recently are dropped from the index until the rest fills at most kLiveShare of the limit, and
// what is left of the oldest log file is copied to the end. Only the oldest log file is ever
// removed. So an older value of a key cannot come back after its successor or its deletion has been
// removed. An evicted value may be there again after a restart, if its log file still is. After a
// restart the order of use is the order of the log.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/secret.h"
#include "base/status.h"
#include "store/value_store.h"

namespace longhold {

struct ValueLogOptions {
  // The directory; made with its parents, for its owner only, if it is missing.
  std::string path;
  uint64_t disk_bytes_max = 20ull << 30;  // of all files; at least kValueDiskBytesMin
  // Of the index and of values in RAM. The index may take half of it; beyond that, values are
  // evicted whatever the disk has room for.
  uint64_t ram_bytes_max = 256ull << 20;
  uint64_t disk_reserve_bytes = 256ull << 20;  // free space of the disk that stays free
  Secret master;                               // encrypts new log files; empty: they stay plain
  std::string owner;                           // tenant whose values these are; bound to the key
  std::chrono::milliseconds sync_period{1000};
  std::function<int64_t()> now_ms;             // milliseconds since 1970, for expiry
  std::function<void(std::string_view)> note;  // on any thread; may be empty
};

inline constexpr uint64_t kValueDiskBytesMin = 16ull << 20;

// Opens the store. Reads the heads of all records; the values are checked when they are read. One
// process at a time may have it open.
//
// Errors: failed_precondition (open elsewhere; encrypted, and the key is missing or another one;
// another version), invalid_argument (no permission), resource_exhausted (disk full), internal. A
// log file whose header is damaged is set aside as NAME.aside, with a note.
Result<std::unique_ptr<ValueStore>> OpenValueLog(const ValueLogOptions& options);

}  // namespace longhold
