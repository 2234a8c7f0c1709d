// Rotary positions: the cosines and sines of one layer's angles at small virtual positions, and
// the rotation itself.
//
// Keys are stored un-rotated. When they are attended to, sinks, recalled spans and window get
// contiguous virtual positions, and their keys are rotated to these.
//
// Owner: whoever builds panels (memory/). Thread use: *immutable* after construction.
#pragma once

#include <cstdint>
#include <vector>

#include "attention/geometry.h"

namespace longhold {

class RopeTable {
 public:
  // Angles for positions [first, first + positions). Computed in double and stored as float. The
  // magnitude factor is multiplied into cos and sin. `first` may be negative: only differences of
  // positions matter to attention. Below, `position` counts from `first`.
  RopeTable(const RopeSpec& spec, uint32_t positions, int64_t first = 0);

  const RopeSpec& spec() const { return spec_; }
  uint32_t positions() const { return positions_; }
  // [rotary_dims / 2] each. Must hold: position < positions().
  const float* Cos(uint32_t position) const { return cos_.data() + size_t{position} * pairs_; }
  const float* Sin(uint32_t position) const { return sin_.data() + size_t{position} * pairs_; }

  // out = in rotated to `position`; both are [head_dim] and may alias. Elements past
  // rotary_dims are copied.
  void Rotate(const float* in, float* out, uint32_t head_dim, uint32_t position) const;
  // The inverse of Rotate, up to rounding.
  void Unrotate(const float* in, float* out, uint32_t head_dim, uint32_t position) const;

 private:
  RopeSpec spec_;
  float magnitude_;
  uint32_t pairs_;
  uint32_t positions_;
  std::vector<float> cos_;  // [positions, pairs]
  std::vector<float> sin_;
};

// The tables of all tapped layers. Layers with the same RopeSpec share one table. Thread use:
// *immutable* after construction.
class RopeTables {
 public:
  RopeTables(const KvGeometry& geometry, uint32_t positions, int64_t first = 0);
  // Must hold: slot < geometry.rope.size().
  const RopeTable& Of(uint32_t slot) const { return tables_[table_of_slot_[slot]]; }

 private:
  std::vector<RopeTable> tables_;
  std::vector<uint32_t> table_of_slot_;  // [layers]
};

}  // namespace longhold
