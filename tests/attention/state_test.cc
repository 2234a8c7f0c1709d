// The laws of Merge on random states. Merge computes in double and rounds once. So results may
// differ by a few units of 2^-24 for values of size 1: 1e-6.
#include "attention/state.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace longhold {
namespace {

constexpr uint32_t kRows = 5;
constexpr uint32_t kHeadDim = 12;

AttentionState RandomState(uint64_t seed, float lse_offset = 0.0f) {
  std::mt19937_64 rng(seed);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  AttentionState state = AttentionState::Empty(kRows, kHeadDim);
  for (float& x : state.out) x = uniform(rng);
  for (float& x : state.lse) x = 5 * uniform(rng) + lse_offset;
  return state;
}

void ExpectNear(const AttentionState& a, const AttentionState& b) {
  for (size_t i = 0; i < a.out.size(); ++i) EXPECT_NEAR(a.out[i], b.out[i], 1e-6);
  for (size_t r = 0; r < a.lse.size(); ++r)
    EXPECT_NEAR(a.lse[r], b.lse[r], 1e-6 + std::abs(b.lse[r]) * 0x1p-22);
}

TEST(Merge, KeepsAStateBitForBitWhenTheOtherIsEmpty) {
  const AttentionState state = RandomState(1);
  const AttentionState empty = AttentionState::Empty(kRows, kHeadDim);
  for (const AttentionState& merged : {Merge(state, empty), Merge(empty, state)}) {
    EXPECT_EQ(merged.out, state.out);
    EXPECT_EQ(merged.lse, state.lse);
  }
}

TEST(Merge, OfTwoEmptyStatesIsEmpty) {
  const AttentionState empty = AttentionState::Empty(kRows, kHeadDim);
  const AttentionState merged = Merge(empty, empty);
  EXPECT_EQ(merged.out, empty.out);
  EXPECT_EQ(merged.lse, empty.lse);
}

TEST(Merge, HandlesRowsThatAreEmptyOnDifferentSides) {
  AttentionState a = RandomState(1);
  AttentionState b = RandomState(2);
  const auto clear = [](AttentionState& s, uint32_t r) {
    s.lse[r] = -std::numeric_limits<float>::infinity();
    std::fill_n(s.out.begin() + r * kHeadDim, kHeadDim, 0.0f);
  };
  clear(a, 0);
  clear(b, 1);
  const AttentionState merged = Merge(a, b);
  EXPECT_EQ(merged.lse[0], b.lse[0]);
  EXPECT_EQ(merged.lse[1], a.lse[1]);
  EXPECT_EQ(merged.out[0], b.out[0]);
  EXPECT_EQ(merged.out[kHeadDim], a.out[kHeadDim]);
}

TEST(Merge, IsCommutative) {
  const AttentionState ab = Merge(RandomState(1), RandomState(2));
  const AttentionState ba = Merge(RandomState(2), RandomState(1));
  ExpectNear(ab, ba);
}

TEST(Merge, IsAssociative) {
  const AttentionState a = RandomState(1), b = RandomState(2), c = RandomState(3);
  ExpectNear(Merge(Merge(a, b), c), Merge(a, Merge(b, c)));
}

TEST(Merge, OfEqualStatesKeepsTheOutputAndAddsLogTwo) {
  const AttentionState a = RandomState(1);
  AttentionState twice = a;
  for (float& lse : twice.lse) lse += std::log(2.0f);
  ExpectNear(Merge(a, a), twice);
}

TEST(Merge, DoesNotOverflowOnHugeLogits) {
  const AttentionState high = RandomState(1, 1e4f);
  const AttentionState low = RandomState(2, -1e4f);
  ExpectNear(Merge(high, low), high);
  ExpectNear(Merge(low, high), high);
}

}  // namespace
}  // namespace longhold
