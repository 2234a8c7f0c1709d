// The arithmetic of a calibration: which heads, at which weights, and how well it does. Pure
// functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "eval/calibration_signals.h"

namespace longhold {

// How well a signal ranks the blocks. Value type.
struct RankScore {
  size_t cases = 0;
  // share of the cases with a block of the evidence among the first k
  double hit1 = 0, hit4 = 0, hit8 = 0;
  double mrr = 0;  // mean of 1 / rank of its first block
};

// Scores one case's blocks: [blocks], more is better.
using BlockScorer = std::function<std::vector<double>(const CaseSignals&)>;

// Of those cases; equal scores share their ranks.
RankScore Judge(std::span<const CaseSignals* const> cases, const BlockScorer& scorer);

// A learned sum of signals: score = lexical * words + sum of weights[i] * share of heads[i].
struct SignalWeights {
  double lexical = 0;
  std::vector<size_t> heads;    // indices of SignalTable::heads
  std::vector<double> weights;  // [heads], positive
  std::vector<double> Score(const CaseSignals& signals) const;
};

// Weights that make a block of the evidence likeliest, over all cases: the mean of -ln(sum over
// evidence of softmax(score)) plus 0.01 / 2 * (sum of squares / cases), by projected gradient steps
// (Adam; Kingma and Ba, arXiv:1412.6980) from one start, weights >= 0. A head whose weight ends at
// 0 is left out. The same on every machine up to the last bits. `loss` (may be null) is what was
// reached.
SignalWeights FitWeights(std::span<const CaseSignals* const> cases,
                         const std::vector<size_t>& heads, double* loss);

// Picks heads one at a time, each that lowers the loss on either half with weights from the other
// most, until none lowers it by 1% or `heads_max` are there; candidates are the `pool` best by
// themselves. Then fits over all cases.
SignalWeights LearnWeights(std::span<const CaseSignals* const> cases, size_t head_count,
                           size_t heads_max, size_t pool);

// The threshold of a quantity that is high where there is an answer: the largest at which at most
// `wrong_max` of `answerable` fall below it, but no larger than needed to turn down `enough` of
// `unanswerable`. 0 where nothing separates them: less than half of `unanswerable` would be turned
// down.
double AbstainBelow(std::vector<double> answerable, std::vector<double> unanswerable,
                    double wrong_max, double enough);

}  // namespace longhold
