// The models that make_tiny_gguf.py writes, and the contents of their metadata. ctest's fixture
// writes them. To write them by hand:
//   python3 tests/model/make_tiny_gguf.py DIR && LONGHOLD_TINY_GGUF_DIR=DIR model_test
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <ostream>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "model/llama_host.h"

namespace longhold {

struct TinyModel {
  std::string name;
  std::string architecture;
  uint32_t layer_count;
  uint32_t native_window;  // 0: all layers are tapped
  KvGeometry geometry;
  TokenId first_plain;  // ids below are control tokens
};
inline void PrintTo(const TinyModel& m, std::ostream* out) { *out << m.name; }

// 1 / sqrt(16): for the models with heads of 16.
inline constexpr float kScale16 = 0.25f;

inline const std::vector<TinyModel>& TinyModels() {
  static const std::vector<TinyModel> models = [] {
    constexpr TokenId kBpeControl = 4, kSpmControl = 6;
    const RopeSpec norm = {.rotary_dims = 16, .freq_base = 10000.0f, .ctx_orig = 4096};
    const auto llama = [&](const std::string& name, const RopeSpec& rope) {
      return TinyModel{name,
                       "llama",
                       3,
                       0,
                       {.layers = {0, 1, 2},
                        .q_heads = 6,
                        .kv_heads = 2,
                        .head_dim = 16,
                        .scale = kScale16,
                        .rope = {rope, rope, rope}},
                       kBpeControl};
    };
    std::vector<TinyModel> out = {llama("llama", norm), llama("llama_fused_qkv", norm)};

    RopeSpec factors = norm;
    factors.freq_base = 500000.0f;
    for (int i = 0; i < 8; ++i)
      factors.freq_factors.push_back(1.0f + 0.75f * static_cast<float>(i));
    out.push_back(llama("llama31", factors));
    RopeSpec linear = norm;
    linear.freq_scale = 0.25f;
    out.push_back(llama("llama_linear", linear));
    RopeSpec yarn = norm;
    yarn.freq_scale = 0.25f;
    yarn.ext_factor = 1.0f;
    yarn.ctx_orig = 128;
    // The magnitude must be 1 + 0.1 ln 4. The rotation itself multiplies by that, so libllama must
    // get a factor of 1.
    yarn.attn_factor = 1.0f;
    out.push_back(llama("llama_yarn", yarn));

    RopeSpec neox = {.neox = true, .rotary_dims = 16, .freq_base = 1000000.0f, .ctx_orig = 4096};
    out.push_back({"qwen2",
                   "qwen2",
                   3,
                   0,
                   {.layers = {0, 1, 2},
                    .q_heads = 6,
                    .kv_heads = 3,
                    .head_dim = 16,
                    .scale = kScale16,
                    .rope = {neox, neox, neox}},
                   kBpeControl});
    RopeSpec wide = neox;
    wide.rotary_dims = 32;
    const float scale32 = 1.0f / std::sqrt(32.0f);
    out.push_back({"qwen3",
                   "qwen3",
                   3,
                   0,
                   {.layers = {0, 1, 2},
                    .q_heads = 4,
                    .kv_heads = 1,
                    .head_dim = 32,
                    .scale = scale32,
                    .rope = {wide, wide, wide}},
                   kBpeControl});
    // Five sliding-window layers, then a global one. Gemma scales its queries before the attention,
    // so the attention's own scale is 1.
    RopeSpec global = wide;
    global.freq_scale = 0.125f;
    out.push_back({"gemma3",
                   "gemma3",
                   13,
                   32,
                   {.layers = {5, 11},
                    .q_heads = 4,
                    .kv_heads = 1,
                    .head_dim = 32,
                    .scale = 1.0f,
                    .rope = {global, global}},
                   kSpmControl});
    // Without a window every layer is global: gemma3 with no layer left to the engine's 16-bit
    // attention.
    out.push_back({"gemma3_global",
                   "gemma3",
                   3,
                   0,
                   {.layers = {0, 1, 2},
                    .q_heads = 4,
                    .kv_heads = 1,
                    .head_dim = 32,
                    .scale = 1.0f,
                    .rope = {wide, wide, wide}},
                   kSpmControl});
    RopeSpec half = wide;
    half.rotary_dims = 16;
    out.push_back({"gemma3_partial_rope",
                   "gemma3",
                   7,
                   32,
                   {.layers = {5},
                    .q_heads = 2,
                    .kv_heads = 2,
                    .head_dim = 32,
                    .scale = 1.0f,
                    .rope = {half}},
                   kSpmControl});
    RopeSpec gemma2 = wide;
    gemma2.freq_base = 10000.0f;
    out.push_back({"gemma2",
                   "gemma2",
                   4,
                   32,
                   {.layers = {1, 3},
                    .q_heads = 4,
                    .kv_heads = 2,
                    .head_dim = 32,
                    .scale = 1.0f,
                    .softcap = 5.0f,
                    .rope = {gemma2, gemma2}},
                   kSpmControl});
    return out;
  }();
  return models;
}

inline const TinyModel& FindTiny(const std::string& name) {
  for (const TinyModel& m : TinyModels()) {
    if (m.name == name) return m;
  }
  abort();
}

inline std::string TinyPath(const std::string& name) {
  const char* dir = getenv("LONGHOLD_TINY_GGUF_DIR");
  if (dir == nullptr) {
    ADD_FAILURE()
        << "LONGHOLD_TINY_GGUF_DIR is not set: run by ctest, or see tests/model/tiny_models.h";
    return name + ".gguf";
  }
  return std::string(dir) + "/" + name + ".gguf";
}

inline Status LoadStatus(const std::string& path) { return LoadLlama({.path = path}).status(); }

// Loads with the proof. Fails the test and returns null on error. Use two threads only to test the
// sharing of work: two threads that wait for each other are very slow on a busy machine.
inline std::unique_ptr<LanguageModel> LoadTiny(const std::string& name, uint32_t threads = 1,
                                               uint32_t sequences = 1) {
  Result<std::unique_ptr<LanguageModel>> model = LoadLlama({.path = TinyPath(name),
                                                            .threads = threads,
                                                            .sequences = sequences,
                                                            .native_bytes = 1ull << 30});
  if (!model.ok()) {
    ADD_FAILURE() << model.status().ToString();
    return nullptr;
  }
  return std::move(model).value();
}

// `count` plain tokens, the same ones for the same seed. Every token is equally likely, so no
// answer can be right by repeating the last token.
inline std::vector<TokenId> PlainTokens(const TinyModel& tiny, const LanguageModel& model,
                                        size_t count, uint32_t seed = 1) {
  std::mt19937 rng(seed);
  std::vector<TokenId> tokens(count);
  const uint32_t plain = model.info().vocab_size - static_cast<uint32_t>(tiny.first_plain);
  for (TokenId& t : tokens) t = tiny.first_plain + static_cast<TokenId>(rng() % plain);
  return tokens;
}

inline size_t ArgMax(std::span<const float> v) {
  return static_cast<size_t>(std::max_element(v.begin(), v.end()) - v.begin());
}

}  // namespace longhold
