#include "memory/recall/abstention.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/status.h"

namespace longhold {
namespace {

// Support of a span that paraphrases everything.
constexpr double kParaphrase = 0.25;
// Times the threshold of support (docs/decisions/0032).
constexpr double kStrongFactor = 1.5, kBothLowFactor = 1.25;
constexpr double kStrongSimilarity = 0.45;

}  // namespace

double Support(std::span<const AskedWord> asked, std::span<const WordMatch> match) {
  LH_CHECK(asked.size() == match.size());
  double all = 0, gain = 0;
  for (size_t i = 0; i < asked.size(); ++i) {
    if (asked[i].function_word) continue;
    all += asked[i].weight;
    gain += asked[i].weight * match[i].gain;
  }
  if (all <= 0) return std::numeric_limits<double>::infinity();
  return std::max(0.0, gain / all) * (kParaphrase + FoundShare(asked, match)) / (kParaphrase + 1);
}

double FoundShare(std::span<const AskedWord> asked, std::span<const WordMatch> match) {
  LH_CHECK(asked.size() == match.size());
  double all = 0, found = 0;
  for (size_t i = 0; i < asked.size(); ++i) {
    if (asked[i].function_word) continue;
    all += asked[i].weight;
    if (match[i].found) found += asked[i].weight;
  }
  return all > 0 ? found / all : 1;
}

double FoundShareTogether(std::span<const AskedWord> asked,
                          std::span<const std::vector<WordMatch>> spans) {
  std::vector<WordMatch> together(asked.size());
  double share = 0, first = 0;
  for (uint32_t needed = 0;; ++needed) {
    double most = 0;
    std::vector<WordMatch> best;
    for (const std::vector<WordMatch>& span : spans) {
      std::vector<WordMatch> with = together;
      for (size_t w = 0; w < with.size(); ++w) with[w].found |= span[w].found;
      const double gain = FoundShare(asked, with) - share;
      if (gain <= most) continue;
      most = gain;
      best = std::move(with);
    }
    if (needed == 0) first = most;
    if (most <= 0 || most < kNeededGain * first)
      return needed >= kTogetherMin ? share / kTogetherFactor : 0;
    share += most;
    together = std::move(best);
  }
}

Evidence::Level EvidenceLevel(double support, const std::optional<double>& similarity,
                              const EvidenceThresholds& thresholds) {
  if (thresholds.support <= 0 || support >= kStrongFactor * thresholds.support)
    return Evidence::Level::kStrong;
  if (!similarity.has_value())
    return support >= thresholds.support ? Evidence::Level::kWeak : Evidence::Level::kNone;
  if (*similarity >= kStrongSimilarity) return Evidence::Level::kStrong;
  const bool none =
      support < kBothLowFactor * thresholds.support && *similarity < thresholds.similarity;
  return none ? Evidence::Level::kNone : Evidence::Level::kWeak;
}

}  // namespace longhold
