// Memories as RocksDB stores in directories: HOME/memories/NAME, and for a tenant
// HOME/tenants/TENANT/memories/NAME.
#pragma once

#include <memory>
#include <string>

#include "store/store_provider.h"

namespace longhold {

// Directories are made when the first store needs them, readable by their owner alone. Of the
// memory budget of whoever opens it, a store takes at most a thirty-second for its cache and an
// eighth for its write buffers.
std::unique_ptr<StoreProvider> NewRocksProvider(const std::string& home);

}  // namespace longhold
