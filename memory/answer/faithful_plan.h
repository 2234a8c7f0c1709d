// Which blocks each layer and KV head attends to when attention is to stay near what the model
// would do with all of them.
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

// A block with its summary.
struct SummarisedBlock {
  PickableBlock block;
  const SummarySegment* segment = nullptr;
  uint32_t index = 0;  // within the segment
  bool fixed = false;  // picked whatever is asked for
};

struct FaithfulPicks {
  std::vector<std::vector<uint32_t>> blocks;  // [layers * kv_heads] of [count], ascending
  // estimated share of all attention mass that they hold
  double coverage = 0;
};

// Picks `count` blocks for each layer and KV head: the fixed ones, and of the others those with the
// largest share of the queries' attention, as their summaries estimate it. With n tokens of mean
// key mu in a block,
//   share(b) = sum over rows of softmax_b(log n_b + scale * q . mu_b)
// (docs/decisions/0017 has what that is worth). `queries` are of all tapped layers, un-rotated; row
// t stands at `first_position` + t and a block at its position, but where the text is longer than
// `ropes` has positions, at most at the farthest: then what is far away counts as if it stood that
// far. Must hold: count is at least the number of fixed blocks, and at most of all; the queries'
// positions are within `ropes`.
FaithfulPicks PickBlocks(const KvGeometry& geometry, const RopeTables& ropes,
                         std::span<const SummarisedBlock> blocks, const QueryCapture& queries,
                         uint64_t first_position, uint32_t count, const ParallelFor& parallel);

// RAM that it takes beside the summaries, with so many workers.
uint64_t PickBlocksBytes(const KvGeometry& geometry, uint64_t blocks, uint64_t tokens,
                         uint32_t workers);

}  // namespace longhold
