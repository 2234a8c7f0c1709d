// Stored blocks that faithful attention sees in addition to the pass's own tokens. Each layer and
// KV head has its own selection.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "attention/geometry.h"
#include "attention/kernels.h"
#include "attention/rope.h"
#include "base/types.h"
#include "memory/attend/attend_tiles.h"
#include "store/block_codec.h"

namespace longhold {

// One of the blocks to choose from.
struct PickableBlock {
  BlockKey key;
  uint32_t tokens = 0;  // how many of its tokens count
  // Position of its first token; used when picked blocks keep their positions in the text.
  uint32_t position = 0;
};

// The rotated attention keys and the values of the picked blocks in 16 bits, in the kernels'
// layout. A block that was not placed is masked out.
//
// Owner: an answer. Thread use: *confined*, with two exceptions: several threads may call Place at
// the same time with different blocks, and AddMass with different workers.
class PickedBlocks {
 public:
  // `picks`: [layers * kv_heads] lists of block ids, each ascending, below `pickable`, and all of
  // the same length. With `first_position`, the blocks of each list have contiguous positions from
  // there; without it, each block has its own position. `ropes` must cover all positions and is
  // borrowed.
  PickedBlocks(const KvGeometry& geometry, const RopeTables& ropes,
               std::vector<std::vector<uint32_t>> picks, uint32_t pickable,
               const uint32_t* first_position);
  static uint64_t Bytes(const KvGeometry& geometry, uint64_t blocks_each);

  uint32_t count() const { return count_; }  // blocks per layer and KV head
  // All blocks that any layer and head picked, ascending.
  std::vector<uint32_t> Wanted() const;
  // Writes the block into the panels wherever it was picked. Must hold: block.tokens >=
  // pickable.tokens.
  void Place(uint32_t id, const PickableBlock& pickable, const KvBlock& block);

  // Appends the views of one layer and KV head's blocks.
  void AppendViews(uint32_t slot, uint32_t kv_head, std::vector<KeyBlockView>* views) const;
  // Adds the softmax mass that a worker's rows gave to the keys: `key_mass` is [count() * 64] and
  // is then set to 0.
  void AddMass(uint32_t slot, uint32_t kv_head, float* key_mass, uint32_t worker);
  void ForgetMass();
  // [pickable] mass of each block, summed over all layers, heads and workers.
  std::vector<double> Mass() const;

 private:
  size_t ListOf(uint32_t slot, uint32_t kv_head) const {
    return size_t{slot} * kv_heads_ + kv_head;
  }
  size_t PanelOf(size_t list, uint32_t index) const {
    return (list * count_ + index) * 2 * kBlockTokens * head_dim_;
  }

  uint32_t layers_, kv_heads_, head_dim_;
  const RopeTables& ropes_;
  std::vector<std::vector<uint32_t>> picks_;
  uint32_t pickable_;
  uint32_t count_ = 0;
  bool in_a_row_;
  uint32_t first_position_;
  AlignedFloats memory_;
  // [lists, count] of [head_dim, 64] attention keys and [64, head_dim] values.
  uint16_t* panels_ = nullptr;
  std::vector<float> bias_;                // [lists, count, 64]: -infinity where there is no key
  std::vector<std::vector<double>> mass_;  // [workers] of [pickable], or empty
};

}  // namespace longhold
