// The shape of the attention that longhold computes in place of a model's own, and how the model
// encodes positions (RoPE).
//
// Thread use: value types; *immutable* once built.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"

namespace longhold {

// How one layer rotates queries and keys (rotary position embedding, RoPE). The values are read
// from the model's own graph; nothing is guessed.
//
// Angle of pair i at position p:
//   theta_i(p) = freq_scale * p * freq_base^(-2 i / rotary_dims) / freq_factors[i]
//
// Pairing: NORM rotates elements (2i, 2i+1); NEOX rotates (i, i + rotary_dims/2). Elements past
// rotary_dims are not rotated.
//
// With YaRN (ext_factor != 0), each pair's angle is a mix of the interpolated and the extrapolated
// angle, and the magnitude is scaled. See "YaRN: Efficient Context Window Extension of Large
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
  std::vector<float> freq_factors;  // [rotary_dims / 2]; empty means all ones

  friend bool operator==(const RopeSpec&, const RopeSpec&) = default;
};

// The tapped layers: those whose attention longhold computes. All of them have the same head counts
// and head size. model/ refuses a model where they differ.
struct KvGeometry {
  // Indices in the model, ascending. All other layers stay with the engine (libllama).
  std::vector<uint32_t> layers;
  uint32_t q_heads = 0;
  // Divides q_heads. Query head h reads KV head h / (q_heads / kv_heads).
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;       // a multiple of 4, at most kMaxHeadDim
  float scale = 1.0f;          // logit = scale * q.k
  float softcap = 0.0f;        // if not 0: logit = softcap * tanh(logit / softcap)
  std::vector<RopeSpec> rope;  // [layers.size()]

  uint32_t group() const { return q_heads / kv_heads; }
  // Elements of K (or of V) per token and layer.
  uint32_t kv_width() const { return kv_heads * head_dim; }

  friend bool operator==(const KvGeometry&, const KvGeometry&) = default;
};

inline constexpr uint32_t kMaxHeadDim = 256;

}  // namespace longhold
