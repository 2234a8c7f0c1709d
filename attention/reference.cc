#include "attention/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/half.h"

namespace longhold {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Element i of a KeyBlockView's array, which is stored as float or as fp16.
double Number(const float* floats, const uint16_t* fp16, size_t i) {
  return fp16 != nullptr ? double{FromHalf(fp16[i])} : double{floats[i]};
}

bool IsVisible(const VisibleKeys& v, uint32_t shared, size_t key) {
  return key < v.end && (key < shared || key >= v.begin);
}

}  // namespace

void ReferenceAttend(const AttendCall& call) {
  const size_t keys = call.blocks.size() * kBlockTokens;
  const uint32_t d = call.head_dim;
  std::vector<double> logits(keys);
  std::vector<double> sums(d);
  for (uint32_t r = 0; r < call.rows; ++r) {
    double max = -kInfinity;
    for (size_t j = 0; j < keys; ++j) {
      logits[j] = -kInfinity;
      if (!IsVisible(call.visible[r / call.group], call.shared, j)) continue;
      const KeyBlockView& block = call.blocks[j / kBlockTokens];
      const size_t slot = j % kBlockTokens;
      double x = 0;
      for (uint32_t c = 0; c < d; ++c) {
        x += double{call.q[size_t{r} * d + c]} *
             Number(block.keys_t, block.half_keys_t, c * kBlockTokens + slot);
      }
      x *= double{call.scale};
      if (call.softcap != 0) x = call.softcap * std::tanh(x / call.softcap);
      if (block.bias != nullptr) x += block.bias[slot];
      logits[j] = x;
      max = std::max(max, x);
    }
    const bool empty = max == -kInfinity;
    double sum = 0;
    std::fill(sums.begin(), sums.end(), 0.0);
    for (size_t j = 0; j < keys && !empty; ++j) {
      logits[j] = std::exp(logits[j] - max);
      sum += logits[j];
      const KeyBlockView& block = call.blocks[j / kBlockTokens];
      for (uint32_t c = 0; c < d; ++c)
        sums[c] += logits[j] * Number(block.values, block.half_values, (j % kBlockTokens) * d + c);
    }
    for (uint32_t c = 0; c < d; ++c)
      call.out[size_t{r} * d + c] = empty ? 0.0f : static_cast<float>(sums[c] / sum);
    if (call.lse != nullptr)
      call.lse[r] =
          empty ? -std::numeric_limits<float>::infinity() : static_cast<float>(max + std::log(sum));
    if (call.key_mass == nullptr || empty) continue;
    for (size_t j = 0; j < keys; ++j)
      call.key_mass[r * call.key_mass_stride + j] += static_cast<float>(logits[j] / sum);
  }
}

void ReferenceScan(const ScanCall& call) {
  const uint32_t d = call.head_dim;
  double logits[kBlockTokens];
  for (size_t b = 0; b < call.block_count; ++b) {
    const uint8_t* keys = call.keys + b * d * kBlockTokens;
    for (uint32_t r = 0; r < call.rows; ++r) {
      double max = -kInfinity;
      for (uint32_t j = 0; j < call.counts[b]; ++j) {
        int64_t dot = 0;
        for (uint32_t c = 0; c < d; ++c) {
          const int key = keys[(size_t{c / 4} * kBlockTokens + j) * 4 + c % 4];
          dot += int64_t{call.q[size_t{r} * d + c]} * (key - 128);
        }
        logits[j] = double{call.q_scale[r]} * double{call.key_scale[b * kBlockTokens + j]} *
                    static_cast<double>(dot);
        max = std::max(max, logits[j]);
      }
      double sum = 0;
      for (uint32_t j = 0; j < call.counts[b]; ++j) sum += std::exp(logits[j] - max);
      call.block_max[b * call.rows + r] = static_cast<float>(max);
      call.block_sum[b * call.rows + r] = static_cast<float>(sum);
    }
  }
}

void ReferenceRotate(const RopeSpec& spec, const float* in, float* out, uint32_t head_dim,
                     uint64_t position) {
  const uint32_t pairs = spec.rotary_dims / 2;
  std::vector<double> x(in, in + head_dim);
  std::vector<double> y = x;
  for (uint32_t i = 0; i < pairs; ++i) {
    const double ff = spec.freq_factors.empty() ? 1.0 : spec.freq_factors[i];
    const double plain =
        position * std::pow(double{spec.freq_base}, -2.0 * i / spec.rotary_dims) / ff;
    double theta = spec.freq_scale * plain;
    double magnitude = spec.attn_factor;
    if (spec.ext_factor != 0) {
      // The ends of the ramp are integers. They are computed in float, as the engine does: in
      // double, a value close to an integer could round the other way.
      const auto pair_turning = [&](float turns) {
        const float span = static_cast<float>(spec.ctx_orig) / (turns * 2.0f * 3.14159265358979f);
        return static_cast<float>(spec.rotary_dims) * std::log(span) /
               (2.0f * std::log(spec.freq_base));
      };
      const double low = std::max(0.0f, std::floor(pair_turning(spec.beta_fast)));
      const double high =
          std::min(spec.rotary_dims - 1.0f, std::ceil(pair_turning(spec.beta_slow)));
      const double ramp = std::clamp((i - low) / std::max(0.001, high - low), 0.0, 1.0);
      const double extrapolated = (1.0 - ramp) * spec.ext_factor;
      theta += (plain - theta) * extrapolated;
      magnitude *= 1.0 + 0.1 * std::log(1.0 / spec.freq_scale);
    }
    const uint32_t first = spec.neox ? i : 2 * i;
    const uint32_t second = spec.neox ? i + pairs : 2 * i + 1;
    y[first] = magnitude * (x[first] * std::cos(theta) - x[second] * std::sin(theta));
    y[second] = magnitude * (x[first] * std::sin(theta) + x[second] * std::cos(theta));
  }
  for (uint32_t c = 0; c < head_dim; ++c) out[c] = static_cast<float>(y[c]);
}

}  // namespace longhold
