// Compares RopeTable with ReferenceRotate, which computes in double, and with values derived by
// hand from the formulas.
//
// Sizes: full and partial rotation of small and usual heads; positions up to 4096, far beyond any
// panel. Tolerance: cos and sin are rounded to float once, the products and the sum once more. That
// is 3 units of 2^-24 of the pair's length, which stays below 8 here: 2e-6 (times the magnitude, at
// most 2).
#include "attention/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "attention/reference.h"

namespace longhold {
namespace {

std::vector<float> RandomVector(uint32_t size, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> v(size);
  for (float& x : v) x = normal(rng);
  return v;
}

std::vector<RopeSpec> Specs() {
  std::vector<float> factors;
  for (int i = 0; i < 32; ++i) factors.push_back(1.0f + 0.25f * i);
  return {
      {.rotary_dims = 64},
      {.neox = true, .rotary_dims = 64},
      {.rotary_dims = 32, .freq_base = 500000.0f},
      {.neox = true, .rotary_dims = 20, .freq_scale = 0.25f},
      {.neox = true,
       .rotary_dims = 64,
       .freq_base = 1e6f,
       .attn_factor = 1.25f,
       .freq_factors = factors},
      {.rotary_dims = 64, .freq_scale = 0.25f, .ext_factor = 1.0f, .ctx_orig = 4096},
      {.neox = true,
       .rotary_dims = 64,
       .freq_base = 1e6f,
       .freq_scale = 0.125f,
       .attn_factor = 0.9f,
       .ext_factor = 0.5f,
       .beta_fast = 16.0f,
       .beta_slow = 2.0f,
       .ctx_orig = 32768,
       .freq_factors = factors},
  };
}

TEST(RopeTable, RotatesLikeTheReference) {
  const std::vector<float> in = RandomVector(80, 1);
  for (const RopeSpec& spec : Specs()) {
    for (const uint32_t head_dim : {64u, 80u}) {
      const RopeTable table(spec, 4097);
      for (const uint32_t position : {0u, 1u, 17u, 1000u, 4096u}) {
        std::vector<float> actual(head_dim), expected(head_dim);
        table.Rotate(in.data(), actual.data(), head_dim, position);
        ReferenceRotate(spec, in.data(), expected.data(), head_dim, position);
        for (uint32_t c = 0; c < head_dim; ++c)
          ASSERT_NEAR(actual[c], expected[c], 4e-6) << position << " " << c;
      }
    }
  }
}

TEST(RopeTable, RotatesInPlace) {
  for (const RopeSpec& spec : Specs()) {
    const RopeTable table(spec, 100);
    std::vector<float> x = RandomVector(80, 2), y(80);
    table.Rotate(x.data(), y.data(), 80, 99);
    table.Rotate(x.data(), x.data(), 80, 99);
    EXPECT_EQ(x, y);
  }
}

TEST(RopeTable, LeavesElementsPastTheRotaryDimensionsAlone) {
  const RopeTable table({.neox = true, .rotary_dims = 20}, 8);
  const std::vector<float> x = RandomVector(36, 3);
  std::vector<float> y(36);
  table.Rotate(x.data(), y.data(), 36, 7);
  EXPECT_TRUE(std::equal(x.begin() + 20, x.end(), y.begin() + 20));
  EXPECT_FALSE(std::equal(x.begin(), x.begin() + 20, y.begin()));
}

TEST(RopeTable, PairsAdjacentElementsOrElementsHalfTheHeadApart) {
  // At position 1 pair 0 rotates by one radian, whatever the base.
  const std::vector<float> x = {1, 0, 0, 0};
  std::vector<float> y(4);
  RopeTable({.rotary_dims = 4}, 2).Rotate(x.data(), y.data(), 4, 1);
  EXPECT_FLOAT_EQ(y[1], std::sin(1.0f));
  RopeTable({.neox = true, .rotary_dims = 4}, 2).Rotate(x.data(), y.data(), 4, 1);
  EXPECT_FLOAT_EQ(y[2], std::sin(1.0f));
}

TEST(RopeTable, YarnKeepsFastPairsInterpolatesSlowOnesAndScalesTheMagnitude) {
  // 64 dims, base 1e4, 4096 trained positions. Pair i makes 4096 / (2 pi 1e4^(i/32)) rotations: 32
  // at i = 10.47, one at i = 22.51. So pairs up to 10 keep their angle, and pairs from 23 on have a
  // quarter of it. Between them the angle follows a linear ramp.
  const RopeSpec spec = {
      .rotary_dims = 64, .freq_scale = 0.25f, .ext_factor = 1.0f, .ctx_orig = 4096};
  const RopeTable table(spec, 2);
  const double magnitude = 1.0 + 0.1 * std::log(4.0);
  const auto angle = [&](uint32_t i) { return std::atan2(table.Sin(1)[i], table.Cos(1)[i]); };
  const auto plain = [](uint32_t i) { return std::pow(1e4, -static_cast<double>(i) / 32); };
  for (uint32_t i = 0; i < 32; ++i) {
    const double ramp = i <= 10 ? 0.0 : i >= 23 ? 1.0 : (i - 10.0) / 13.0;
    EXPECT_NEAR(angle(i), plain(i) * (1.0 - 0.75 * ramp), plain(i) * 1e-6) << i;
    EXPECT_NEAR(std::hypot(table.Sin(1)[i], table.Cos(1)[i]), magnitude, 1e-6) << i;
  }
}

TEST(RopeTable, ProductsDependOnThePositionDifferenceOnly) {
  // This property lets memory move keys to virtual positions. Tolerance: |q| |k| is about 64 (80
  // with the magnitudes), and each side is off by 3 * 2^-24: 4e-5.
  for (const RopeSpec& spec : Specs()) {
    const RopeTable table(spec, 3000);
    const std::vector<float> q = RandomVector(64, 4), k = RandomVector(64, 5);
    const auto product = [&](uint32_t q_at, uint32_t k_at) {
      std::vector<float> rq(64), rk(64);
      table.Rotate(q.data(), rq.data(), 64, q_at);
      table.Rotate(k.data(), rk.data(), 64, k_at);
      double sum = 0;
      for (int c = 0; c < 64; ++c) sum += double{rq[c]} * rk[c];
      return sum;
    };
    for (const uint32_t shift : {1u, 64u, 777u, 2900u}) {
      for (const uint32_t distance : {0u, 5u, 90u}) {
        EXPECT_NEAR(product(distance + shift, shift), product(distance, 0), 4e-5);
      }
    }
  }
}

// Un-rotating takes a key back to where it was, whatever the magnitude, and a table may begin at
// any position. Tolerance: two products and a sum in float, of elements up to 4.
TEST(RopeTable, UnrotatesAndBeginsAnywhere) {
  std::vector<float> key(32);
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<float>(i % 9) - 4;
  for (const bool neox : {false, true}) {
    for (const float ext : {0.0f, 1.0f}) {
      RopeSpec spec{.neox = neox, .rotary_dims = 24, .freq_scale = 0.25f, .attn_factor = 1.5f};
      spec.ext_factor = ext;
      spec.ctx_orig = 4096;
      const RopeTable whole(spec, 1000), later(spec, 10, 900), before(spec, 10, -5);
      std::vector<float> a(32), b(32);
      for (const uint32_t position : {0u, 1u, 905u}) {
        whole.Rotate(key.data(), a.data(), 32, position);
        whole.Unrotate(a.data(), b.data(), 32, position);
        for (size_t i = 0; i < key.size(); ++i) ASSERT_NEAR(b[i], key[i], 1e-5) << position;
      }
      later.Rotate(key.data(), b.data(), 32, 5);
      EXPECT_EQ(a, b);
      // Rotating by -5 and then comparing with 0: the dot product depends on the distance only.
      std::vector<float> at0(32), at5(32), at_5(32);
      before.Rotate(key.data(), at_5.data(), 32, 0);
      before.Rotate(key.data(), at0.data(), 32, 5);
      whole.Rotate(key.data(), at5.data(), 32, 5);
      const float left = std::inner_product(at_5.begin(), at_5.end(), at0.begin(), 0.0f);
      const float right = std::inner_product(at0.begin(), at0.end(), at5.begin(), 0.0f);
      EXPECT_NEAR(left, right, 1e-3 * std::abs(left));
    }
  }
}

}  // namespace
}  // namespace longhold
