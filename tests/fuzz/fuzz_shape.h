// The blocks that tests/fuzz encodes: two layers of 68 elements a token. So each codec group of 64
// channels has a neighbour of four.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "attention/geometry.h"
#include "base/half.h"
#include "memory/record/records.h"
#include "store/block_codec.h"
#include "store/transform_codec.h"

namespace longhold {

inline KvGeometry FuzzGeometry() {
  KvGeometry g;
  g.layers = {0, 2};
  g.q_heads = 1;
  g.kv_heads = 1;
  g.head_dim = 68;
  g.rope = {RopeSpec{.rotary_dims = 68}, RopeSpec{.neox = true, .rotary_dims = 68}};
  return g;
}

inline BlockShape FuzzShape() { return {.layers = 2, .kv_width = 68}; }

inline Manifest FuzzManifest() {
  Manifest m;
  m.layers = {0, 2};
  m.q_heads = m.kv_heads = 1;
  m.head_dim = 68;
  m.scan_layers = {2, 0};
  m.scan_kv_heads = {0, 0};
  return m;
}

// Waves of three lengths. A few components carry most of the variance, as with a model's keys.
inline KvBlock FuzzBlock(uint32_t tokens, uint64_t seed) {
  KvBlock block = KvBlock::Empty(FuzzShape());
  block.tokens = tokens;
  for (uint32_t layer = 0; layer < block.shape.layers; ++layer) {
    for (uint16_t* side : {block.Keys(layer), block.Values(layer)}) {
      for (uint32_t t = 0; t < tokens; ++t) {
        for (uint32_t c = 0; c < block.shape.kv_width; ++c) {
          const double x = static_cast<double>(seed * 64 + t), y = c + 1;
          side[t * block.shape.kv_width + c] =
              ToHalf(static_cast<float>(std::sin(x * 0.7) * y / 16 +
                                        std::cos(x * 0.3) * std::sin(y) + 0.05 * std::sin(x * y)));
        }
      }
    }
  }
  return block;
}

inline TransformBasis FuzzBasis(MultiplyAdd multiply) {
  std::vector<KvBlock> blocks;
  for (uint64_t seed = 0; seed < 8; ++seed) blocks.push_back(FuzzBlock(kBlockTokens, seed));
  return *TransformBasis::Fit(blocks, kArchiveStep, multiply);
}

}  // namespace longhold
