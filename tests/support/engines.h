// Engines that own their store provider.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "memory/engine.h"
#include "store/rocks_provider.h"

namespace longhold {

struct ProviderHolder {
  std::unique_ptr<StoreProvider> provider;
};

// On RocksDB in `home`. Hold it by its own type: Engine has no virtual destructor.
class EngineInHome : private ProviderHolder, public Engine {
 public:
  explicit EngineInHome(const std::string& home, EngineOptions options = {})
      : ProviderHolder{NewRocksProvider(home)}, Engine(provider.get(), std::move(options)) {}
  StoreProvider& stores() { return *provider; }
};

}  // namespace longhold
