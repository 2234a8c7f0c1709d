// Attention calls on random data, for tests and benchmarks. Each case is one object that owns all
// memory that its call points to.
//
// Thread use: *confined*. The seed determines every value.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "attention/geometry.h"
#include "attention/kernels.h"
#include "base/half.h"

namespace longhold {

// Floats whose first element is 64-byte aligned, as KeyBlockView and AttendCall::scratch require.
// Initialised to zero.
class AlignedFloats {
 public:
  explicit AlignedFloats(size_t count = 0)
      : size_(count), bytes_(new (std::align_val_t{64}) float[count + 1]()) {}

  float* data() { return bytes_.get(); }
  const float* data() const { return bytes_.get(); }
  size_t size() const { return size_; }
  float& operator[](size_t i) { return bytes_[i]; }

 private:
  struct Free {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  size_t size_;
  std::unique_ptr<float[], Free> bytes_;
};

struct AttendShape {
  uint32_t rows = 1;
  uint32_t group = 1;
  uint32_t head_dim = 64;
  uint32_t blocks = 1;
  // Standard deviation of the logits: 1 gives flat attention, 10 gives peaked attention.
  float spread = 1.0f;
  float softcap = 0.0f;
  bool bias = false;         // a random gate on every second block, with some keys at -infinity
  bool random_masks = true;  // if false, every row sees every key
  uint32_t fp16 = 0;         // how many of every three blocks are stored as fp16
  uint64_t seed = 1;
};

// One AttendCall that owns the memory it points to.
class AttendCase {
 public:
  explicit AttendCase(const AttendShape& shape) : shape_(shape), rng_(shape.seed) {
    const size_t d = shape.head_dim;
    const uint32_t keys = shape.blocks * kBlockTokens;
    q_ = Normal(shape.rows * d, shape.spread);
    keys_t_ = Normal(keys * d, 1.0f);
    values_ = Normal(keys * d, 1.0f);
    bias_ = Normal(keys, 2.0f);
    for (uint32_t j = 0; j < keys; j += 5) bias_[j] = -std::numeric_limits<float>::infinity();
    for (uint32_t b = 0; b < shape.blocks; ++b) {
      views_.push_back(
          {.keys_t = keys_t_.data() + b * kBlockTokens * d,
           .values = values_.data() + b * kBlockTokens * d,
           .bias = shape.bias && b % 2 == 0 ? bias_.data() + b * kBlockTokens : nullptr});
    }
    if (shape.fp16 > 0) KeepFp16();
    shared_ = shape.random_masks ? Below(keys + 1) / 3 : 0;
    for (uint32_t token = 0; token < shape.rows / shape.group; ++token) {
      VisibleKeys v = {.begin = 0, .end = keys};
      // may be empty, may exceed the last key
      if (shape.random_masks) v = {.begin = Below(keys + 1), .end = Below(keys + 9)};
      visible_.push_back(v);
    }
    out_ = AlignedFloats(shape.rows * d);
    lse_ = AlignedFloats(shape.rows);
    key_mass_ = AlignedFloats(keys);
    scratch_ = AlignedFloats(AttendScratchFloats(shape.rows, shape.head_dim));
  }

  const AttendShape& shape() const { return shape_; }
  std::vector<VisibleKeys>& visible() { return visible_; }
  std::vector<KeyBlockView>& views() { return views_; }
  void set_shared(uint32_t shared) { shared_ = shared; }
  const AlignedFloats& out() const { return out_; }
  const AlignedFloats& lse() const { return lse_; }
  const AlignedFloats& key_mass() const { return key_mass_; }

  // Points into this object. Outputs start with garbage, except key_mass, which the kernels add to.
  AttendCall Call(bool with_key_mass = true) {
    for (size_t i = 0; i < out_.size(); ++i) out_[i] = std::numeric_limits<float>::quiet_NaN();
    for (size_t i = 0; i < lse_.size(); ++i) lse_[i] = std::numeric_limits<float>::quiet_NaN();
    for (size_t i = 0; i < key_mass_.size(); ++i) key_mass_[i] = 0.25f;
    return {.q = q_.data(),
            .rows = shape_.rows,
            .group = shape_.group,
            .head_dim = shape_.head_dim,
            .blocks = views_,
            .shared = shared_,
            .visible = visible_.data(),
            .scale = Scale(),
            .softcap = shape_.softcap,
            .out = out_.data(),
            .lse = lse_.data(),
            .key_mass = with_key_mass ? key_mass_.data() : nullptr,
            .scratch = scratch_.data()};
  }

  float Scale() const { return 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)); }

  // Largest float rounding error of a logit. A dot product of head_dim terms errs by at most
  // head_dim + 2 half-units of sum |q c| |k c| <= |q| |k|.
  double LogitError() const {
    const size_t d = shape_.head_dim;
    double q_max = 0, k_max = 0;
    for (size_t r = 0; r < shape_.rows; ++r) {
      double sum = 0;
      for (size_t c = 0; c < d; ++c) sum += double{q_.data()[r * d + c]} * q_.data()[r * d + c];
      q_max = std::max(q_max, sum);
    }
    for (uint32_t b = 0; b < shape_.blocks; ++b) {
      for (uint32_t j = 0; j < kBlockTokens; ++j) {
        double sum = 0;
        for (size_t c = 0; c < d; ++c) {
          const double k = keys_t_.data()[(b * d + c) * kBlockTokens + j];
          sum += k * k;
        }
        k_max = std::max(k_max, sum);
      }
    }
    return std::sqrt(q_max * k_max) * Scale() * static_cast<double>(d + 2) * 0x1p-24;
  }

