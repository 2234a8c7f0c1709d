#include "eval/fusion_fit.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/status.h"
#include "eval/descent.h"
#include "memory/recall/abstention.h"

namespace longhold {
namespace {

// The pull to the present weights: a weight that moves by 1 must lower the loss by kPull / 2 nats.
constexpr double kPull = 0.02;
// Where the sharpness begins, as a logarithm. Scores are shares, and calibration on plain text
// found sharpnesses from 3 to 40.
constexpr double kSharpness = 2;
constexpr DescentOptions kDescent = {
    .steps = 400, .step_size = 0.1, .low = 0, .high = kFusionWeightMax};

bool HasEvidence(const FusionCase& c) {
  return std::any_of(c.candidates.begin(), c.candidates.end(),
                     [](const FusionCandidate& x) { return x.evidence; });
}

// The gradient of one case's loss by the fused scores' weights: [signals].
std::vector<double> CaseGradient(const FusionCase& c, const std::vector<double>& weights,
                                 double sharpness) {
  std::vector<double> p;
  for (const FusionCandidate& x : c.candidates) {
    p.push_back(sharpness *
                std::inner_product(weights.begin(), weights.end(), x.scores.begin(), 0.0));
  }
  const double max = *std::max_element(p.begin(), p.end());
  double sum = 0, right = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    sum += p[i] = std::exp(p[i] - max);
    if (c.candidates[i].evidence) right += p[i];
  }
  std::vector<double> gradient(weights.size(), 0.0);
  for (size_t i = 0; i < p.size(); ++i) {
    const FusionCandidate& x = c.candidates[i];
    const double pull = p[i] / sum - (x.evidence ? p[i] / std::max(right, 1e-300) : 0);
    for (size_t s = 0; s < weights.size(); ++s) gradient[s] += pull * x.scores[s];
  }
  return gradient;
}

// The mean of CaseGradient over the cases of a kind that teach something; empty without any.
std::vector<double> KindGradient(const FusionKind& kind, const std::vector<double>& weights,
                                 double sharpness) {
  std::vector<double> mean;
  double count = 0;
  for (const FusionCase& c : kind.cases) {
    if (!HasEvidence(c)) continue;
    mean.resize(weights.size(), 0.0);
    const std::vector<double> gradient = CaseGradient(c, weights, sharpness);
    for (size_t s = 0; s < mean.size(); ++s) mean[s] += gradient[s];
    ++count;
  }
  for (double& x : mean) x /= count;
  return mean;
}

double Share(const std::vector<EvidenceSample>& samples, const AbstainThresholds& thresholds) {
  const auto count = std::count_if(samples.begin(), samples.end(), [&](const EvidenceSample& s) {
    return Abstains(s, thresholds);
  });
  return samples.empty() ? 0 : static_cast<double>(count) / static_cast<double>(samples.size());
}

}  // namespace

std::vector<double> FitFusion(std::span<const FusionKind* const> kinds,
                              const std::vector<double>& present) {
  LH_CHECK(!present.empty() && present[0] == 1);
  // What is fitted: the logarithm of the sharpness, then the weights of all signals but words.
  std::vector<double> start = present;
  start[0] = kSharpness;
  bool taught = false;
  const auto gradient = [&](const std::vector<double>& at, std::vector<double>* slope) {
    std::vector<double> weights = at, sum(at.size(), 0.0);
    weights[0] = 1;
    const double sharpness = std::exp(at[0]);
    double count = 0;
    for (const FusionKind* kind : kinds) {
      const std::vector<double> mean = KindGradient(*kind, weights, sharpness);
      if (mean.empty()) continue;
      for (size_t s = 0; s < sum.size(); ++s) sum[s] += mean[s];
      ++count;
    }
    taught = count > 0;
    slope->assign(at.size(), 0.0);
    for (size_t s = 0; taught && s < sum.size(); ++s) {
      (*slope)[0] += sharpness * weights[s] * sum[s] / count;
      if (s > 0) (*slope)[s] = sharpness * sum[s] / count + kPull * (at[s] - present[s]);
    }
  };
  std::vector<double> fitted = Descend(start, kDescent, gradient);
  if (!taught) return present;
  fitted[0] = 1;
  return fitted;
}

std::vector<std::vector<double>> FitWithoutEach(std::span<const FusionKind* const> kinds,
                                                const std::vector<double>& present) {
  LH_CHECK(kinds.size() >= 2);
  std::vector<std::vector<double>> weights;
  for (size_t left_out = 0; left_out < kinds.size(); ++left_out) {
    std::vector<const FusionKind*> others(kinds.begin(), kinds.end());
    others.erase(others.begin() + static_cast<ptrdiff_t>(left_out));
    weights.push_back(FitFusion(others, present));
  }
  return weights;
}

