#include "service/resp/resp_stores.h"

#include <algorithm>

namespace longhold {

Result<RespStores::Tenant*> RespStores::OpenOne(const std::string& name) {
  if (const auto found = tenants_.find(name); found != tenants_.end()) return &found->second;
  if (tenants_.size() >= kStoresMax)
    return ResourceExhausted("values: more than " + std::to_string(kStoresMax) + " tenants");
  const uint64_t parts = tenants_.size() + 1;
  LH_ASSIGN_OR_RETURN(
      std::unique_ptr<ValueStore> store,
      options_.open(name, options_.disk_bytes_max / parts, options_.ram_bytes_max / parts));
  Tenant& tenant = tenants_[name];
  tenant.store = std::move(store);
  return &tenant;
}

void RespStores::Share() {
  const uint64_t parts = std::max<uint64_t>(1, tenants_.size());
  for (auto& [name, tenant] : tenants_) {
    const uint64_t part = options_.disk_bytes_max / parts;
    tenant.store->Limit(tenant.disk_bytes_max == 0 ? part : std::min(part, tenant.disk_bytes_max),
                        options_.ram_bytes_max / parts);
  }
}

Status RespStores::Open(const std::vector<std::string>& tenants) {
  const std::lock_guard lock(mutex_);
  for (const std::string& name : tenants) LH_RETURN_IF_ERROR(OpenOne(name).status());
  Share();
  return OkStatus();
}

Result<ValueStore*> RespStores::For(const std::string& tenant, uint64_t disk_bytes_max) {
  const std::lock_guard lock(mutex_);
  const size_t before = tenants_.size();
  LH_ASSIGN_OR_RETURN(Tenant* const found, OpenOne(tenant));
  if (tenants_.size() != before || found->disk_bytes_max != disk_bytes_max) {
    found->disk_bytes_max = disk_bytes_max;
    Share();
  }
  return found->store.get();
}

ValueStats RespStores::Total() const {
  const std::lock_guard lock(mutex_);
  ValueStats total;
  for (const auto& [name, tenant] : tenants_) total += tenant.store->Stats();
  return total;
}

}  // namespace longhold
