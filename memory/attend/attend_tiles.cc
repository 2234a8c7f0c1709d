#include "memory/attend/attend_tiles.h"

#include <algorithm>
#include <cmath>
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

void SharedParts::Prepare(uint32_t rows, uint32_t blocks, uint32_t head_dim, bool count_mass) {
  count_ = rows > kRowsMax ? 1 : std::clamp(blocks / kPartBlocks, 1u, kPartsMax);
  if (count_ == 1) return;
  const size_t rows_in_all = done.size() * rows;
  out.Ensure(rows_in_all * count_ * head_dim);
  lse.Ensure(rows_in_all * count_);
  if (count_mass) mass.Ensure(rows_in_all * blocks * kBlockTokens);
}

namespace {

// Query tokens [begin, begin + count) of one KV head.
struct Tile {
  uint32_t kv_head;
  uint32_t begin;
  uint32_t count;
};

// The kernel call for a tile over all keys. The caller still sets the outputs.
AttendCall CallOf(const LayerCall& call, const Tile& tile, TileScratch* scratch) {
  const KvGeometry& g = *call.geometry;
  const uint32_t group = g.group(), d = g.head_dim, rows = tile.count * group;
  float* q = scratch->q.Ensure(size_t{rows} * d);
  for (uint32_t t = 0; t < tile.count; ++t) {
    for (uint32_t h = 0; h < group; ++h) {
      const float* source = call.queries.data + (tile.begin + t) * call.queries.token_stride +
                            (tile.kv_head * group + h) * d;
      call.rope->Rotate(source, q + (size_t{t} * group + h) * d, d,
                        call.first_position + tile.begin + t);
    }
  }
  AttendCall kernel_call;
  kernel_call.q = q;
  kernel_call.rows = rows;
  kernel_call.group = group;
  kernel_call.head_dim = d;
  kernel_call.blocks = call.blocks[tile.kv_head];
  kernel_call.shared = call.shared;
  kernel_call.visible = call.visible + tile.begin;
  kernel_call.scale = g.scale;
  kernel_call.softcap = g.softcap;
  kernel_call.scratch = scratch->kernel.Ensure(AttendScratchFloats(rows, d));
  return kernel_call;
}

float* MassOf(const LayerCall& call, uint32_t kv_head, TileScratch* scratch) {
  const size_t keys = call.blocks[0].size() * kBlockTokens,
               heads = call.heads_apart ? call.geometry->kv_heads : 1;
  scratch->mass.resize(std::max(scratch->mass.size(), heads * keys), 0.0f);
  return scratch->mass.data() + (call.heads_apart ? kv_head * keys : 0);
}

// The place of a tile's row in the call's output.
float* OutRow(const LayerCall& call, const Tile& tile, uint32_t row) {
  const KvGeometry& g = *call.geometry;
  const uint32_t group = g.group();
  return call.out +
         (size_t{tile.begin + row / group} * g.q_heads + tile.kv_head * group + row % group) *
             g.head_dim;
}

void AttendWhole(const LayerCall& call, const Tile& tile, TileScratch* scratch) {
  AttendCall kernel_call = CallOf(call, tile, scratch);
  const uint32_t d = kernel_call.head_dim;
  kernel_call.out = scratch->out.Ensure(size_t{kernel_call.rows} * d);
  if (call.count_mass) kernel_call.key_mass = MassOf(call, tile.kv_head, scratch);
  Kernels().attend(kernel_call);
  for (uint32_t r = 0; r < kernel_call.rows; ++r) {
    std::memcpy(OutRow(call, tile, r), kernel_call.out + size_t{r} * d, d * sizeof(float));
  }
}

// Merges the parts of a tile: out = sum_p exp(lse_p - lse) out_p with lse = log sum_p exp(lse_p),
// as in attention/state.h. The masses of the parts are weighted in the same way.
void MergeParts(const LayerCall& call, const Tile& tile, TileScratch* scratch) {
  SharedParts& parts = *call.parts;
  const uint32_t count = parts.count(), d = call.geometry->head_dim,
                 rows = tile.count * call.geometry->group();
  const uint32_t blocks = static_cast<uint32_t>(call.blocks[tile.kv_head].size());
  const float* lse = parts.lse.Ensure(0) + size_t{tile.kv_head} * count * rows;
  const float* out = parts.out.Ensure(0) + size_t{tile.kv_head} * count * rows * d;
  for (uint32_t r = 0; r < rows; ++r) {
    float max = lse[r];
    for (uint32_t p = 1; p < count; ++p) max = std::max(max, lse[p * rows + r]);
    float weight[SharedParts::kPartsMax] = {};
    float sum = 0;
    for (uint32_t p = 0; p < count && std::isfinite(max); ++p)
      sum += weight[p] = std::exp(lse[p * rows + r] - max);
    float* merged = OutRow(call, tile, r);
    std::fill_n(merged, d, 0.0f);
    for (uint32_t p = 0, block = 0; p < count; ++p) {
      const uint32_t end = SharedParts::PartEnd(p, count, blocks);
      const float share = sum > 0 ? weight[p] / sum : 0.0f;
      const float* part = out + (size_t{p} * rows + r) * d;
      for (uint32_t c = 0; c < d; ++c) merged[c] += share * part[c];
      if (call.count_mass) {
        float* mass = MassOf(call, tile.kv_head, scratch);
        const float* own =
            parts.mass.Ensure(0) + (size_t{tile.kv_head} * rows + r) * blocks * kBlockTokens;
        for (size_t j = size_t{block} * kBlockTokens; j < size_t{end} * kBlockTokens; ++j)
          mass[j] += share * own[j];
      }
      block = end;
    }
  }
}

void AttendPart(const LayerCall& call, const Tile& tile, uint32_t part, TileScratch* scratch) {
  SharedParts& parts = *call.parts;
  AttendCall kernel_call = CallOf(call, tile, scratch);
  const uint32_t count = parts.count(), rows = kernel_call.rows, d = kernel_call.head_dim;
  const uint32_t blocks = static_cast<uint32_t>(kernel_call.blocks.size());
  const uint32_t first = part == 0 ? 0 : SharedParts::PartEnd(part - 1, count, blocks),
                 last = SharedParts::PartEnd(part, count, blocks);
  const uint32_t first_key = first * kBlockTokens;
  VisibleKeys visible[SharedParts::kRowsMax];
  for (uint32_t t = 0; t < tile.count; ++t) {
    const VisibleKeys& all = call.visible[tile.begin + t];
    visible[t] = {std::max(all.begin, first_key) - first_key,
                  std::max(all.end, first_key) - first_key};
  }
  kernel_call.blocks = kernel_call.blocks.subspan(first, last - first);
  kernel_call.shared = std::max(call.shared, first_key) - first_key;
  kernel_call.visible = visible;
  const size_t row = (size_t{tile.kv_head} * count + part) * rows;
  kernel_call.out = parts.out.Ensure(0) + row * d;
  kernel_call.lse = parts.lse.Ensure(0) + row;
  if (call.count_mass) {
    kernel_call.key_mass_stride = size_t{blocks} * kBlockTokens;
    kernel_call.key_mass = parts.mass.Ensure(0) +
                           size_t{tile.kv_head} * rows * kernel_call.key_mass_stride + first_key;
    for (uint32_t r = 0; r < rows; ++r) {
      std::fill_n(kernel_call.key_mass + r * kernel_call.key_mass_stride,
                  size_t{last - first} * kBlockTokens, 0.0f);
    }
  }
  Kernels().attend(kernel_call);
  if (parts.done[tile.kv_head].fetch_add(1, std::memory_order_acq_rel) + 1 < count) return;
  parts.done[tile.kv_head].store(0, std::memory_order_relaxed);
  MergeParts(call, tile, scratch);
}

}  // namespace

void AttendTiles(const LayerCall& call, TileScratch* scratch, uint32_t worker, uint32_t workers) {
  const KvGeometry& g = *call.geometry;
  if (call.parts != nullptr && call.parts->count() > 1) {
    // Each worker gets consecutive parts, so it reads consecutive keys in memory.
    const uint32_t count = g.kv_heads * call.parts->count();
    for (uint32_t i = count * worker / workers; i < count * (worker + 1) / workers; ++i) {
      AttendPart(call, {i / call.parts->count(), 0, call.tokens}, i % call.parts->count(), scratch);
    }
    return;
  }
  // Tiles are short so that their logits over a window stay in the second-level cache.
  const uint32_t tile_tokens = std::max(1u, std::min(kAttendRowsMax, 48u) / g.group());
  const uint32_t tiles_per_head = (call.tokens + tile_tokens - 1) / tile_tokens;
  for (uint32_t i = worker; i < tiles_per_head * g.kv_heads; i += workers) {
    const uint32_t begin = i % tiles_per_head * tile_tokens;
    AttendWhole(call, {i / tiles_per_head, begin, std::min(tile_tokens, call.tokens - begin)},
                scratch);
  }
}

}  // namespace longhold
