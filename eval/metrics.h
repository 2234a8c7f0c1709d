// How answers and found places are judged. Pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "eval/task.h"

namespace longhold {

// RULER's string_match_all and string_match_part (scripts/eval/synthetic/constants.py), for one
// answer, 0..1: the share of `expected` that `answer` holds as substrings, or whether it holds any.
// ASCII letter case does not count. 0 where nothing is expected.
double StringMatchAll(std::string_view answer, const std::vector<std::string>& expected);
double StringMatchPart(std::string_view answer, const std::vector<std::string>& expected);
double Match(MatchRule rule, std::string_view answer, const std::vector<std::string>& expected);

inline constexpr std::array<size_t, 4> kHitRanks = {1, 4, 8, 32};

// hit@k for k of kHitRanks: how much of the evidence is among the first k of `found`, best first. A
// range of the evidence is found when these hold half of its bytes or more, together. With
// `one_suffices` 1 or 0, else the share of the ranges that are found. Must hold: evidence is not
// empty.
std::array<double, 4> HitAt(const std::vector<ByteSpan>& found,
                            const std::vector<ByteSpan>& evidence, bool one_suffices);

struct Interval {
  double low = 0, high = 0;
};
// The percentile bootstrap's interval of the mean (Efron 1979): 2,000 resamples of the same size,
// between the shares (1 - level) / 2 at both ends. The same for the same values and seed on every
// machine. [0, 0] for no values.
Interval BootstrapMean(const std::vector<double>& values, double level, uint64_t seed);

double Mean(const std::vector<double>& values);  // 0 for none
// of an even number the mean of the middle two; 0 for none
double Median(std::vector<double> values);

}  // namespace longhold
