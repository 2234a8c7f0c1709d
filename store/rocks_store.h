// A cold store in RocksDB. Third-party types appear in rocks_store.cc only.
#pragma once

#include <memory>
#include <string>

#include "store/cold_store.h"

namespace longhold {

// How to open a store. Value type.
struct RocksOptions {
  // The store's directory. If it is missing, it is created with its parents, unless read_only.
  std::string path;
  bool read_only = false;                     // see below
  bool create_if_missing = true;              // ignored when read_only
  uint64_t write_buffer_bytes = 32ull << 20;  // per table; each table has at most two write buffers
  uint64_t write_buffers_bytes_max = 96ull << 20;  // for all tables together
  uint64_t cache_bytes = 32ull << 20;  // of index and filter blocks; values are not cached
  // A write returns resource_exhausted if less disk space than this would remain free.
  uint64_t disk_reserve_bytes = 256ull << 20;
};

// How often RocksDB slowed down or stopped writes of this process, to any store, because flushes or
// compactions could not keep up. Safe to call concurrently.
uint64_t RocksStalls();

// Opens a store. It stays open as long as the returned object lives.
//
// Readers and writers: a store has at most one writer. Any number of readers may run at the same
// time, also in other processes. A reader leaves no trace in the directory and sees the state at
// its opening. When the writer forgets or compacts, files of that state may disappear; a read then
// returns unavailable, and the reader must open the store again.
//
// Disk space: a writer keeps disk_reserve_bytes free. Exempt are batches that delete something and
// put at most 64 KiB, so that forgetting works on a full disk. If a Write is refused because of the
// reserve, just try again later.
//
// Failed writes: after RocksDB itself failed a Write (the disk is full nevertheless, or
// corruption), every later Write and Compact returns that error. Reads still work. Free some space
// and open the store again. Everything that was acknowledged is then there, and the failed batch is
// there either completely or not at all.
//
// Compact rewrites a table's blob files from the oldest up to the newest one that has garbage. It
// temporarily needs free space for their live bytes. Reads and writes go on, except for a moment at
// the end. It waits for running Scans. Afterwards open readers cannot read the deleted data either.
// It does not overwrite the free blocks of the disk.
//
// Checksums: every read verifies the checksums of the table blocks that locate a key, and of the
// value. Both are needed: RocksDB parses table blocks with assertions, which are enabled in
// Debian's build.
//
// Lost writes: if a write that was acknowledged as kSynced is gone (a log or manifest was removed
// or truncated), opening fails with data_loss (sync_mark.h). A kBuffered write may be lost in a
// crash of the machine; this is not detected.
//
// A directory that contains a link, a pipe or a device is refused, because RocksDB would follow it
// or block on it.
//
// Errors:
//   failed_precondition  another process has it open for writing (the message says so), or it was
//                        written by another version
//   not_found            no such store
//   resource_exhausted   disk full
//   data_loss            corrupt (the message names the file) or incomplete
//   invalid_argument     no permission (the message names the path)
//   unavailable          a reader found no consistent state for a second, because of a busy writer
Result<std::unique_ptr<ColdStore>> OpenRocksStore(const RocksOptions& options);

// Removes the store at `path` with all its files. Does not open it, so it works for a damaged store
// and for any version. The directory is first renamed to `.forgotten-NAME` in the same parent. So a
// crash in between leaves either the complete store or nothing under its name. Errors:
// failed_precondition (a process, or this one, has it open for writing), not_found (no store is
// there), invalid_argument (no permission).
Status RemoveRocksStore(const std::string& path);

}  // namespace longhold
