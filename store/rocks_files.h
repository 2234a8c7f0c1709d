// The directory of a RocksDB store as files: the writer's lock, checks before RocksDB sees them,
// and errors of the file system. Internal to store/; it knows no type of RocksDB.
#pragma once

#include <cstdint>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "base/status.h"

namespace longhold {

// Free bytes of the file system at `path`; 0 if they cannot be read.
uint64_t FreeBytes(const std::string& path);

// Errors of the file system. `doing` names the operation and the path.
Status DiskFull(const std::string& doing, const std::string& path, const std::string& why);
Status NoPermission(const std::string& doing, const std::string& why);
Status FromErrno(const std::string& doing, const std::string& path, int error);

// Runs `body`, and turns an exception of RocksDB or the allocator into a Status.
template <typename Body>
auto Guarded(const std::string& doing, const Body& body) -> decltype(body()) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return ResourceExhausted(doing + ": out of memory");
  } catch (const std::exception& e) {
    return Internal(doing + ": " + e.what());
  }
}

// The right to write to one store: an flock, held from Take until destruction.
// Thread use: *confined*.
class WriterLock {
 public:
  WriterLock() = default;
  ~WriterLock();
  WriterLock(const WriterLock&) = delete;
  WriterLock& operator=(const WriterLock&) = delete;

  // Errors: failed_precondition (another process has it).
  Status Take(const std::string& store_path);

 private:
  int fd_ = -1;
};

// Refuses files that RocksDB would follow, block on, or read into memory as a whole. A store made
// by somebody else may contain them.
Status CheckFiles(const std::string& path);

// The files in a store's directory that change when data moves between files. Value type.
struct DirectoryState {
  std::string manifest;
  uint64_t manifest_bytes = 0;
  std::vector<std::string> logs;  // sorted
  bool has_data = false;          // whether there is a table, blob or log file
  friend bool operator==(const DirectoryState&, const DirectoryState&) = default;

  // Reads the directory. `manifest` is empty if there is no store. Errors: as FromErrno.
  static Result<DirectoryState> Of(const std::string& path);
};

}  // namespace longhold
