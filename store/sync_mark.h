// Detects lost writes. The mark is a small file next to a store's own files. It holds the sequence
// number of the last write that was acknowledged as synced.
//
// RocksDB alone does not detect such losses. If a log was removed, emptied or truncated, or a
// manifest was truncated between two records, RocksDB opens the store in an older state and reports
// nothing. The mark reveals this: the store's last sequence number is then below it.
//
// The file: the number (8 bytes, little-endian) and the Hash64 of these bytes (8 bytes). If
// it is missing or all zeros, the number is 0; a crash of the machine can leave a new file
// as zeros. Anything else is damage. The store may then be damaged, too (for example, two
// files were swapped).
#pragma once

#include <cstdint>
#include <mutex>
#include <string>

#include "base/file_descriptor.h"
#include "base/status.h"

namespace longhold {

inline constexpr const char* kSyncMarkName = "SYNCED";

// The number for the store in `directory`; 0 if there is no mark. Thread use: safe to call
// concurrently, also with a SyncMark in any process. Errors: data_loss.
Result<uint64_t> ReadSyncMark(const std::string& directory);

// The mark of a store that is open for writing. Thread use: *synchronised*.
class SyncMark {
 public:
  explicit SyncMark(const std::string& directory);

  // Sets the mark to `number` if that is higher. Must hold: all writes up to `number` are on the
  // disk. The mark itself is not synced, so after a crash of the machine it can only be too low. A
  // failed write is ignored for the same reason.
  void Raise(uint64_t number);

 private:
  const FileDescriptor file_;
  std::mutex mutex_;
  uint64_t number_ = 0;  // guarded by mutex_
};

}  // namespace longhold