RankScore ScoreRanks(std::span<const uint32_t> ranks) {
  RankScore score;
  for (const uint32_t rank : ranks) {
    ++score.cases;
    if (rank == 0) continue;
    score.hit1 += rank <= 1;
    score.hit4 += rank <= 4;
    score.hit8 += rank <= 8;
    score.mrr += 1.0 / rank;
  }
  const double cases = static_cast<double>(std::max<size_t>(score.cases, 1));
  for (double* x : {&score.hit1, &score.hit4, &score.hit8, &score.mrr}) *x /= cases;
  return score;
}

bool LearnedIsNoWorse(std::span<const RankScore> learned, std::span<const RankScore> present) {
  LH_CHECK(learned.size() == present.size());
  double gain = 0;
  for (size_t k = 0; k < learned.size(); ++k) gain += learned[k].mrr - present[k].mrr;
  return gain > -1e-12;
}

bool Abstains(const EvidenceSample& sample, const AbstainThresholds& thresholds) {
  if (sample.no_candidate) return true;
  return EvidenceLevel(sample.found_share, sample.similarity,
                       {.support = thresholds.found, .similarity = thresholds.similarity}) ==
         Evidence::Level::kNone;
}

RefusalScore ScoreThresholds(const EvidenceKind& kind, const AbstainThresholds& thresholds) {
  return {.answerable = kind.answerable.size(),
          .unanswerable = kind.unanswerable.size(),
          .refused = Share(kind.answerable, thresholds),
          .recognised = Share(kind.unanswerable, thresholds)};
}

std::optional<AbstainThresholds> ChooseThresholds(std::span<const EvidenceKind> kinds,
                                                  const AbstainThresholds& present) {
  std::optional<AbstainThresholds> chosen;
  double best = 0, best_distance = 0;
  const auto attempt = [&](const AbstainThresholds& t) {
    double recognised = 0, count = 0;
    for (const EvidenceKind& kind : kinds) {
      const RefusalScore score = ScoreThresholds(kind, t);
      if (score.refused > kRefusedMax) return;
      recognised += score.recognised;
      count += score.unanswerable > 0;
    }
    if (count == 0) return;
    const double distance =
        std::abs(t.found - present.found) + std::abs(t.similarity - present.similarity);
    const double gain = recognised / count - best;
    if (chosen && (gain < -1e-9 || (gain < 1e-9 && distance >= best_distance))) return;
    chosen = t;
    best = recognised / count;
    best_distance = distance;
  };
  attempt(present);
  for (int found = 10; found <= 80; ++found) {
    for (int similarity = 10; similarity <= 45; ++similarity)
      attempt({.found = found / 100.0, .similarity = similarity / 100.0});
  }
  return chosen;
}

bool LearnedRefuseNoMore(std::span<const RefusalScore> learned,
                         std::span<const RefusalScore> present) {
  LH_CHECK(learned.size() == present.size());
  for (size_t k = 0; k < learned.size(); ++k) {
    if (learned[k].refused > std::max(kRefusedMax, present[k].refused)) return false;
  }
  return true;
}

uint32_t PlaceRanks::First() const {
  uint32_t first = 0;
  for (const uint32_t rank : ranks) {
    if (rank > 0 && (first == 0 || rank < first)) first = rank;
  }
  return first;
}

double PlaceRanks::ShareIn(uint32_t spans) const {
  const auto found = std::count_if(ranks.begin(), ranks.end(),
                                   [&](uint32_t rank) { return rank > 0 && rank <= spans; });
  return all_needed ? static_cast<double>(found) / static_cast<double>(ranks.size()) : found > 0;
}

std::vector<double> EvidenceBySpans(std::span<const std::vector<PlaceRanks>> kinds) {
  std::vector<double> shares;
  for (const uint32_t spans : kSpanCounts) {
    double sum = 0;
    for (const std::vector<PlaceRanks>& cases : kinds) {
      double share = 0;
      for (const PlaceRanks& c : cases) share += c.ShareIn(spans);
      sum += share / static_cast<double>(std::max<size_t>(cases.size(), 1));
    }
    shares.push_back(sum / static_cast<double>(std::max<size_t>(kinds.size(), 1)));
  }
  return shares;
}

uint32_t ChooseSpans(std::span<const double> shares) {
  LH_CHECK(shares.size() == std::size(kSpanCounts));
  for (size_t i = 0; i + 1 < shares.size(); ++i) {
    if (shares[i + 1] - shares[i] < kSpansGainMin) return kSpanCounts[i];
  }
  return kSpanCounts[std::size(kSpanCounts) - 1];
}

}  // namespace longhold
