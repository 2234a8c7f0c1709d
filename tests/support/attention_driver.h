// Drives a LayerAttention as a model would, with random queries, keys and values, and computes the
// expected outputs.
#pragma once

#include <algorithm>
#include <barrier>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <span>
#include <thread>
#include <vector>

#include "attention/geometry.h"
#include "attention/kernels.h"
#include "attention/layer_attention.h"
#include "attention/reference.h"
#include "base/types.h"
#include "store/block_codec.h"

namespace longhold {

// Three layers that rotate in three ways; grouped heads; layer numbers that differ from slots.
inline KvGeometry TestGeometry() {
  KvGeometry g;
  g.layers = {1, 3, 4};
  g.q_heads = 4;
  g.kv_heads = 2;
  g.head_dim = 8;
  g.scale = 0.3535534f;
  g.rope = {RopeSpec{.neox = false, .rotary_dims = 8, .freq_base = 10000.0f},
            RopeSpec{.neox = true, .rotary_dims = 8, .freq_base = 500.0f},
            RopeSpec{.neox = true, .rotary_dims = 4, .freq_base = 100.0f, .freq_scale = 0.5f}};
  return g;
}

// Queries, keys and values of consecutive tokens before rotation. Value type.
struct Sequence {
  uint32_t tokens = 0;
  std::vector<std::vector<float>> q;  // [layers] of [tokens, q_heads * head_dim]
  std::vector<std::vector<float>> k;  // [layers] of [tokens, kv_width]
  std::vector<std::vector<float>> v;
};

// Random keys and values that fp16 holds exactly, so that rounding to 16 bits changes nothing.
inline Sequence RandomSequence(const KvGeometry& g, uint32_t tokens, uint64_t seed,
                               bool half_exact = true) {
  std::mt19937_64 rng(seed);
  std::normal_distribution<float> normal;
  const auto draw = [&](size_t count, bool round) {
    std::vector<float> x(count);
    for (float& f : x) f = normal(rng);
    if (round) {
      std::vector<uint16_t> half(count);
      Kernels().float_to_half(x.data(), half.data(), count);
      Kernels().half_to_float(half.data(), x.data(), count);
    }
    return x;
  };
  Sequence s;
  s.tokens = tokens;
  for (size_t l = 0; l < g.layers.size(); ++l) {
    s.q.push_back(draw(size_t{tokens} * g.q_heads * g.head_dim, false));
    s.k.push_back(draw(size_t{tokens} * g.kv_width(), half_exact));
    s.v.push_back(draw(size_t{tokens} * g.kv_width(), half_exact));
  }
  return s;
}

// Runs fn(worker) on `workers` concurrent threads, or on the calling thread if it is one.
inline void OnWorkers(uint32_t workers, const std::function<void(uint32_t)>& fn) {
  std::vector<std::thread> threads;
  for (uint32_t w = 1; w < workers; ++w) threads.emplace_back(fn, w);
  fn(0);
  for (std::thread& t : threads) t.join();
}

using LayerOutputs = std::vector<std::vector<float>>;  // [layers] of [tokens, q_heads * head_dim]

// One forward pass over tokens [begin, end) of `s`: per layer StoreKeys, StoreValues, Attend, each
// by all workers. No worker enters a call before all have left the previous one. The stride of rows
// exceeds their width, as in a fused product.
inline LayerOutputs DrivePass(LayerAttention& attention, const KvGeometry& g, const Sequence& s,
                              uint32_t begin, uint32_t end, uint32_t workers = 1,
                              bool values_first = false) {
  const uint32_t tokens = end - begin;
  const size_t q_width = size_t{g.q_heads} * g.head_dim, kv_width = g.kv_width();
  const size_t q_stride = q_width + 3, kv_stride = kv_width + 5;
  LayerOutputs out(g.layers.size(),
                   std::vector<float>(tokens * q_width, std::numeric_limits<float>::quiet_NaN()));
  const auto spread = [&](const std::vector<float>& rows, size_t width, size_t stride) {
    std::vector<float> wide(tokens * stride, std::numeric_limits<float>::quiet_NaN());
    for (size_t t = 0; t < tokens; ++t) {
      std::copy_n(rows.begin() + static_cast<ptrdiff_t>((begin + t) * width), width,
                  wide.begin() + static_cast<ptrdiff_t>(t * stride));
    }
    return wide;
  };
  std::barrier barrier(static_cast<ptrdiff_t>(workers));
  for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
    const std::vector<float> q = spread(s.q[slot], q_width, q_stride),
                             k = spread(s.k[slot], kv_width, kv_stride),
                             v = spread(s.v[slot], kv_width, kv_stride);
    OnWorkers(workers, [&](uint32_t w) {
      if (values_first) attention.StoreValues(slot, {v.data(), kv_stride}, tokens, w, workers);
      barrier.arrive_and_wait();
      attention.StoreKeys(slot, {k.data(), kv_stride}, tokens, w, workers);
      barrier.arrive_and_wait();
      if (!values_first) attention.StoreValues(slot, {v.data(), kv_stride}, tokens, w, workers);
      barrier.arrive_and_wait();
      attention.Attend(slot, {q.data(), q_stride}, tokens, out[slot].data(), w, workers);
    });
  }
  return out;
}

