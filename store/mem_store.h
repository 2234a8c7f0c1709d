// The in-memory twin of the cold store: the same contract on a map. For tests and scratch memories.
#pragma once

#include <memory>

#include "store/cold_store.h"

namespace longhold {

std::unique_ptr<ColdStore> NewMemStore();

}  // namespace longhold
