#include "memory/index/passage_scan.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "memory/index/passage_segment.h"

namespace longhold {
namespace {

// SignScan::Estimate. 30 bit counts a vector of 384 components.
template <size_t kPlanes>
[[gnu::always_inline]] inline void SumSelected(const uint64_t* planes, size_t words, int32_t offset,
                                               const uint64_t* signs, size_t count,
                                               int32_t* estimates) {
  for (size_t v = 0; v < count; ++v) {
    int set = 0, bits[kPlanes] = {};
    for (size_t w = 0; w < words; ++w) {
      const uint64_t word = *signs++;
      set += std::popcount(word);
      for (size_t b = 0; b < kPlanes; ++b) bits[b] += std::popcount(word & planes[w * kPlanes + b]);
    }
    int sum = 0;  // of (u + 15) / 2
    for (size_t b = 0; b < kPlanes; ++b) sum += bits[b] << b;
    estimates[v] = 2 * (2 * sum - 15 * set) - offset;
  }
}

#if defined(__x86_64__)
// Every x86-64 processor since 2008 has the instruction, but the baseline has not. Without it the
// scan takes seven times as long.
[[gnu::target("popcnt")]] void SumSelectedPopcnt(const uint64_t* planes, size_t words,
                                                 int32_t offset, const uint64_t* signs,
                                                 size_t count, int32_t* estimates) {
  SumSelected<4>(planes, words, offset, signs, count, estimates);
}
#endif

}  // namespace

CodeScan::CodeScan(std::span<const float> query) {
  double max = 0, sum = 0;
  for (const float q : query) {
    max = std::max(max, std::abs(double{q}));
    sum += std::abs(double{q});
  }
  // Components fit 16 bits. Sums of products with codes of 0 to 255 fit 31 bits, and so does the
  // estimate of 1.
  constexpr double kSumMax = 2e9;
  double scale = kSumMax / 255;
  if (max > 0) scale = std::min({scale, 32767 / max, kSumMax / (255 * sum)});
  int32_t rounded_sum = 0;
  for (const float q : query) {
    query_.push_back(static_cast<int16_t>(std::floor(q * scale + 0.5)));
    rounded_sum += query_.back();
  }
  offset_ = 127 * rounded_sum;
  one_ = static_cast<int32_t>(255 * scale);
  // Rounding moves each component by 0.5 at most, and |code - 127| is 128 at most. The second term
  // bounds the rounding of a float sum, and of the components that are decoded for it.
  const auto dim = static_cast<double>(query.size());
  const double float_error = (dim + 4) * 0x1p-23 * double{kPassageRange} * sum;
  error_ = static_cast<int32_t>(dim * 128 * 0.5 + float_error * 255 * scale + 1);
}

void CodeScan::Estimate(const uint8_t* codes, size_t count, int32_t* estimates) const {
  const int16_t* query = query_.data();
  const size_t dim = query_.size();
  for (size_t v = 0; v < count; ++v, codes += dim) {
    // Compilers make pmaddwd of this, which every x86-64 processor has. Built for AVX2 or AVX-512
    // it was hardly faster, as the core waits for the memory.
    int32_t sum = 0;
    for (size_t i = 0; i < dim; ++i) sum += static_cast<int16_t>(codes[i]) * query[i];
    estimates[v] = sum - offset_;
  }
}

SignScan::SignScan(std::span<const float> query)
    : planes_(SignWords(query.size()) * kPlanes, 0), max_(15 * static_cast<int32_t>(query.size())) {
  float max = 0;
  for (const float q : query) max = std::max(max, std::abs(q));
  if (max == 0) max = 1;
  for (size_t i = 0; i < query.size(); ++i) {
    const auto level =
        static_cast<uint64_t>(std::clamp(std::floor(8 * query[i] / max) + 8, 0.0f, 15.0f));
    for (size_t b = 0; b < kPlanes; ++b)
      planes_[i / 64 * kPlanes + b] |= (level >> b & 1) << (i % 64);
    offset_ += 2 * static_cast<int32_t>(level) - 15;
  }
}

void SignScan::Estimate(const uint64_t* signs, size_t count, int32_t* estimates) const {
#if defined(__x86_64__)
  static const bool has_popcnt = __builtin_cpu_supports("popcnt");
  if (has_popcnt) {
    SumSelectedPopcnt(planes_.data(), planes_.size() / kPlanes, offset_, signs, count, estimates);
    return;
  }
#endif
  EstimatePortably(signs, count, estimates);
}

void SignScan::EstimatePortably(const uint64_t* signs, size_t count, int32_t* estimates) const {
  SumSelected<kPlanes>(planes_.data(), planes_.size() / kPlanes, offset_, signs, count, estimates);
}

void AppendSigns(const uint8_t* codes, size_t count, size_t dim, std::vector<uint64_t>& signs) {
  for (size_t v = 0; v < count; ++v, codes += dim) {
    for (size_t begin = 0; begin < dim; begin += 64) {
      uint64_t word = 0;
      const size_t end = std::min(dim, begin + 64);
      for (size_t i = begin; i < end; ++i) word |= uint64_t{codes[i] > 127} << (i - begin);
      signs.push_back(word);
    }
  }
}

}  // namespace longhold
