// How much of a store was on the disk once: a number in a file of its own, the last write's that
// was acknowledged as synced. RocksDB takes a log that was removed, emptied or cut, or a manifest
// that was cut between two of its records, for an older state of the store, and opens it without a
// word. With the number beside them that is found out.
//
// The file: the number (8 bytes, little-endian) and Hash64 of these bytes (8). One that is missing,
// or has nothing but zeros, as a crash of the machine leaves a file that was just made, says 0. Any
// other is damaged: what it guards may be, too (it may have changed places with a log).
#pragma once

#include <cstdint>
#include <mutex>
#include <string>

#include "base/file_descriptor.h"
#include "base/status.h"

namespace longhold {

inline constexpr const char* kSyncMarkName = "SYNCED";

// Of a store in `directory`; 0 where there is none. Thread use: safe to call concurrently, also
// with a SyncMark of any process. Errors: data_loss.
Result<uint64_t> ReadSyncMark(const std::string& directory);

// The writer's. Thread use: *synchronised*.
class SyncMark {
 public:
  explicit SyncMark(const std::string& directory);

  // Must hold: all writes up to `number` are on the disk. The mark itself is not synced: what a
  // crash of the machine leaves is too low, if anything. For the same reason a failure is none.
  void Raise(uint64_t number);

 private:
  const FileDescriptor file_;
  std::mutex mutex_;
  uint64_t number_ = 0;  // guarded by mutex_
};

}  // namespace longhold
