// The memories of one store provider: which there are, which are open, and who uses them.
//
// Everybody who works with a memory holds a lease. The memory that was used last stays open, with
// its indexes in RAM; others stay open as long as somebody leases them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/memory_budget.h"
#include "base/secret.h"
#include "base/status.h"
#include "memory/catalog/memory_info.h"
#include "memory/core/memory.h"
#include "memory/core/model_context.h"
#include "memory/core/notes.h"
#include "memory/record/import_rules.h"
#include "store/store_provider.h"
#include "store/transfer.h"

namespace longhold {

// A memory that the catalog has open. Internal to the catalog and its leases.
struct OpenMemory {
  std::string name;
  bool writable = false;
  bool small_buffers = false;  // writable, but not for an ingest
  bool with_model = false;
  // The catalog neither lends it anew nor shares it: an ingest writes to it while others may use
  // the model.
  bool exclusive = false;
  uint32_t leases = 0;
  std::string stamp;  // StoreProvider::Stamp from before it was opened for reading
  MemoryReservation store_memory;
  std::unique_ptr<Memory> memory;
};

// The use of an open memory. While it lives the memory stays open, as it was when the lease began.
// Move-only. Thread use: *confined*, as the catalog.
class MemoryLease {
 public:
  explicit MemoryLease(std::shared_ptr<OpenMemory> open) : open_(std::move(open)) {
    ++open_->leases;
  }
  MemoryLease(MemoryLease&& other) noexcept
      : open_(std::move(other.open_)), holds_exclusively_(other.holds_exclusively_) {}
  MemoryLease& operator=(MemoryLease&&) = delete;
  ~MemoryLease() {
    if (open_ == nullptr) return;
    --open_->leases;
    if (holds_exclusively_) open_->exclusive = false;
  }

  Memory& operator*() const { return *open_->memory; }
  Memory* operator->() const { return open_->memory.get(); }

  // Keeps everybody else away until the lease ends, also where others run meanwhile.
  void MakeExclusive() { holds_exclusively_ = open_->exclusive = true; }

 private:
  friend class MemoryCatalog;
  std::shared_ptr<OpenMemory> open_;
  bool holds_exclusively_ = false;
};

// An export that is read a piece at a time. Owner: the caller. The memory stays leased for as long
// as it lives.
class MemoryExport {
 public:
  MemoryExport(MemoryLease lease, std::string_view name)
      : lease_(std::move(lease)), stream_(&lease_->store(), name) {}
  Result<std::string> Next() { return stream_.Next(); }  // as ExportStream's
  const TransferReport& report() const { return stream_.report(); }

 private:
  const MemoryLease lease_;
  ExportStream stream_;
};

struct CatalogOptions {
  // kSealKeyBytes that new memories are encrypted with, and those read that are
  // (store/sealed_store.h); empty: none.
  Secret encryption_key;
  std::string codec;  // of new memories, one of CodecNames'
};

// Owner: the engine. Thread use: *confined*, but DiskBytes and opens(), which are safe to call
// concurrently.
class MemoryCatalog {
 public:
  // Borrows all of them.
  MemoryCatalog(StoreProvider* stores, MemoryBudget* budget, Notes* notes, CatalogOptions options);
  ~MemoryCatalog();

  // The model that memories are read by from now on. Closes the memory that was used last.
  void UseModel(const ModelContext* model);
  // The codec of memories that are made from now on. Errors: invalid_argument.
  Status UseCodec(std::string_view name);
  const std::string& codec() const { return options_.codec; }

  // kAmend: to write a little, with small buffers.
  enum class Access : uint8_t { kRead, kAmend, kWrite, kCreate };
  // Whether the memory is read by the model: only then its fingerprint is checked, and its words
  // can be indexed again.
  enum class Reader : uint8_t { kModel, kNone };
  // Leases a memory, which becomes the one that was used last. Errors: not_found, invalid_argument,
  // failed_precondition (another model's memory; another process writes), unavailable (an answer
  // reads by what would be written with), resource_exhausted, data_loss.
  Result<MemoryLease> Lease(const std::string& name, Access access, Reader reader);
  // The same for a look at a memory: it does not take another memory's place as the one used last,
  // unless there is no room for both.
  Result<MemoryLease> LeaseToShow(const std::string& name);
  // Closes the memory that was used last. After a call that wrote, other processes can write to it
  // only then.
  void Close() { last_.reset(); }
  // How often a memory was opened, and not found open already.
  uint64_t opens() const { return opens_; }

  // Ok when there is such a memory; it is not opened. Errors: not_found, invalid_argument.
  Status Exists(const std::string& name) const;
  // Makes an empty memory, whose blocks get `codec`, or the catalog's when that is empty. Errors:
  // already_exists, invalid_argument.
  Status Create(const std::string& name, const std::string& codec);
  // By name, those of tenants last; with a `tenant` only that one's. A memory that cannot be read
  // says so in its status.
  Result<std::vector<MemoryInfo>> List(const std::string& tenant);
  Result<MemoryInfo> Show(const std::string& name);
  Result<TierReport> Tiers(const std::string& name);
  // Of all files of a tenant's memories, but for one memory's where `except` names one.
  uint64_t DiskBytes(const std::string& tenant, const std::string& except) const;
  // Takes a name off a document, and removes the document when that was its only name. With an
  // empty document removes the memory, whatever its state. With `compact` the bytes are gone from
  // the disk on return. Errors: not_found, Lease's.
  Status Forget(const std::string& name, const std::string& document, bool compact);
  Status Compact(const std::string& name);
  // See Memory::Recode. `on_progress` may be empty.
  Result<RecodeReport> Recode(
      const std::string& name, std::string_view codec, const std::atomic<bool>* stop,
      const std::function<void(uint64_t done, uint64_t total)>& on_progress);
  // Reads every record and block back. Data_loss names the first bad one.
  Status Verify(const std::string& name);
  Result<std::unique_ptr<MemoryExport>> OpenExport(const std::string& name);
  Result<TransferReport> Export(const std::string& name, const ByteSink& sink);
  // Makes a memory of what Export wrote, under its own name or `name`. It is there when all of it
  // was read and holds together, or not at all. Errors: already_exists, invalid_argument (no
  // export), data_loss, failed_precondition (the limits), resource_exhausted.
  Result<TransferReport> Import(const ByteSource& source, const std::string& name,
                                const ImportLimits& limits);

 private:
  // Whether `open`, which may be null, is this memory as the store has it, and good for such a use.
  bool Serves(const OpenMemory* open, const std::string& name, Access access, Reader reader) const;
  // With `codec` for a memory that is made; empty: the catalog's.
  Result<std::shared_ptr<OpenMemory>> OpenAnew(const std::string& name, Access access,
                                               Reader reader, const std::string& codec);
  // Unseals what is sealed.
  Result<std::unique_ptr<ColdStore>> Unseal(std::unique_ptr<ColdStore> store,
                                            const std::string& name, bool read_only);
  Status ListInto(const std::string& tenant, std::vector<MemoryInfo>* list);

  StoreProvider* const stores_;
  MemoryBudget* const budget_;
  Notes* const notes_;
  CatalogOptions options_;
  const ModelContext* model_ = nullptr;
  std::shared_ptr<OpenMemory> last_;               // the memory that was used last
  std::vector<std::weak_ptr<OpenMemory>> leased_;  // that somebody leases, or did
  std::atomic<uint64_t> opens_{0};
};

// Adds a note where a memory was indexed for other recall heads than those of the profile.
void NoteOtherHeads(const Memory& memory, const RecallProfile& profile, Notes* notes);

}  // namespace longhold
