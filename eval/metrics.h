// Metrics for answers and for retrieved places. Pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "eval/task.h"

namespace longhold {

// RULER's metrics (scripts/eval/synthetic/constants.py) for one answer, 0..1. string_match_all is
// the share of `expected` that `answer` contains as substrings. string_match_part is 1 if it
// contains any of them. ASCII letter case is ignored. 0 if `expected` is empty.
double StringMatchAll(std::string_view answer, const std::vector<std::string>& expected);
double StringMatchPart(std::string_view answer, const std::vector<std::string>& expected);
double Match(MatchRule rule, std::string_view answer, const std::vector<std::string>& expected);

inline constexpr std::array<size_t, 4> kHitRanks = {1, 4, 8, 32};

// hit@k for each k of kHitRanks. `found` is sorted best first. A range of the evidence counts as
// found if the first k of `found` together contain at least half of its bytes. The result is the
// share of ranges found; with `one_suffices` it is 1 if any is found, else 0. Must hold: evidence
// is not empty.
std::array<double, 4> HitAt(const std::vector<ByteSpan>& found,
                            const std::vector<ByteSpan>& evidence, bool one_suffices);

struct Interval {
  double low = 0, high = 0;
};
// The percentile bootstrap interval of the mean (Efron 1979), from 2,000 resamples of the same
// size. It leaves out the share (1 - level) / 2 at each end. The same values and seed give the same
// interval on every machine. [0, 0] for no values.
Interval BootstrapMean(const std::vector<double>& values, double level, uint64_t seed);

double Mean(const std::vector<double>& values);  // 0 for no values
// For an even number of values, the mean of the middle two. 0 for no values.
double Median(std::vector<double> values);

}  // namespace longhold
