// A cold store that injects faults. For tests.
#pragma once

#include <cstdint>
#include <memory>

#include "store/cold_store.h"

namespace longhold {

// Which faults to inject. Counts are of calls since construction; a MultiGet counts as one Get per
// key. 0 means never. Value type.
struct FaultPlan {
  // This Write and all later ones return resource_exhausted and apply nothing.
  uint64_t fail_write_after = 0;
  uint64_t fail_get_after = 0;  // this Get and all later ones return data_loss
  // In every nth value that is read from kBlocks, one bit is flipped.
  uint64_t corrupt_get_every = 0;
  uint64_t seed = 1;
};

// Forwards to `base`, which must outlive it. Thread use: *synchronised*, if `base` is.
std::unique_ptr<ColdStore> NewFaultyStore(ColdStore* base, const FaultPlan& plan);

}  // namespace longhold
