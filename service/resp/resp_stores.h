// The value stores of the operator and of all tenants. They share the limits of disk and RAM
// evenly, so that no tenant's values push out another's.
//
// Owner: the `serve` command. Thread use: *synchronised*; the stores live as long as this object.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/status.h"
#include "store/value_store.h"

namespace longhold {

class RespStores {
 public:
  struct Options {
    uint64_t disk_bytes_max = 20ull << 30, ram_bytes_max = 256ull << 20;  // of all stores together
    // Opens the store of a tenant (empty: the operator) with these limits.
    std::function<Result<std::unique_ptr<ValueStore>>(
        const std::string& tenant, uint64_t disk_bytes_max, uint64_t ram_bytes_max)>
        open;
  };
  static constexpr size_t kStoresMax = 256;

  explicit RespStores(Options options) : options_(std::move(options)) {}

  // Opens the stores of these tenants. Stores with values can take seconds, so `serve` does this
  // before it listens. Errors: those of `open`; resource_exhausted (too many).
  Status Open(const std::vector<std::string>& tenants);
  // The store of a tenant. One that is not open yet is opened, which is quick if it is new.
  // `disk_bytes_max`: the tenant's own limit; 0: none. Errors: as Open.
  Result<ValueStore*> For(const std::string& tenant, uint64_t disk_bytes_max);
  // Sums over all stores.
  ValueStats Total() const;

 private:
  struct Tenant {
    std::unique_ptr<ValueStore> store;
    uint64_t disk_bytes_max = 0;  // its own limit; 0: none
  };
  // Requires: mutex_ is held.
  Result<Tenant*> OpenOne(const std::string& name);
  void Share();

  const Options options_;
  mutable std::mutex mutex_;
  std::map<std::string, Tenant> tenants_;
};

}  // namespace longhold
