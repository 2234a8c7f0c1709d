// Cuts one layer's attention into kernel calls and shares them between workers. Used by every LayerAttention of memory/.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "attention/geometry.h"
#include "attention/kernels.h"
#include "attention/layer_attention.h"
#include "attention/rope.h"

namespace longhold {

// 64-byte aligned floats that only grow. *confined* to one worker.
class AlignedFloats {
 public:
  AlignedFloats() = default;
  ~AlignedFloats();
  AlignedFloats(const AlignedFloats&) = delete;
  AlignedFloats& operator=(const AlignedFloats&) = delete;
  // At least `count` floats; the contents are undefined after a growth.
  float* Ensure(size_t count);

 private:
  float* data_ = nullptr;
  size_t size_ = 0;
};

// What one worker needs for its calls.
struct TileScratch {
  AlignedFloats q;       // rotated queries of a tile
  AlignedFloats out;
  AlignedFloats kernel;
  std::vector<float> mass;  // [keys, rounded up to blocks]; used when LayerCall::count_mass
};

// Workers that a pass may have. Bounds the scratch lists, which are made up front because workers enter at the same time.
inline constexpr uint32_t kWorkersMax = 64;

struct LayerCall {
  const KvGeometry* geometry = nullptr;
  const RopeTable* rope = nullptr;
  LayerRows queries;
  uint32_t tokens = 0;
  uint32_t first_position = 0;  // virtual position of the first query token
  // Blocks of each KV head, [kv_heads] lists of the same length.
  std::span<const std::vector<KeyBlockView>> blocks;
  uint32_t shared = 0;
  const VisibleKeys* visible = nullptr;  // [tokens]
  float* out = nullptr;                  // [tokens, q_heads, head_dim]
  bool count_mass = false;
};

// Attends this worker's share of the call's tiles. Every worker makes the same call.
void AttendTiles(const LayerCall& call, TileScratch* scratch, uint32_t worker, uint32_t workers);

}  // namespace longhold
