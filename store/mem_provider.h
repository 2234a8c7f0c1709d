// Memories in RAM: the twin of rocks_provider.h for tests. What is written is gone with the
// provider.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "store/store_provider.h"

namespace longhold {

class MemProvider : public StoreProvider {
 public:
  // Gives `change` the store of that name, open or not, for a test to look at or to damage. Must
  // hold: there is one.
  virtual void Change(const std::string& name, const std::function<void(ColdStore&)>& change) = 0;
};

std::unique_ptr<MemProvider> NewMemProvider();

}  // namespace longhold
