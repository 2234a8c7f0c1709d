// Scores, ranks and intervals against values worked out by hand or by a formula.

#include "eval/metrics.h"

#include <gtest/gtest.h>

#include <cmath>

namespace longhold {
namespace {

TEST(StringMatch, AllGivesTheShareAndPartGivesWhetherAnyMatches) {
  const std::vector<std::string> expected = {"Alpha", "beta", "42"};
  EXPECT_DOUBLE_EQ(StringMatchAll("the ALPHA and 42.", expected), 2.0 / 3);
  EXPECT_DOUBLE_EQ(StringMatchPart("the ALPHA and 42.", expected), 1);
  EXPECT_DOUBLE_EQ(StringMatchAll("nothing", expected), 0);
  EXPECT_DOUBLE_EQ(StringMatchPart("nothing", expected), 0);
  EXPECT_DOUBLE_EQ(StringMatchAll("alphabeta 1423", expected), 1)
      << "substrings count, as in RULER";
  EXPECT_DOUBLE_EQ(StringMatchAll("x", {}), 0);
  EXPECT_DOUBLE_EQ(Match(MatchRule::kPart, "beta", expected), 1);
  EXPECT_DOUBLE_EQ(Match(MatchRule::kAll, "beta", expected), 1.0 / 3);
}

TEST(HitAt, CountsTheRankAtWhichHalfOfTheEvidenceIsFound) {
  std::vector<ByteSpan> found;
  for (uint64_t i = 0; i < 10; ++i) found.push_back({1000 + 10 * i, 1010 + 10 * i});
  found[2] = {100, 110};
  EXPECT_EQ(HitAt(found, {{100, 120}}, false), (std::array<double, 4>{0, 1, 1, 1}))
      << "exactly half, at rank 3";
  EXPECT_EQ(HitAt(found, {{100, 121}}, false), (std::array<double, 4>{0, 0, 0, 0}))
      << "a byte less than half";
  EXPECT_EQ(HitAt({}, {{100, 121}}, false), (std::array<double, 4>{0, 0, 0, 0}));
}

TEST(HitAt, JoinsPartsOfTheEvidenceAndCountsOverlapsOnce) {
  EXPECT_EQ(HitAt({{0, 103}, {108, 200}}, {{100, 110}}, false)[1], 1) << "3 + 2 of 10 bytes";
  EXPECT_EQ(HitAt({{0, 104}, {0, 104}, {90, 103}}, {{100, 110}}, false)[1], 0)
      << "4 of 10 bytes, twice";
}

TEST(HitAt, SeveralRangesGiveAShareOrAHitOnAny) {
  const std::vector<ByteSpan> found = {{0, 10}, {20, 30}},
                              evidence = {{0, 10}, {20, 30}, {40, 50}, {60, 70}};
  EXPECT_EQ(HitAt(found, evidence, false), (std::array<double, 4>{0.25, 0.5, 0.5, 0.5}));
  EXPECT_EQ(HitAt(found, evidence, true), (std::array<double, 4>{1, 1, 1, 1}));
  EXPECT_EQ(HitAt({{80, 90}}, evidence, true), (std::array<double, 4>{0, 0, 0, 0}));
}

// The mean of n right-or-wrong answers has the standard error sqrt(p (1 - p) / n). Its percentile
// interval is close to p +- 1.96 standard errors. Tolerance: 2,000 resamples place a 2.5 % quantile
// within 0.2 standard errors nearly always; the seeds are fixed.
TEST(Bootstrap, IntervalOfAShareMatchesTheNormalApproximation) {
  std::vector<double> values(200, 0);
  for (size_t i = 0; i < 60; ++i) values[i] = 1;
  const double error = std::sqrt(0.3 * 0.7 / 200);
  for (const uint64_t seed : {1, 2, 3}) {
    const Interval interval = BootstrapMean(values, 0.95, seed);
    EXPECT_NEAR(interval.low, 0.3 - 1.96 * error, 0.2 * error);
    EXPECT_NEAR(interval.high, 0.3 + 1.96 * error, 0.2 * error);
  }
}

TEST(Bootstrap, IsRepeatableAndCollapsesToAPointForEqualValues) {
  const std::vector<double> values = {0, 1, 1, 0.5, 0.25};
  const Interval a = BootstrapMean(values, 0.95, 9), b = BootstrapMean(values, 0.95, 9);
  EXPECT_EQ(a.low, b.low);
  EXPECT_EQ(a.high, b.high);
  const Interval narrow = BootstrapMean(values, 0.5, 9);
  EXPECT_GT(narrow.low, a.low);
  EXPECT_LT(narrow.high, a.high);
  EXPECT_EQ(BootstrapMean({1, 1, 1}, 0.95, 1).low, 1);
  EXPECT_EQ(BootstrapMean({1, 1, 1}, 0.95, 1).high, 1);
  EXPECT_EQ(BootstrapMean({}, 0.95, 1).high, 0);
}

TEST(Averages, MeanAndMedian) {
  EXPECT_DOUBLE_EQ(Mean({1, 2, 6}), 3);
  EXPECT_DOUBLE_EQ(Median({6, 1, 2}), 2);
  EXPECT_DOUBLE_EQ(Median({6, 1, 2, 4}), 3);
  EXPECT_DOUBLE_EQ(Mean({}), 0);
  EXPECT_DOUBLE_EQ(Median({}), 0);
}

}  // namespace
}  // namespace longhold
