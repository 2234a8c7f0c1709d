// RocksDB as a cold store. Third-party types stop at rocks_store.cc.
#pragma once

#include <memory>
#include <string>

#include "store/cold_store.h"

namespace longhold {

// Value type.
struct RocksOptions {
  // directory; created with its parents when missing unless read_only
  std::string path;
  bool read_only = false;                          // see below
  bool create_if_missing = true;                   // ignored when read_only
  uint64_t write_buffer_bytes = 32ull << 20;       // per table, at most two of them
  uint64_t write_buffers_bytes_max = 96ull << 20;  // of all tables together
  uint64_t cache_bytes = 32ull << 20;              // of keys and filters; values are not cached
  // writes are refused with resource_exhausted when less is free
  uint64_t disk_reserve_bytes = 256ull << 20;
};

// How often RocksDB has slowed or stopped this process's writes, to whatever store, because it
// could not follow. Safe to call concurrently.
uint64_t RocksStalls();

// Opens the store for as long as the result lives. One writer at a time; any number of readers may
// live beside it. A reader leaves no trace in the directory and sees the state at its opening; once
// the writer has forgotten or compacted, the files of that state may go, and a read then returns
// unavailable: open it again.
//
// A writer keeps disk_reserve_bytes free, except for batches that delete something and put no more
// than 64 KiB, so that forgetting works on a full disk. After a Write that failed in RocksDB (disk
// full all the same, corruption), every later Write and Compact returns that error and reads go on;
// free some space and open it again: what was acknowledged is there, and the failed batch is there
// whole or not at all. A refusal for the reserve's sake is not of that kind: just try again.
//
// Compact rewrites only blob files as old as the newest one with garbage, needs their live bytes as
// free space for a while, lets reads and writes go on but for a moment at its end, and waits for
// Scans under way. It forgets for readers too. It does not overwrite the disk's free blocks.
//
// Every read checks the checksums of the files: of what finds a key, and of the value. Not only for
// the value's sake: RocksDB takes apart the bytes that find a key with assertions, which Debian's
// build has on.
//
// What was written as kSynced is missed when it is gone (sync_mark.h): a log or manifest that was
// removed or cut is data_loss then. What was kBuffered may be what a crash of the machine took, and
// is not missed. A directory that holds a link, a pipe or a device is refused: RocksDB would follow
// it, or wait for it.
//
// Errors: failed_precondition (another process has it open for writing; the message says so; or
// another version's store), not_found (no such store), resource_exhausted (disk full), data_loss
// (corrupt, with the file's name, or incomplete), invalid_argument (no permission: the message
// names the path), unavailable (a reader that could not find the writer at rest for a second).
Result<std::unique_ptr<ColdStore>> OpenRocksStore(const RocksOptions& options);

// Removes the store at `path` with all its files, without opening it: however damaged it is, and
// whatever version wrote it. It is renamed first, to `.forgotten-NAME` beside it, so a crash in
// between leaves all of it or nothing under its name. Errors: failed_precondition (some process has
// it open for writing, this one too), not_found (no store is there), invalid_argument (no
// permission).
Status RemoveRocksStore(const std::string& path);

}  // namespace longhold
