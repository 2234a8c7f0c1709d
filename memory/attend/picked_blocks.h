// Stored blocks that faithful attention sees beside a pass's own tokens: of each layer and KV head
// its own ones.
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

// One of the blocks that can be picked.
struct PickableBlock {
  BlockKey key;
  uint32_t tokens = 0;    // that count
  uint32_t position = 0;  // where its first token stands, where picks keep their places in the text
};

// Keys, rotated, and values in 16 bits, laid out for the kernels. A block that was not placed is
// not seen.
//
// Owner: an answer. Thread use: *confined*, except that Place may be called by several threads at
// once with different blocks, and AddMass with different workers.
class PickedBlocks {
 public:
  // `picks`: [layers * kv_heads] of blocks, ascending, of the same number, at most `pickable`.
  // Where `first_position` is given, each list stands in a row from there, else each block at its
  // own position. `ropes` has all positions and is borrowed.
  PickedBlocks(const KvGeometry& geometry, const RopeTables& ropes,
               std::vector<std::vector<uint32_t>> picks, uint32_t pickable,
               const uint32_t* first_position);
  static uint64_t Bytes(const KvGeometry& geometry, uint64_t blocks_each);

  uint32_t count() const { return count_; }  // of blocks for each layer and KV head
  // All blocks that any layer and head has, ascending.
  std::vector<uint32_t> Wanted() const;
  // Lays the block out wherever it was picked. Must hold: block.tokens >= pickable.tokens.
  void Place(uint32_t id, const PickableBlock& pickable, const KvBlock& block);

  // Appends the views of one layer and KV head.
  void AppendViews(uint32_t slot, uint32_t kv_head, std::vector<KeyBlockView>* views) const;
  // Adds softmax mass that a worker's rows gave the keys: [count() * 64], which is then set to 0.
  void AddMass(uint32_t slot, uint32_t kv_head, float* key_mass, uint32_t worker);
  void ForgetMass();
  // [pickable], over all layers, heads and workers.
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
  // [lists, count] of [head_dim, 64] keys and [64, head_dim] values
  uint16_t* panels_ = nullptr;
  std::vector<float> bias_;                // [lists, count, 64]: -infinity where there is no key
  std::vector<std::vector<double>> mass_;  // [workers] of [pickable], or empty
};

}  // namespace longhold
