// Which sentences of the planned spans go through the model again as text (docs/decisions/0007).
//
// A pure function on words and scores; the engine reads the text and runs the model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/types.h"
#include "memory/index/lexical_index.h"
#include "memory/recall/abstention.h"

namespace longhold {

// A planned span, as far as it matters here. Value type.
struct ExcerptSpan {
  double score = 0;  // PlannedSpan::score, or 1 where the question needs the span
  // the question's own words found it; a follow-up is not measured by them
  bool by_question = true;
};

// A line or sentence of a planned span. Value type.
struct SpanSentence {
  size_t span = 0;        // which of the plan's, best first
  TokenSpan tokens;       // begins or ends in the span, or both
  bool peak = false;      // holds the span's peak
  std::vector<bool> has;  // [asked] the question's word stands in it
  // [asked] how much the span is about the word, up to 1, where it stands in the sentence or, by
  // its weight, a related one; else 0.
  std::vector<double> about;
  std::vector<uint32_t> form;  // FormWords
  double share = 0;            // of the heaviest sentence's weight; ChooseExcerpts sets it
};

// Distinct hashes, ascending, of the words by which sentences are compared: `words` by their stems,
// but what stands together without a blank ("79f34d45-2a8a", "memory/engine.h") as one, or the
// parts of two identifiers would outweigh the sentence. Scripts without blanks keep their
// characters. The words were read from `tokens`, whose texts are pieces[token].
std::vector<uint32_t> FormWords(std::span<const LexicalWord> words, std::span<const TokenId> tokens,
                                std::span<const std::string> pieces);

// Spans below this share of the best one's score are not worth the time, and distract.
inline constexpr double kExcerptScoreMin = 0.2;

// The sentences to read, in the order of their spans and of the text, with at most `tokens_max`
// tokens and a line break for each. A sentence's weight is that of the question's words in it that
// its span is about, and its share that of the heaviest sentence's. Beside a sentence with a share
// of 0.75 another span's with fewer of the question's words, and no other ones, is left out: it is
// about something else of the same kind (docs/decisions/0013). So is any distractor of such a
// sentence (below), also of the same span.
//
// 1. Every span gives the sentence with its peak, or one of twice its weight, if it has a share of
// 0.75: among lines of the same form those
//    about something else distract.
// 2. Then come sentences with a share of 0.75, of spans of any score: the same thing may be said in
// several places.
// 3. Then those with words that no chosen one has, each counted by how much its span is about it,
// while they add 0.2 of the heaviest's
//    weight: what a question names beside each other may stand in one span.
// Spans are served best first; what does not fit is left out.
//
// `sentences` are all of the spans', ascending by span and token.
std::vector<SpanSentence> ChooseExcerpts(std::span<const AskedWord> asked,
                                         std::span<const SpanSentence> sentences,
                                         std::span<const ExcerptSpan> spans, uint32_t tokens_max);

// Sentences that are built like a chosen one and are about something else: 0.6 of their words stand
// in it, and they have fewer of the question's words and no other ones. A model that sees them
// beside it takes the answer from them (docs/decisions/0014).
std::vector<SpanSentence> Distractors(std::span<const AskedWord> asked,
                                      std::span<const SpanSentence> sentences,
                                      std::span<const SpanSentence> chosen);

}  // namespace longhold
