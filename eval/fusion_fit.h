// The arithmetic of calibration on labelled cases: weights of the signals, thresholds of abstention
// and the number of spans. docs/design/calibration.md has the method. Pure functions; the results
// are the same on every machine up to the last bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/calibration_fit.h"

namespace longhold {

// ------------------------------------------------------------------------------------------------
// weights

// A span that competed for a question.
struct FusionCandidate {
  std::vector<double> scores;  // [signals], the same order for all; words are the first
  bool evidence = false;       // holds at least half of a place of evidence
};

// A question and the spans that competed for it.
struct FusionCase {
  std::vector<FusionCandidate> candidates;
};

// The questions of one kind of text that it answers.
struct FusionKind {
  std::vector<FusionCase> cases;
};

// Fits weights [signals] that maximise the likelihood of the evidence. The weight of words is 1.
//   loss(case) = -ln(sum over evidence of softmax(sharpness * sum over signals of weight * score))
// The loss of a kind is the mean over its cases. The total is the mean over kinds, so each kind
// weighs the same. A small pull to `present` [signals] is added. It decides where the cases do not.
// The sharpness is fitted as well. Cases without evidence among their candidates teach nothing; a
// kind without any other case does not count. Without any case the result is `present`. Must hold:
// present[0] is 1, and all weights are from 0 to kFusionWeightMax.
std::vector<double> FitFusion(std::span<const FusionKind* const> kinds,
                              const std::vector<double>& present);
inline constexpr double kFusionWeightMax = 8;

// FitFusion on all kinds but one: [kinds][signals]. Must hold: there are at least two.
std::vector<std::vector<double>> FitWithoutEach(std::span<const FusionKind* const> kinds,
                                                const std::vector<double>& present);

// The score of a ranking, from the rank of each case's first evidence; 0: not found, a miss.
RankScore ScoreRanks(std::span<const uint32_t> ranks);

// Whether learned weights replace the present ones: not if they rank worse on kinds that they were
// not learned from, by the mean over kinds of the mean reciprocal rank. Must hold: both have the
// same kinds.
bool LearnedIsNoWorse(std::span<const RankScore> learned, std::span<const RankScore> present);

// ------------------------------------------------------------------------------------------------
// thresholds

// How much a memory speaks for an answer (Evidence of memory/recall/recall_types.h).
struct EvidenceSample {
  double found_share = 0;
  std::optional<double> similarity;  // none without an embedding model
  bool no_candidate = false;         // nothing was found, which no threshold changes
};

// The questions of one kind of text that it answers, and others.
struct EvidenceKind {
  std::vector<EvidenceSample> answerable, unanswerable;
};

struct AbstainThresholds {
  double found = 0, similarity = 0;  // RecallProfile::abstain_found, ::abstain_similarity
};

// Whether recall abstains: no candidate, or EvidenceLevel (memory/recall/abstention.h) is none.
bool Abstains(const EvidenceSample& sample, const AbstainThresholds& thresholds);

// Shares of the answerable questions that are refused, and of the others that are recognised.
struct RefusalScore {
  size_t answerable = 0, unanswerable = 0;
  double refused = 0, recognised = 0;
};
RefusalScore ScoreThresholds(const EvidenceKind& kind, const AbstainThresholds& thresholds);

// The pair of a grid that refuses at most kRefusedMax of the answerable questions of every kind and
// recognises most of the others, by the mean over the kinds that have some. If pairs do so equally
// well, the one nearest to `present` wins. nullopt if no pair refuses so few, or no kind has
// questions without an answer.
std::optional<AbstainThresholds> ChooseThresholds(std::span<const EvidenceKind> kinds,
                                                  const AbstainThresholds& present);
inline constexpr double kRefusedMax = 0.03;

// Whether learned thresholds replace the present ones: not if they refuse more than kRefusedMax of
// a kind that they were not learned from, and more of it than the present ones. Must hold: both
// have the same kinds.
bool LearnedRefuseNoMore(std::span<const RefusalScore> learned,
                         std::span<const RefusalScore> present);

// ------------------------------------------------------------------------------------------------
// number of spans

// After how many spans each place of evidence of one case is found; 0: not at all.
struct PlaceRanks {
  std::vector<uint32_t> ranks;  // [places], not empty
  bool all_needed = false;      // else any one place suffices

  uint32_t First() const;  // the least rank, 0 if there is none
  // The evidence that `spans` spans bring: the share of needed places, else 0 or 1.
  double ShareIn(uint32_t spans) const;
};

inline constexpr uint32_t kSpanCounts[] = {4, 6, 8, 12, 16, 24};

// The mean over kinds [kinds][cases] of the share of evidence that each of kSpanCounts brings.
std::vector<double> EvidenceBySpans(std::span<const std::vector<PlaceRanks>> kinds);
// The least of kSpanCounts after which the next one brings less than kSpansGainMin more; the last
// one if each brings more. `shares`: what EvidenceBySpans returns. Answers follow the evidence only
// roughly: the 1.5B model answers 47 of 60 questions with 8 spans and 46 with 16.
inline constexpr double kSpansGainMin = 0.02;
uint32_t ChooseSpans(std::span<const double> shares);

}  // namespace longhold
