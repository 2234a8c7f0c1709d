// A cold store that fails on purpose: for tests of everything above.
#pragma once

#include <cstdint>
#include <memory>

#include "store/cold_store.h"

namespace longhold {

// What to break; counts are of calls since construction (a MultiGet is a Get per key), 0 means
// never. Value type.
struct FaultPlan {
  // this Write and all later ones return resource_exhausted, nothing applied
  uint64_t fail_write_after = 0;
  uint64_t fail_get_after = 0;  // this Get and all later ones return data_loss
  // every nth Get/MultiGet value of kBlocks comes back with one flipped bit
  uint64_t corrupt_get_every = 0;
  uint64_t seed = 1;
};

// Forwards to `base`, which must outlive it. Thread use: *synchronised*, as `base` is.
std::unique_ptr<ColdStore> NewFaultyStore(ColdStore* base, const FaultPlan& plan);

}  // namespace longhold
