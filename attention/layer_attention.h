// The interface between a model's forward pass and longhold's attention.
#pragma once

#include <cstddef>
#include <cstdint>

namespace longhold {

// Queries, keys or values of one batch in one layer, as the model computes them. One row per token;
// strides are in floats.
struct LayerRows {
  const float* data = nullptr;  // [tokens, heads, head_dim], un-rotated
  // floats from one token to the next; the heads of a token are head_dim apart
  size_t token_stride = 0;
};

// Computes attention in the model's place. Pure interface; memory/ implements it.
//
// During a forward pass of `tokens` tokens, the model calls for each tapped layer: StoreKeys
// and StoreValues (in either order), then Attend. All workers make each call at the same time,
// each with its own `worker` < `workers`, and divide the work among themselves. All workers
// have returned from one call before any enters the next. So a call sees everything that
// earlier calls wrote.
//
// `slot` is the index of the tapped layer, counted from 0. KvGeometry::layers has the
// model's layer numbers.
//
// Thread use: *confined* to one forward pass at a time, whose workers call as described above.
class LayerAttention {
 public:
  virtual ~LayerAttention() = default;

  virtual void StoreKeys(uint32_t slot, LayerRows keys, uint32_t tokens, uint32_t worker,
                         uint32_t workers) = 0;
  virtual void StoreValues(uint32_t slot, LayerRows values, uint32_t tokens, uint32_t worker,
                           uint32_t workers) = 0;
  // Writes out[tokens, q_heads, head_dim].
  virtual void Attend(uint32_t slot, LayerRows queries, uint32_t tokens, float* out,
                      uint32_t worker, uint32_t workers) = 0;
};

}  // namespace longhold