  double ValueMax() const {
    double max = 0;
    for (size_t i = 0; i < values_.size(); ++i)
      max = std::max(max, std::abs(double{values_.data()[i]}));
    return max;
  }

 private:
  uint32_t Below(uint32_t n) { return static_cast<uint32_t>(rng_() % n); }

  // Converts some blocks to fp16. The fp16 rounding error is within the bounds that the tests
  // compute from the floats.
  void KeepFp16() {
    half_keys_t_.resize(keys_t_.size());
    half_values_.resize(values_.size());
    const size_t elements = size_t{kBlockTokens} * shape_.head_dim;
    for (uint32_t b = 0; b < shape_.blocks; ++b) {
      if (b % 3 >= shape_.fp16) continue;
      for (size_t i = b * elements; i < (b + 1) * elements; ++i) {
        half_keys_t_[i] = ToHalf(keys_t_[i]);
        half_values_[i] = ToHalf(values_[i]);
      }
      views_[b].keys_t = views_[b].values = nullptr;
      views_[b].half_keys_t = half_keys_t_.data() + b * elements;
      views_[b].half_values = half_values_.data() + b * elements;
    }
  }

  AlignedFloats Normal(size_t count, float deviation) {
    std::normal_distribution<float> normal(0.0f, deviation);
    AlignedFloats elements(count);
    for (size_t i = 0; i < count; ++i) elements[i] = normal(rng_);
    return elements;
  }

  AttendShape shape_;
  std::mt19937_64 rng_;
  AlignedFloats q_, keys_t_, values_, bias_, out_, lse_, key_mass_, scratch_;
  std::vector<uint16_t> half_keys_t_, half_values_;
  std::vector<KeyBlockView> views_;
  std::vector<VisibleKeys> visible_;
  uint32_t shared_ = 0;
};

struct ScanShape {
  uint32_t rows = 1;
  uint32_t head_dim = 64;
  size_t blocks = 1;
  // Every byte is at an end of its range. This shows a kernel that saturates or overflows.
  bool extreme = false;
  uint64_t seed = 1;
};

// One ScanCall that owns the memory it points to. Bytes start one past an aligned address.
class ScanCase {
 public:
  explicit ScanCase(const ScanShape& shape) : shape_(shape) {
    std::mt19937_64 rng(shape.seed);
    const size_t d = shape.head_dim;
    keys_.resize(1 + shape.blocks * kBlockTokens * d);
    for (uint8_t& key : keys_)
      key = static_cast<uint8_t>(shape.extreme ? (rng() % 2) * 255 : rng() % 256);
    q_.resize(1 + shape.rows * d);
    for (int8_t& q : q_)
      q = static_cast<int8_t>(shape.extreme ? -128 + static_cast<int>(rng() % 2) * 255
                                            : rng() % 256);
    if (shape.extreme) std::fill(q_.begin(), q_.begin() + 1 + static_cast<long>(d), int8_t{127});
    std::uniform_real_distribution<float> uniform(0.5f, 1.0f);
    // Logits of a few units: byte products have a standard deviation of about 74 * 74 * sqrt(d).
    const float unit = 2.0f / (74.0f * 74.0f * std::sqrt(static_cast<float>(d)));
    for (size_t j = 0; j < shape.blocks * kBlockTokens; ++j) key_scale_.push_back(uniform(rng));
    for (uint32_t r = 0; r < shape.rows; ++r) q_scale_.push_back(uniform(rng) * unit);
    for (size_t b = 0; b < shape.blocks; ++b)
      counts_.push_back(static_cast<uint8_t>(b % 3 == 0 ? 64 : 1 + rng() % 64));
    block_max_.resize(shape.blocks * shape.rows);
    block_sum_.resize(shape.blocks * shape.rows);
  }

  std::vector<uint8_t>& counts() { return counts_; }
  const std::vector<float>& block_max() const { return block_max_; }
  const std::vector<float>& block_sum() const { return block_sum_; }

  ScanCall Call() {
    std::fill(block_max_.begin(), block_max_.end(), std::numeric_limits<float>::quiet_NaN());
    std::fill(block_sum_.begin(), block_sum_.end(), std::numeric_limits<float>::quiet_NaN());
    return {.keys = keys_.data() + 1,
            .key_scale = key_scale_.data(),
            .counts = counts_.data(),
            .block_count = shape_.blocks,
            .head_dim = shape_.head_dim,
            .q = q_.data() + 1,
            .q_scale = q_scale_.data(),
            .rows = shape_.rows,
            .block_max = block_max_.data(),
            .block_sum = block_sum_.data()};
  }

 private:
  ScanShape shape_;
  std::vector<uint8_t> keys_, counts_;
  std::vector<int8_t> q_;
  std::vector<float> key_scale_, q_scale_, block_max_, block_sum_;
};

}  // namespace longhold
