#include "memory/attend_tiles.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/status.h"

namespace longhold {

AlignedFloats::~AlignedFloats() { std::free(data_); }

float* AlignedFloats::Ensure(size_t count) {
  if (count > size_) {
    std::free(data_);
    const size_t bytes = (count * sizeof(float) + 63) / 64 * 64;
    data_ = static_cast<float*>(std::aligned_alloc(64, bytes));
    LH_CHECK(data_ != nullptr);
    size_ = bytes / sizeof(float);
  }
  return data_;
}

void AttendTiles(const LayerCall& call, TileScratch* scratch, uint32_t worker, uint32_t workers) {
  const KvGeometry& g = *call.geometry;
  const uint32_t group = g.group(), d = g.head_dim;
  // Short tiles: their logits over a window stay in the second-level cache.
  const uint32_t tile_tokens = std::max(1u, std::min(kAttendRowsMax, 48u) / group);
  const uint32_t tiles_per_head = (call.tokens + tile_tokens - 1) / tile_tokens;
  const uint32_t tiles = tiles_per_head * g.kv_heads;
  for (uint32_t tile = worker; tile < tiles; tile += workers) {
    const uint32_t kv_head = tile / tiles_per_head;
    const uint32_t begin = tile % tiles_per_head * tile_tokens;
    const uint32_t count = std::min(tile_tokens, call.tokens - begin);
    const uint32_t rows = count * group;
    float* q = scratch->q.Ensure(size_t{rows} * d);
    float* out = scratch->out.Ensure(size_t{rows} * d);
    for (uint32_t t = 0; t < count; ++t) {
      for (uint32_t h = 0; h < group; ++h) {
        const float* source = call.queries.data + (begin + t) * call.queries.token_stride + (kv_head * group + h) * d;
        call.rope->Rotate(source, q + (size_t{t} * group + h) * d, d, call.first_position + begin + t);
      }
    }
    AttendCall kernel_call;
    kernel_call.q = q;
    kernel_call.rows = rows;
    kernel_call.group = group;
    kernel_call.head_dim = d;
    kernel_call.blocks = call.blocks[kv_head];
    kernel_call.shared = call.shared;
    kernel_call.visible = call.visible + begin;
    kernel_call.scale = g.scale;
    kernel_call.softcap = g.softcap;
    kernel_call.out = out;
    if (call.count_mass) {
      scratch->mass.resize(std::max(scratch->mass.size(), call.blocks[kv_head].size() * kBlockTokens), 0.0f);
      kernel_call.key_mass = scratch->mass.data();
    }
    kernel_call.scratch = scratch->kernel.Ensure(AttendScratchFloats(rows, d));
    Kernels().attend(kernel_call);
    for (uint32_t t = 0; t < count; ++t) {
      std::memcpy(call.out + (size_t{begin + t} * g.q_heads + kv_head * group) * d, out + size_t{t} * group * d,
                  size_t{group} * d * sizeof(float));
    }
  }
}

}  // namespace longhold
