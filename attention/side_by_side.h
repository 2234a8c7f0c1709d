// Several sequences in one forward pass, one token of each. No sequence sees another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "attention/layer_attention.h"

namespace longhold {

// Row i of the pass belongs to `each[i]`, which handles it as a pass of one token. Owner: whoever
// runs the pass. Borrows `each`. Thread use: as LayerAttention.
class SideBySide final : public LayerAttention {
 public:
  // `query_width` is q_heads * head_dim.
  SideBySide(std::span<LayerAttention* const> each, size_t query_width)
      : each_(each), query_width_(query_width) {}

  void StoreKeys(uint32_t slot, LayerRows keys, uint32_t, uint32_t worker,
                 uint32_t workers) override {
    for (size_t i = 0; i < each_.size(); ++i)
      each_[i]->StoreKeys(slot, Row(keys, i), 1, worker, workers);
  }
  void StoreValues(uint32_t slot, LayerRows values, uint32_t, uint32_t worker,
                   uint32_t workers) override {
    for (size_t i = 0; i < each_.size(); ++i)
      each_[i]->StoreValues(slot, Row(values, i), 1, worker, workers);
  }
  void Attend(uint32_t slot, LayerRows queries, uint32_t, float* out, uint32_t worker,
              uint32_t workers) override {
    for (size_t i = 0; i < each_.size(); ++i)
      each_[i]->Attend(slot, Row(queries, i), 1, out + i * query_width_, worker, workers);
  }

 private:
  static LayerRows Row(LayerRows rows, size_t i) {
    return {rows.data + i * rows.token_stride, rows.token_stride};
  }

  std::span<LayerAttention* const> each_;
  size_t query_width_;
};

}  // namespace longhold
