// Which sentences of the planned spans go through the model again as text (docs/decisions/0007).
//
// A pure function on words and scores; the engine reads the text and runs the model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/types.h"
#include "memory/abstention.h"

namespace longhold {

// A line or sentence of a planned span. Value type.
struct SpanSentence {
  size_t span = 0;               // which of the plan's, best first
  TokenSpan tokens;              // begins or ends in the span, or both
  bool peak = false;             // holds the span's peak
  std::vector<bool> found;       // [asked] the question's words that stand in it
};

// Spans below this share of the best one's score are not worth the time, and distract.
inline constexpr double kExcerptScoreMin = 0.2;

// The sentences to read, in the order of their spans and of the text, with at most `tokens_max` tokens and a line break for each.
//
// Every span gives the sentence with its peak, or one that holds twice as much of the question's weight. Then, wherever they stand, come those that hold words which no chosen one has, while they add a twentieth of the question's weight: what a
// question names beside each other may stand in one span. Spans are served best first; what does not fit is left out.
//
// `sentences` are all of the spans', ascending by span and token; `scores` are the spans' [spans].
std::vector<SpanSentence> ChooseExcerpts(std::span<const AskedWord> asked, std::span<const SpanSentence> sentences,
                                         std::span<const double> scores, uint32_t tokens_max);

}  // namespace longhold