// A key that some query attends to: token `token` of a sequence, at virtual position `position`.
struct SeenKey {
  uint32_t token = 0;
  uint32_t position = 0;
  double bias = 0;
};

// Attention of query token `token` at `position` over `keys`, by the plain formula in double:
// [q_heads * head_dim].
inline std::vector<float> NaiveAttend(const KvGeometry& g, const Sequence& s, uint32_t slot,
                                      uint32_t token, uint32_t position,
                                      std::span<const SeenKey> keys) {
  const uint32_t d = g.head_dim;
  std::vector<float> out(size_t{g.q_heads} * d);
  std::vector<float> q(d), k(d);
  std::vector<double> logits(keys.size());
  for (uint32_t h = 0; h < g.q_heads; ++h) {
    const size_t kv = h / g.group();
    ReferenceRotate(g.rope[slot], s.q[slot].data() + (size_t{token} * g.q_heads + h) * d, q.data(),
                    d, position);
    double max = -1e300, sum = 0;
    for (size_t j = 0; j < keys.size(); ++j) {
      ReferenceRotate(g.rope[slot],
                      s.k[slot].data() + (size_t{keys[j].token} * g.kv_heads + kv) * d, k.data(), d,
                      keys[j].position);
      double dot = 0;
      for (uint32_t c = 0; c < d; ++c) dot += double{q[c]} * k[c];
      double x = double{g.scale} * dot;
      if (g.softcap != 0) x = g.softcap * std::tanh(x / g.softcap);
      logits[j] = x + keys[j].bias;
      max = std::max(max, logits[j]);
    }
    std::vector<double> o(d, 0.0);
    for (size_t j = 0; j < keys.size(); ++j) {
      const double p = std::exp(logits[j] - max);
      sum += p;
      for (uint32_t c = 0; c < d; ++c)
        o[c] += p * s.v[slot][(size_t{keys[j].token} * g.kv_heads + kv) * d + c];
    }
    for (uint32_t c = 0; c < d; ++c) out[size_t{h} * d + c] = static_cast<float>(o[c] / sum);
  }
  return out;
}

// The blocks of `s`, as an ingest would store them.
inline std::vector<KvBlock> BlocksOf(const KvGeometry& g, const Sequence& s) {
  std::vector<KvBlock> blocks;
  const size_t width = g.kv_width();
  for (uint32_t at = 0; at < s.tokens; at += kBlockTokens) {
    KvBlock block = KvBlock::Empty({static_cast<uint32_t>(g.layers.size()), g.kv_width()});
    block.tokens = std::min(kBlockTokens, s.tokens - at);
    for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
      Kernels().float_to_half(s.k[slot].data() + at * width, block.Keys(slot),
                              block.tokens * width);
      Kernels().float_to_half(s.v[slot].data() + at * width, block.Values(slot),
                              block.tokens * width);
    }
    blocks.push_back(std::move(block));
  }
  return blocks;
}

inline float LargestDifference(std::span<const float> a, std::span<const float> b) {
  float worst = a.size() == b.size() ? 0.0f : std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const float difference = std::abs(a[i] - b[i]);
    worst = difference <= worst ? worst : difference;  // a NaN counts as the worst
  }
  return worst;
}

}  // namespace longhold
