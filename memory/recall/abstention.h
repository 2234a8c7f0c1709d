// Whether a memory holds anything on a question, judged by the question's words beside the best
// spans.
//
// Pure functions on what the plan and the second look know. docs/decisions/0006 has the
// measurements.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/types.h"
#include "memory/index/lexical_index.h"
#include "memory/model/recall_profile.h"
#include "memory/recall/recall_planner.h"

namespace longhold {

// A distinct word of a question. Value type.
struct AskedWord {
  std::string text;  // as the question has it
  uint32_t stem = 0;
  uint32_t begin = 0, end = 0;  // its first place: tokens of the question
  uint32_t block_count = 0;     // blocks of the memory that it begins in
  // how rare it is in the memory (LexicalIndex::Query); 0 where it is everywhere
  double weight = 0;
  bool function_word = false;
};

// The distinct words of a question, in its order. `words` are those of the question's `tokens`,
// `known` what the index says about the last of them (RecallPlan::words), `piece` gives a token's
// text.
std::vector<AskedWord> AskedWords(std::span<const LexicalWord> words,
                                  std::span<const LexicalResult::Word> known,
                                  std::span<const TokenId> tokens,
                                  const std::function<std::string(TokenId)>& piece);

// A question's word beside one span. Value type.
struct WordMatch {
  bool found = false;  // it stands in the span, in any inflection
  // ln of how much likelier its tokens are beside the span than beside nothing, mean; 0 without a
  // second look
  double gain = 0;
  double related = 0;  // the largest weight of the related words that stand in the span

  // How much of it stands there: 0..1.
  double Found() const { return found ? 1 : related; }
};

// [asked]. `span_words` are the span's. `token_gains` is PlannedSpan::token_gains, whose first
// entry is the question's token `scored_begin`.
std::vector<WordMatch> MatchWords(std::span<const AskedWord> asked,
                                  std::span<const LexicalWord> span_words,
                                  std::span<const float> token_gains, uint32_t scored_begin,
                                  std::span<const ExpansionWord> related = {});

// How much a span speaks for the question being answered there: over the words that are no function
// words, weighed by how rare they are,
//   (mean look) * (1/4 + share that is found) / (5/4)
// A product, because each alone is fooled: by a span of the same kind about something else, which
// makes every word likelier, and by words that stand near each other by chance. The quarter lets a
// look speak for a span that says it all in other words; related words count as other words, since
// something related to a question stands in every book (decisions/0018). Nats per token, 0 or more;
// infinity where there is no word to go by.
double Support(std::span<const AskedWord> asked, std::span<const WordMatch> beside);

// The same without a look: the share of the question that stands in the span, 0..1, its words
// weighed by how rare they are in the memory and function words left out. A word that stands
// nowhere in the memory weighs most. 1 where there is no word to go by.
double FoundShare(std::span<const AskedWord> asked, std::span<const WordMatch> beside);

// A question that names several things is supported by no single span. Takes the spans' words
// together, the span with most of the question first, then always the one that adds most, as long
// as that is kNeededGain of what the first one has. Spans together also find words by chance: it
// takes kTogetherMin of them, and their share counts kTogetherFactor times less
// (docs/decisions/0006). 0 where fewer are needed.
//   spans: [spans][asked]
double FoundShareTogether(std::span<const AskedWord> asked,
                          std::span<const std::vector<WordMatch>> spans);

// A span that adds this share of what the best one explains of a question is needed beside it.
inline constexpr double kNeededGain = 0.2;
inline constexpr uint32_t kTogetherMin = 3;
inline constexpr double kTogetherFactor = 1.6;

}  // namespace longhold
