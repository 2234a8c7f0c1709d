// RocksDB as a cold store. Third-party types stop at rocks_store.cc.
#pragma once

#include <memory>
#include <string>

#include "store/cold_store.h"

namespace longhold {

struct RocksOptions {
  std::string path;                // directory; created when missing unless read_only
  bool read_only = false;          // sees the state at open; any number of readers may live beside one writer
  bool create_if_missing = true;
  uint64_t write_buffer_bytes = 32ull << 20;  // per table
  uint64_t disk_reserve_bytes = 256ull << 20; // writes are refused with resource_exhausted when less is free
};

// Errors: failed_precondition (another process has it open for writing; the message says so), not_found (no such store),
// resource_exhausted (disk full), data_loss (corrupt, with the file's name), invalid_argument (no permission: the message
// names the path).
Result<std::unique_ptr<ColdStore>> OpenRocksStore(const RocksOptions& options);

}  // namespace longhold
