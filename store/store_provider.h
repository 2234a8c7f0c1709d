// Where the stores of memories are kept: one cold store for each memory's name.
//
// Two implementations: directories with RocksDB (rocks_provider.h) and RAM (mem_provider.h). The
// program chooses one in service/cli/main.cc; everything above knows only this interface.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "store/cold_store.h"

namespace longhold {

// kRead sees the store as it was when it was opened. kWrite and kCreate need it exclusively;
// kCreate makes an empty store where there is none.
enum class StoreMode : uint8_t { kRead, kWrite, kCreate };

// Names are those of memory_name.h; callers check them. `budget_bytes` is the memory budget of
// whoever opens a store: with a small one a store buffers less, and writes more and smaller files.
//
// Owner: the composition root; outlives every engine and store that it opened. Thread use:
// *synchronised*; several engines may share one.
class StoreProvider {
 public:
  virtual ~StoreProvider() = default;

  // Names the place in messages: a directory.
  virtual const std::string& place() const = 0;

  // Ok when there is a store of that name. Errors: not_found (the message does not name the
  // memory), invalid_argument (the place cannot be read).
  virtual Status Exists(const std::string& name) = 0;
  // Errors: not_found, failed_precondition (open for writing elsewhere), resource_exhausted (disk
  // full), data_loss, invalid_argument (no permission), unavailable.
  virtual Result<std::unique_ptr<ColdStore>> Open(const std::string& name, StoreMode mode,
                                                  uint64_t budget_bytes) = 0;
  // RAM that an open store takes; callers reserve it first.
  virtual uint64_t RamBytes(StoreMode mode, uint64_t budget_bytes) const = 0;
  // Names, ascending: those of one tenant, or with an empty `tenant` those without one. Errors:
  // invalid_argument (the place cannot be read).
  virtual Result<std::vector<std::string>> List(const std::string& tenant) = 0;
  virtual std::vector<std::string> Tenants() = 0;
  // Removes a store, however damaged: all of it or, on an error, nothing. Errors: not_found,
  // failed_precondition (open for writing), invalid_argument (no permission).
  virtual Status Remove(const std::string& name) = 0;

  // A store that is being filled has no name yet: Exists and List do not know it. Stage replaces
  // what an interrupted attempt for the same name left. Errors: as Open's.
  virtual Result<std::unique_ptr<ColdStore>> Stage(const std::string& name,
                                                   uint64_t budget_bytes) = 0;
  // Gives the staged store its name, atomically. Must hold: the staged store is closed, and no
  // store has the name.
  virtual Status Publish(const std::string& name) = 0;
  // Removes the staged store.
  virtual void Discard(const std::string& name) = 0;

  // Size of the store's files now; 0 where there are none.
  virtual uint64_t DiskBytes(const std::string& name) const = 0;
  // How often the stores slowed or stopped this process's writes, because they could not follow.
  virtual uint64_t WriteStalls() const = 0;
  // Changes when somebody writes to the store. A reader compares stamps to learn that what it has
  // open is out of date.
  virtual std::string Stamp(const std::string& name) const = 0;
};

}  // namespace longhold
