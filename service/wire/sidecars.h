// The sidecars of the wire server: one for each tenant and model, made from the description that a
// client of the tenant sent. Descriptions are kept, too, so that later connections name a model by
// its fingerprint only.
//
// Both are bounded. The one that was used longest ago makes room; a sidecar that is in use stays. A
// client whose description is gone gets not_found, and sends it again.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "base/memory_budget.h"
#include "base/secret.h"
#include "base/status.h"
#include "memory/model/text_embedder.h"
#include "memory/sidecar/sidecar.h"
#include "service/wire/messages.h"

namespace longhold::wire {

// Borrows what it points to.
struct SidecarsOptions {
  StoreProvider* stores = nullptr;
  TextEmbedder* embedder = nullptr;  // null: none; Sidecars lets one thread at a time use it
  Secret encryption_key;             // as EngineOptions::encryption_key
  // The server's; a sidecar's budget is reserved there. Null: no reservation.
  MemoryBudget* budget = nullptr;
  uint64_t sidecar_bytes = 256ull << 20;  // memory budget of each
  size_t sidecars_max = 8, tenant_sidecars_max = 4;
  size_t models_max = 64, tenant_models_max = 16;
  uint64_t models_bytes_max = 256ull << 20;  // of all descriptions
};

// Owner: the wire server. Thread use: *synchronised*. A sidecar is opened without the lock, so that
// only those wait who want the same one.
class Sidecars {
 public:
  explicit Sidecars(const SidecarsOptions& options);
  ~Sidecars();

  // A sidecar stays open while somebody has its pointer.
  using Lease = std::shared_ptr<Sidecar>;

  // Keeps the description. Errors: invalid_argument; already_exists (another description of the
  // same fingerprint, whose sidecar is in use); resource_exhausted.
  Status Describe(const std::string& tenant, const DescribeModelRequest& model);
  // Opens the sidecar where it is not open yet. Errors: not_found (no description), the sidecar's,
  // resource_exhausted (all are in use).
  Result<Lease> Open(const std::string& tenant, const std::string& fingerprint);

 private:
  using Key = std::pair<std::string, std::string>;  // tenant, fingerprint
  struct Slot;
  class SharedEmbedder;
  struct Description {
    // As Encode(DescribeModelRequest) gives it. Shared with a thread that opens the sidecar.
    std::shared_ptr<const std::string> message;
    std::list<Key>::iterator used;
  };

  // Both with the lock. Moves what must be closed to `closing`, to be closed without the lock.
  Result<std::shared_ptr<Slot>> SlotOf(const Key& key, std::list<std::shared_ptr<Slot>>* closing);
  bool CloseIdle(const std::string* tenant, std::list<std::shared_ptr<Slot>>* closing);
  void ForgetOldest(const std::string* tenant);
  Status OpenSlot(const Key& key, const std::string& message, Slot* slot);

  const SidecarsOptions options_;
  const std::unique_ptr<SharedEmbedder> embedder_;  // null: none
  std::mutex mutex_;                                // of all below
  std::map<Key, Description> models_;
  std::list<Key> models_used_;  // the one used longest ago first
  uint64_t models_bytes_ = 0;
  std::map<Key, std::shared_ptr<Slot>> slots_;
  std::list<Key> slots_used_;
};

}  // namespace longhold::wire
