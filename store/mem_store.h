// A cold store in RAM: the same contract, implemented on a map. For tests and temporary memories.
#pragma once

#include <memory>

#include "store/cold_store.h"

namespace longhold {

std::unique_ptr<ColdStore> NewMemStore();

}  // namespace longhold
