#include "memory/attend/picked_blocks.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>

#include "base/status.h"

namespace longhold {

PickedBlocks::PickedBlocks(const KvGeometry& geometry, const RopeTables& ropes,
                           std::vector<std::vector<uint32_t>> picks, uint32_t pickable,
                           const uint32_t* first_position)
    : layers_(static_cast<uint32_t>(geometry.layers.size())),
      kv_heads_(geometry.kv_heads),
      head_dim_(geometry.head_dim),
      ropes_(ropes),
      picks_(std::move(picks)),
      pickable_(pickable),
      in_a_row_(first_position != nullptr),
      first_position_(in_a_row_ ? *first_position : 0),
      mass_(kWorkersMax) {
  LH_CHECK(picks_.size() == size_t{layers_} * kv_heads_);
  count_ = static_cast<uint32_t>(picks_[0].size());
  for (const auto& list : picks_)
    LH_CHECK(list.size() == count_ && std::is_sorted(list.begin(), list.end()) &&
             (list.empty() || list.back() < pickable_));
  const size_t elements = PanelOf(picks_.size(), 0);
  float* floats = memory_.Ensure(std::max<size_t>(1, (elements + 1) / 2));
  std::memset(floats, 0, elements * sizeof(uint16_t));  // unused keys must be finite
  panels_ = static_cast<uint16_t*>(static_cast<void*>(floats));
  bias_.assign(picks_.size() * count_ * kBlockTokens, -std::numeric_limits<float>::infinity());
}

uint64_t PickedBlocks::Bytes(const KvGeometry& geometry, uint64_t blocks_each) {
  const uint64_t each = kBlockTokens * (2 * geometry.head_dim * sizeof(uint16_t) + sizeof(float));
  return geometry.layers.size() * geometry.kv_heads * blocks_each * each;
}

std::vector<uint32_t> PickedBlocks::Wanted() const {
  std::set<uint32_t> all;
  for (const auto& list : picks_) all.insert(list.begin(), list.end());
  return {all.begin(), all.end()};
}

void PickedBlocks::Place(uint32_t id, const PickableBlock& pickable, const KvBlock& block) {
  LH_CHECK(block.tokens >= pickable.tokens && block.shape.layers == layers_ &&
           block.shape.kv_width == kv_heads_ * head_dim_);
  const uint32_t width = block.shape.kv_width, d = head_dim_;
  float row[kMaxHeadDim], rotated[kMaxHeadDim];
  uint16_t rounded[kMaxHeadDim];
  for (uint32_t slot = 0; slot < layers_; ++slot) {
    for (uint32_t h = 0; h < kv_heads_; ++h) {
      const auto& list = picks_[ListOf(slot, h)];
      const auto at = std::lower_bound(list.begin(), list.end(), id);
      if (at == list.end() || *at != id) continue;
      const auto index = static_cast<uint32_t>(at - list.begin());
      const uint32_t first = in_a_row_ ? first_position_ + index * kBlockTokens : pickable.position;
      uint16_t* keys = panels_ + PanelOf(ListOf(slot, h), index);
      uint16_t* values = keys + size_t{kBlockTokens} * d;
      for (uint32_t r = 0; r < pickable.tokens; ++r) {
        Kernels().half_to_float(block.Keys(slot) + size_t{r} * width + size_t{h} * d, row, d);
        ropes_.Of(slot).Rotate(row, rotated, d, first + r);
        Kernels().float_to_half(rotated, rounded, d);
        for (uint32_t c = 0; c < d; ++c) keys[size_t{c} * kBlockTokens + r] = rounded[c];
        std::memcpy(values + size_t{r} * d, block.Values(slot) + size_t{r} * width + size_t{h} * d,
                    d * sizeof(uint16_t));
      }
      std::fill_n(
          bias_.begin() + static_cast<ptrdiff_t>((ListOf(slot, h) * count_ + index) * kBlockTokens),
          pickable.tokens, 0.0f);
    }
  }
}

void PickedBlocks::AppendViews(uint32_t slot, uint32_t kv_head,
                               std::vector<KeyBlockView>* views) const {
  const size_t list = ListOf(slot, kv_head);
  for (uint32_t i = 0; i < count_; ++i) {
    KeyBlockView view;
    view.half_keys_t = panels_ + PanelOf(list, i);
    view.half_values = view.half_keys_t + size_t{kBlockTokens} * head_dim_;
    view.bias = bias_.data() + (list * count_ + i) * kBlockTokens;
    views->push_back(view);
  }
}

void PickedBlocks::AddMass(uint32_t slot, uint32_t kv_head, float* key_mass, uint32_t worker) {
  std::vector<double>& mass = mass_[worker];
  mass.resize(pickable_, 0.0);
  const auto& list = picks_[ListOf(slot, kv_head)];
  for (uint32_t i = 0; i < count_; ++i) {
    for (uint32_t j = 0; j < kBlockTokens; ++j)
      mass[list[i]] += key_mass[size_t{i} * kBlockTokens + j];
  }
  std::fill_n(key_mass, size_t{count_} * kBlockTokens, 0.0f);
}

void PickedBlocks::ForgetMass() {
  for (auto& mass : mass_) mass.clear();
}

std::vector<double> PickedBlocks::Mass() const {
  std::vector<double> all(pickable_, 0.0);
  for (const auto& mass : mass_) {
    for (size_t i = 0; i < mass.size(); ++i) all[i] += mass[i];
  }
  return all;
}

}  // namespace longhold
