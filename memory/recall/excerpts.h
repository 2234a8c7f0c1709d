// Selects excerpts: the sentences of the planned spans that are re-encoded as text before the
// question (docs/decisions/0007).
//
// Pure functions of words and scores. The caller reads the text and runs the model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/types.h"
#include "memory/index/lexical_index.h"
#include "memory/recall/word_match.h"

namespace longhold {

// The properties of a planned span that matter here. Value type.
struct ExcerptSpan {
  double score = 0;  // PlannedSpan::score, or 1 if the question needs the span
  // Found by the question's words. False for spans of multi-hop retrieval, which are not compared
  // with those words.
  bool by_question = true;
};

// A line or sentence of a planned span. Value type.
struct SpanSentence {
  size_t span = 0;        // index of the span in the plan, best first
  TokenSpan tokens;       // begins or ends in the span, or both
  bool peak = false;      // contains the span's peak
  std::vector<bool> has;  // [asked] whether it contains the question's word
  // [asked] How much the span is about the word, up to 1, if the sentence contains the word. If it
  // contains only an expansion of it: at most the weight of that. Otherwise 0.
  std::vector<double> about;
  std::vector<uint32_t> form;  // FormWords
  double share = 0;            // share of the heaviest sentence's weight; set by ChooseExcerpts
};

// Hashes of the words by which the forms of sentences are compared, distinct and ascending. These
// are the stems of `words`, but words without a space between them ("79f34d45-2a8a",
// "memory/engine.h") get one common hash. Otherwise the parts of two identifiers would outweigh the
// rest of the sentence. In scripts without spaces every character is a word. `words` were read from
// `tokens`, whose texts are pieces[token].
std::vector<uint32_t> FormWords(std::span<const LexicalWord> words, std::span<const TokenId> tokens,
                                std::span<const std::string> pieces);

// Spans below this share of the best span's score give no excerpts under rules 1 and 3: they cost
// time and distract the model.
inline constexpr double kExcerptScoreMin = 0.2;

// Returns the chosen sentences, in the order of their spans and of the text. Together they have at
// most `tokens_max` tokens, counting one for a line break after each. The weight of a sentence is
// that of the question's words in it that its span is about. Its share is its weight divided by
// that of the heaviest sentence.
//
// Near-duplicate distractors are left out (docs/decisions/0013). Let a sentence have a share of
// 0.75. A sentence of another span that has only some of its question words, and no others, is
// about another thing of the same kind. The distractors that Distractors() describes are left out
// too, also in the same span.
//
//   1. Every span gives the sentence with its peak, or one of twice its weight, if that has a share
//      of 0.75 (a span of multi-hop retrieval: any share). Among lines of the same form, those
//      about another thing distract the model.
//   2. Then sentences with a share of 0.75 follow, from spans of any score, because several places
//      may state the same fact.
//   3. Then sentences with words that no chosen sentence has follow, while they add 0.2 of the
//      heaviest weight. Each word is weighted by how much the span is about it. One span may hold
//      several of the things that a question names.
// Spans are served best first. Sentences that do not fit are left out.
//
// `sentences` are those of all spans, ascending by span and token.
std::vector<SpanSentence> ChooseExcerpts(std::span<const AskedWord> asked,
                                         std::span<const SpanSentence> sentences,
                                         std::span<const ExcerptSpan> spans, uint32_t tokens_max);

// Returns the near-duplicate distractors: sentences with the form of a chosen one but about
// something else. At least 0.6 of their words are in the chosen one, and they have only some of its
// question words, and no others. A model that sees them takes its answer from them
// (docs/decisions/0014).
std::vector<SpanSentence> Distractors(std::span<const AskedWord> asked,
                                      std::span<const SpanSentence> sentences,
                                      std::span<const SpanSentence> chosen);

}  // namespace longhold
