#include "memory/sidecar/kv_rows.h"

#include <algorithm>
#include <array>
#include <string>

#include "attention/kernels.h"

namespace longhold {
namespace {

using Head = std::array<float, kMaxHeadDim>;

void Load(const void* array, size_t at, bool float32, uint32_t count, float* out) {
  if (float32) {
    std::copy_n(static_cast<const float*>(array) + at, count, out);
  } else {
    Kernels().half_to_float(static_cast<const uint16_t*>(array) + at, out, count);
  }
}

void Store(const float* in, uint32_t count, bool float32, void* array, size_t at) {
  if (float32) {
    std::copy_n(in, count, static_cast<float*>(array) + at);
  } else {
    Kernels().float_to_half(in, static_cast<uint16_t*>(array) + at, count);
  }
}

// Whether all elements are finite as fp16.
bool ToHalves(const float* in, uint32_t count, uint16_t* out) {
  Kernels().float_to_half(in, out, count);
  bool finite = true;
  for (uint32_t c = 0; c < count; ++c) finite &= (out[c] & 0x7C00u) != 0x7C00u;
  return finite;
}

void ClearRows(uint32_t row, uint32_t count, KvBlock* block) {
  const size_t width = block->shape.kv_width;
  for (uint32_t slot = 0; slot < block->shape.layers; ++slot) {
    std::fill_n(block->Keys(slot) + row * width, count * width, uint16_t{0});
    std::fill_n(block->Values(slot) + row * width, count * width, uint16_t{0});
  }
}

}  // namespace

Status FillBlock(const KvGeometry& geometry, const KvArrays<const void>& arrays, size_t from,
                 uint32_t row, uint32_t count, const RopeTables* ropes, KvBlock* block) {
  const uint32_t d = geometry.head_dim;
  const KvLayout& layout = arrays.layout;
  Head head;
  for (uint32_t slot = 0; slot < block->shape.layers; ++slot) {
    for (uint32_t i = 0; i < count; ++i) {
      for (uint32_t h = 0; h < geometry.kv_heads; ++h) {
        const size_t at = (from + i) * layout.token_stride + h * layout.head_stride;
        const size_t to = size_t{row + i} * block->shape.kv_width + size_t{h} * d;
        Load(arrays.keys[slot], at, layout.float32, d, head.data());
        if (layout.rotated) ropes->Of(slot).Unrotate(head.data(), head.data(), d, i);
        bool finite = ToHalves(head.data(), d, block->Keys(slot) + to);
        Load(arrays.values[slot], at, layout.float32, d, head.data());
        finite &= ToHalves(head.data(), d, block->Values(slot) + to);
        if (!finite) {
          ClearRows(row, count, block);
          return InvalidArgument("row " + std::to_string(from + i) + ", layer " +
                                 std::to_string(geometry.layers[slot]) + ", KV head " +
                                 std::to_string(h) +
                                 ": a key or value is not finite in half precision");
        }
      }
    }
  }
  block->tokens = row + count;
  return OkStatus();
}

void CopyRows(const KvGeometry& geometry, const KvBlock& block, uint32_t row, uint32_t count,
              const RopeTables* ropes, size_t to, const KvArrays<void>& arrays) {
  const uint32_t d = geometry.head_dim;
  const KvLayout& layout = arrays.layout;
  Head head;
  for (uint32_t slot = 0; slot < block.shape.layers; ++slot) {
    for (uint32_t i = 0; i < count; ++i) {
      for (uint32_t h = 0; h < geometry.kv_heads; ++h) {
        const size_t from = size_t{row + i} * block.shape.kv_width + size_t{h} * d;
        const size_t at = (to + i) * layout.token_stride + h * layout.head_stride;
        Load(block.Keys(slot), from, false, d, head.data());
        if (layout.rotated) ropes->Of(slot).Rotate(head.data(), head.data(), d, i);
        Store(head.data(), d, layout.float32, arrays.keys[slot], at);
        Load(block.Values(slot), from, false, d, head.data());
        Store(head.data(), d, layout.float32, arrays.values[slot], at);
      }
    }
  }
}

}  // namespace longhold
