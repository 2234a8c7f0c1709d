#include "attention/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/status.h"

namespace longhold {
namespace {

// YaRN keeps the angles of pairs that turn often within the trained context, and interpolates those
// of pairs that turn rarely. Between them is a ramp: weight 1 (keep) up to pair `low`, weight 0
// (interpolate) from pair `high`.
struct YarnRamp {
  double low = 0;
  double high = 0;

  double Weight(uint32_t pair) const {
    // 0.001 only keeps the division defined if both ends are equal.
    return 1.0 - std::clamp((pair - low) / std::max(0.001, high - low), 0.0, 1.0);
  }
};

// The (fractional) pair that turns `turns` times within the trained context. Computed in float,
// because the engine rounds this number to an integer in float. In double, a value close to an
// integer could round the other way.
float PairTurning(const RopeSpec& spec, float turns) {
  const float span = static_cast<float>(spec.ctx_orig) / (turns * 2 * std::numbers::pi_v<float>);
  return static_cast<float>(spec.rotary_dims) * std::log(span) / (2 * std::log(spec.freq_base));
}

YarnRamp MakeYarnRamp(const RopeSpec& spec) {
  return {.low = std::max(0.0f, std::floor(PairTurning(spec, spec.beta_fast))),
          .high = std::min(static_cast<float>(spec.rotary_dims) - 1.0f,
                           std::ceil(PairTurning(spec, spec.beta_slow)))};
}

// Radians per position, for each pair.
std::vector<double> PairSpeeds(const RopeSpec& spec) {
  std::vector<double> speeds(spec.rotary_dims / 2);
  for (uint32_t i = 0; i < speeds.size(); ++i) {
    speeds[i] = std::pow(double{spec.freq_base}, -2.0 * i / spec.rotary_dims);
    if (!spec.freq_factors.empty()) speeds[i] /= spec.freq_factors[i];
  }
  const YarnRamp ramp = spec.ext_factor != 0 ? MakeYarnRamp(spec) : YarnRamp{};
  for (uint32_t i = 0; i < speeds.size(); ++i) {
    const double keep = spec.ext_factor != 0 ? ramp.Weight(i) * spec.ext_factor : 0.0;
    speeds[i] *= spec.freq_scale * (1.0 - keep) + keep;
  }
  return speeds;
}

double Magnitude(const RopeSpec& spec) {
  if (spec.ext_factor == 0) return spec.attn_factor;
  return spec.attn_factor * (1.0 + 0.1 * std::log(1.0 / spec.freq_scale));
}

}  // namespace

RopeTable::RopeTable(const RopeSpec& spec, uint32_t positions, int64_t first)
    : spec_(spec),
      magnitude_(static_cast<float>(Magnitude(spec))),
      pairs_(spec.rotary_dims / 2),
      positions_(positions) {
  LH_CHECK(spec.rotary_dims % 2 == 0);
  LH_CHECK(spec.freq_factors.empty() || spec.freq_factors.size() == pairs_);
  const std::vector<double> speeds = PairSpeeds(spec);
  const double magnitude = Magnitude(spec);
  cos_.reserve(size_t{positions} * pairs_);
  sin_.reserve(size_t{positions} * pairs_);
  for (uint32_t i = 0; i < positions; ++i) {
    const auto p = static_cast<double>(first + i);
    for (const double speed : speeds) {
      cos_.push_back(static_cast<float>(magnitude * std::cos(p * speed)));
      sin_.push_back(static_cast<float>(magnitude * std::sin(p * speed)));
    }
  }
}

void RopeTable::Rotate(const float* in, float* out, uint32_t head_dim, uint32_t position) const {
  LH_CHECK(position < positions_);
  LH_CHECK(spec_.rotary_dims <= head_dim);
  const float* cos = Cos(position);
  const float* sin = Sin(position);
  // Both elements of a pair are read before either is written, so `out` may alias `in`.
  const uint32_t step = spec_.neox ? 1 : 2;
  const uint32_t partner = spec_.neox ? pairs_ : 1;
  for (uint32_t i = 0; i < pairs_; ++i) {
    const float a = in[i * step];
    const float b = in[i * step + partner];
    out[i * step] = a * cos[i] - b * sin[i];
    out[i * step + partner] = a * sin[i] + b * cos[i];
  }
  for (uint32_t c = spec_.rotary_dims; c < head_dim; ++c) out[c] = in[c];
}

void RopeTable::Unrotate(const float* in, float* out, uint32_t head_dim, uint32_t position) const {
  LH_CHECK(position < positions_);
  LH_CHECK(spec_.rotary_dims <= head_dim);
  const float* cos = Cos(position);
  const float* sin = Sin(position);
  // cos and sin have the magnitude, which Rotate multiplied in.
  const float shrink = 1 / (magnitude_ * magnitude_);
  const uint32_t step = spec_.neox ? 1 : 2;
  const uint32_t partner = spec_.neox ? pairs_ : 1;
  for (uint32_t i = 0; i < pairs_; ++i) {
    const float a = in[i * step];
    const float b = in[i * step + partner];
    out[i * step] = (a * cos[i] + b * sin[i]) * shrink;
    out[i * step + partner] = (b * cos[i] - a * sin[i]) * shrink;
  }
  for (uint32_t c = spec_.rotary_dims; c < head_dim; ++c) out[c] = in[c];
}

RopeTables::RopeTables(const KvGeometry& geometry, uint32_t positions, int64_t first) {
  for (const RopeSpec& spec : geometry.rope) {
    uint32_t i = 0;
    while (i < tables_.size() && !(tables_[i].spec() == spec)) ++i;
    if (i == tables_.size()) tables_.emplace_back(spec, positions, first);
    table_of_slot_.push_back(i);
  }
}

}  // namespace longhold
