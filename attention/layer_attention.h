// The seam between a model's forward pass and longhold's attention.
#pragma once

#include <cstddef>
#include <cstdint>

namespace longhold {

// One batch of one layer's numbers as the model computes them. Rows are tokens; strides are in
// floats.
struct LayerRows {
  const float* data = nullptr;  // [tokens, heads, head_dim], un-rotated
  size_t token_stride = 0;      // floats from one token to the next; heads lie head_dim apart
};

// Attends in the model's place. During one forward pass of `tokens` tokens the model calls, per
// tapped layer and in this order: StoreKeys and StoreValues (in either order), then Attend. Each
// call is made by every worker at the same time with its own `worker` of `workers`, which share the
// work between them; all workers have left one call before any enters the next, so a call sees
// everything that the calls before it wrote.
//
// `slot` counts the tapped layers from 0 (KvGeometry::layers gives the model's layer numbers).
// Thread use: *confined* to one forward pass at a time, whose workers call as above.
class LayerAttention {
 public:
  virtual ~LayerAttention() = default;

  virtual void StoreKeys(uint32_t slot, LayerRows keys, uint32_t tokens, uint32_t worker,
                         uint32_t workers) = 0;
  virtual void StoreValues(uint32_t slot, LayerRows values, uint32_t tokens, uint32_t worker,
                           uint32_t workers) = 0;
  // Writes out [tokens, q_heads, head_dim].
  virtual void Attend(uint32_t slot, LayerRows queries, uint32_t tokens, float* out,
                      uint32_t worker, uint32_t workers) = 0;
};

}  // namespace longhold
