// The shape of the attention that longhold takes over from a model, and how the model rotates
// positions.
//
// Thread use: value types; *immutable* once built.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"

namespace longhold {

// How one layer rotates queries and keys (RoPE). Read from the model's own graph, never guessed.
//   angle of pair i at position p:  theta_i(p) = freq_scale * p * freq_base^(-2 i / rotary_dims) /
//   freq_factors[i]
// Pairing: NORM rotates elements (2i, 2i+1); NEOX rotates (i, i + rotary_dims/2). Elements past
// rotary_dims pass through. YaRN (ext_factor != 0) mixes the interpolated and the extrapolated
// angle per pair and scales the magnitude; see "YaRN: Efficient Context Window Extension of Large
// Language Models", arXiv:2309.00071.
struct RopeSpec {
  bool neox = false;
  uint32_t rotary_dims = 0;
  float freq_base = 10000.0f;
  float freq_scale = 1.0f;
  float attn_factor = 1.0f;
  float ext_factor = 0.0f;
  float beta_fast = 32.0f;
  float beta_slow = 1.0f;
  uint32_t ctx_orig = 0;
  std::vector<float> freq_factors;  // [rotary_dims / 2], or empty for all ones

  friend bool operator==(const RopeSpec&, const RopeSpec&) = default;
};

// The layers that longhold attends for. All of them have the same head counts and size; a model
// where they differ is refused by model/.
struct KvGeometry {
  // indices in the model, ascending; "tapped layers". Other layers stay with the engine.
  std::vector<uint32_t> layers;
  uint32_t q_heads = 0;
  // q_heads is a multiple: query head h reads KV head h / (q_heads / kv_heads)
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;       // a multiple of 4, at most kMaxHeadDim
  float scale = 1.0f;          // logit = scale * q.k
  float softcap = 0.0f;        // logit = softcap * tanh(logit / softcap) when not 0
  std::vector<RopeSpec> rope;  // [layers.size()]

  uint32_t group() const { return q_heads / kv_heads; }
  // Elements of K (or of V) per token and layer.
  uint32_t kv_width() const { return kv_heads * head_dim; }

  friend bool operator==(const KvGeometry&, const KvGeometry&) = default;
};

inline constexpr uint32_t kMaxHeadDim = 256;

}  // namespace longhold
