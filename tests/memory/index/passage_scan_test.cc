// Compares both scans with their formulas, computed in double or one by one.
//
// Dimensions lie on both sides of a word of 64 signs, up to the largest. Codes are random and at
// both ends, so that sums are as large as they get. Estimates of signs are integers, so they must
// be equal. Those of codes may differ from the float product by what Error() says.
#include "memory/index/passage_scan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "memory/index/passage_segment.h"

namespace longhold {
namespace {

constexpr uint32_t kDims[] = {1, 3, 63, 64, 65, 384, 1000, kPassageDimMax};
constexpr size_t kVectors = 50;

// Random codes; the first two vectors have the smallest and the largest code only.
std::vector<uint8_t> RandomCodes(std::mt19937_64& rng, uint32_t dim) {
  std::vector<uint8_t> codes(kVectors * dim);
  for (uint8_t& c : codes) c = static_cast<uint8_t>(rng());
  std::fill_n(codes.begin(), dim, uint8_t{0});
  std::fill_n(codes.begin() + dim, dim, uint8_t{255});
  return codes;
}

// Random, all equal, one component only, and zero.
std::vector<std::vector<float>> Queries(std::mt19937_64& rng, uint32_t dim) {
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> queries(4, std::vector<float>(dim, 0.0f));
  for (float& q : queries[0]) q = normal(rng) / std::sqrt(static_cast<float>(dim));
  std::fill(queries[1].begin(), queries[1].end(), -1 / std::sqrt(static_cast<float>(dim)));
  queries[2].back() = 1;
  return queries;
}

TEST(PassageScan, CodesGiveTheInnerProduct) {
  std::mt19937_64 rng(1);
  for (const uint32_t dim : kDims) {
    const std::vector<uint8_t> codes = RandomCodes(rng, dim);
    for (const std::vector<float>& query : Queries(rng, dim)) {
      const CodeScan scan(query);
      std::vector<int32_t> estimates(kVectors);
      scan.Estimate(codes.data(), kVectors, estimates.data());
      for (size_t v = 0; v < kVectors; ++v) {
        float product = 0;
        for (uint32_t i = 0; i < dim; ++i)
          product += query[i] * (2.0f * codes[v * dim + i] - 254) / 255 * kPassageRange;
        EXPECT_NEAR(estimates[v], double{product} * scan.One(), scan.Error())
            << "dim " << dim << ", vector " << v;
      }
      // The error must stay small, or all vectors would be scored again.
      if (dim <= 1000) {
        EXPECT_LT(scan.Error(), scan.One() / 100) << dim;
      }
    }
  }
}

TEST(PassageScan, SignsGiveTheSumOfTheFormula) {
  std::mt19937_64 rng(2);
  for (const uint32_t dim : kDims) {
    const std::vector<uint8_t> codes = RandomCodes(rng, dim);
    std::vector<uint64_t> signs;
    AppendSigns(codes.data(), 20, dim, signs);
    AppendSigns(codes.data() + size_t{20} * dim, kVectors - 20, dim, signs);
    ASSERT_EQ(signs.size(), kVectors * SignWords(dim));
    for (const std::vector<float>& query : Queries(rng, dim)) {
      float max = 0;
      for (const float q : query) max = std::max(max, std::abs(q));
      if (max == 0) max = 1;
      const SignScan scan(query);
      std::vector<int32_t> estimates(kVectors), portable(kVectors);
      scan.Estimate(signs.data(), kVectors, estimates.data());
      scan.EstimatePortably(signs.data(), kVectors, portable.data());
      EXPECT_EQ(estimates, portable);
      for (size_t v = 0; v < kVectors; ++v) {
        int expected = 0;
        for (uint32_t i = 0; i < dim; ++i) {
          const int u = std::min(2 * static_cast<int>(std::floor(8 * query[i] / max)) + 1, 15);
          expected += codes[v * dim + i] > 127 ? u : -u;
        }
        EXPECT_EQ(estimates[v], expected) << "dim " << dim << ", vector " << v;
        EXPECT_LE(estimates[v], scan.Max());
      }
    }
  }
}

}  // namespace
}  // namespace longhold
