// Decides whether a memory holds an answer to a question, from how the question's words match the
// best spans.
//
// Pure functions. Measurements: docs/decisions/0006, 0029 and 0032.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "memory/recall/recall_types.h"
#include "memory/recall/word_match.h"

namespace longhold {

// How strongly a span supports that the question is answered there. Over the words that are not
// function words, weighted by how rare they are:
//   (mean token gain) * (1/4 + found share) / (5/4)
// It is a product because each factor alone can mislead. A span about another thing of the same
// kind makes every word more likely, and words can be near each other by chance. The 1/4 keeps some
// support for a span that paraphrases everything. Expansion words do not count as found, because
// every book has words related to a question (docs/decisions/0018). Unit: nats per token, 0 or
// more. Infinity if the question has no word to judge by.
double Support(std::span<const AskedWord> asked, std::span<const WordMatch> match);

// The same without query likelihood: the share of the question's words that the span contains,
// 0..1. Words are weighted by how rare they are in the memory, and function words are left out. A
// word that is not in the memory has the largest weight. 1 if the question has no word to judge by.
double FoundShare(std::span<const AskedWord> asked, std::span<const WordMatch> match);

// The found share of several spans together, for questions that name several things, which no
// single span supports. It combines the words of spans. The first span is the one with most of the
// question; then the one that adds most follows, while it adds at least kNeededGain of what the
// first one has. Several spans also match words by chance. So at least kTogetherMin spans must be
// needed, else the result is 0, and their share is divided by kTogetherFactor
// (docs/decisions/0006).
//   spans: [spans][asked]
double FoundShareTogether(std::span<const AskedWord> asked,
                          std::span<const std::vector<WordMatch>> spans);

// A span is needed if it adds at least this share of what the best span explains of the question.
inline constexpr double kNeededGain = 0.2;
inline constexpr uint32_t kTogetherMin = 3;
inline constexpr double kTogetherFactor = 1.6;

struct EvidenceThresholds {
  double support = 0;     // of the best span, in the unit of the support that is judged
  double similarity = 0;  // RecallProfile::abstain_similarity
};

// How much the memory speaks for an answer. `support` is a result of Support or FoundShare;
// `similarity` is the dense signal's best score, if there is one. Strong from 3/2 of the threshold
// of support or a similarity of 0.45 on, and always if the threshold is 0. With a similarity, none
// only if the support is below 5/4 of its threshold and the similarity is low as well: what is not
// there in the question's words may be there in others. Without one, none below the threshold.
Evidence::Level EvidenceLevel(double support, const std::optional<double>& similarity,
                              const EvidenceThresholds& thresholds);

}  // namespace longhold
