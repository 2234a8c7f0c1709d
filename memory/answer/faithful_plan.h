// Selects the blocks that each layer and KV head attends to in faithful mode. That mode
// approximates the model's attention over all blocks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "attention/geometry.h"
#include "attention/rope.h"
#include "base/parallel.h"
#include "memory/attend/picked_blocks.h"
#include "memory/attend/working_set.h"
#include "memory/index/summaries.h"

namespace longhold {

// A block and its summary.
struct SummarisedBlock {
  PickableBlock block;
  const SummarySegment* segment = nullptr;
  uint32_t index = 0;  // within the segment
  bool fixed = false;  // always picked
};

struct FaithfulPicks {
  std::vector<std::vector<uint32_t>> blocks;  // [layers * kv_heads] of [count], ascending
  // Estimated share of all attention mass that the picked blocks hold.
  double coverage = 0;
};

// Picks `count` blocks for each layer and KV head: the fixed ones, and of the others those with the
// largest share of the queries' attention, estimated from the summaries. With n_b tokens and mean
// key mu_b in block b,
//   share(b) = sum over rows of softmax_b(log n_b + scale * q . mu_b)
// Measurements: docs/decisions/0017. `queries` are those of all tapped layers, un-rotated. Row t
// has position `first_position` + t, and each block its own position. If the text is longer than
// the positions in `ropes`, all positions move back by the excess, but not below 0. Distant blocks
// then count as if they were at that limit. Must hold: `count` is at least the number of fixed
// blocks and at most the number of all; there are no more query tokens than positions in `ropes`.
FaithfulPicks PickBlocks(const KvGeometry& geometry, const RopeTables& ropes,
                         std::span<const SummarisedBlock> blocks, const QueryCapture& queries,
                         uint64_t first_position, uint32_t count, const ParallelFor& parallel);

// RAM that PickBlocks needs in addition to the summaries, with `workers` workers.
uint64_t PickBlocksBytes(const KvGeometry& geometry, uint64_t blocks, uint64_t tokens,
                         uint32_t workers);

}  // namespace longhold
