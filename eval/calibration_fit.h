// The arithmetic of a calibration: choosing heads, fitting weights and scoring rankings. Pure
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

// The quality of a ranking of blocks. Value type.
struct RankScore {
  size_t cases = 0;
  // hit@k: share of the cases with a block of the evidence among the first k
  double hit1 = 0, hit4 = 0, hit8 = 0;
  double mrr = 0;  // mean reciprocal rank of the first evidence block
};

// Scores the blocks of one case: [blocks], higher is better.
using BlockScorer = std::function<std::vector<double>(const CaseSignals&)>;

// Scores the ranking by `scorer` on `cases`. Blocks with equal scores share their mean rank.
RankScore Judge(std::span<const CaseSignals* const> cases, const BlockScorer& scorer);

// A learned sum of signals: score = lexical * words + sum of weights[i] * share of heads[i].
struct SignalWeights {
  double lexical = 0;
  std::vector<size_t> heads;    // indices of SignalTable::heads
  std::vector<double> weights;  // [heads], positive
  std::vector<double> Score(const CaseSignals& signals) const;
};

// Fits nonnegative weights that maximise the likelihood of the evidence blocks. The loss is the
// mean over cases of -ln(sum over evidence of softmax(score)), plus 0.01 / 2 * (sum of squared
// weights / cases). The optimiser (eval/descent.h) begins at a fixed start. Heads whose weight ends
// at 0 are dropped. `loss` may be null; it receives the final loss.
SignalWeights FitWeights(std::span<const CaseSignals* const> cases,
                         const std::vector<size_t>& heads, double* loss);

// Greedy forward selection of heads. The candidates are the `pool` best single heads. Each step
// adds the head that lowers the two-fold cross-validated loss most. It stops when no head lowers
// the loss by 1%, or at `heads_max` heads. Then it fits the weights on all cases.
SignalWeights LearnWeights(std::span<const CaseSignals* const> cases, size_t head_count,
                           size_t heads_max, size_t pool);

// The threshold for abstaining, on a quantity that is high if there is an answer. It is the largest
// value with at most a share `wrong_max` of `answerable` below it, but no larger than needed to
// have a share `enough` of `unanswerable` below it. 0 if it does not separate the two: less than
// half of `unanswerable` is below it.
double AbstainBelow(std::vector<double> answerable, std::vector<double> unanswerable,
                    double wrong_max, double enough);

}  // namespace longhold
