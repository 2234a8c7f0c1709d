// The question's words, and how they match a span.
//
// Pure functions of words and token gains.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/types.h"
#include "memory/index/lexical_index.h"

namespace longhold {

// A distinct word of a question. Value type.
struct AskedWord {
  std::string text;  // as written in the question
  uint32_t stem = 0;
  uint32_t begin = 0, end = 0;  // its first occurrence: tokens of the question
  uint32_t block_count = 0;     // blocks of the memory in which it begins
  // How rare it is in the memory (LexicalIndex::Query). 0 if it is everywhere.
  double weight = 0;
  bool function_word = false;
};

// The distinct words of a question, in its order. `words` are those of the question's `tokens`.
// `known` is what the index returned for the last of them (RecallPlan::words). `piece` returns a
// token's text.
std::vector<AskedWord> AskedWords(std::span<const LexicalWord> words,
                                  std::span<const LexicalResult::Word> known,
                                  std::span<const TokenId> tokens,
                                  const std::function<std::string(TokenId)>& piece);

// How one word of the question matches one span. Value type.
struct WordMatch {
  bool found = false;  // the span contains it, in any inflection
  // Mean token gain: ln of how much more likely the word's tokens are with the span than without
  // it. 0 without reranking.
  double gain = 0;
  double related = 0;  // largest weight of its expansion words in the span

  // How much the span matches the word: 0..1.
  double Found() const { return found ? 1 : related; }
};

// [asked] The match of each word. `span_words` are the span's words. `token_gains` is
// PlannedSpan::token_gains; its first element belongs to token `scored_begin` of the question.
std::vector<WordMatch> MatchWords(std::span<const AskedWord> asked,
                                  std::span<const LexicalWord> span_words,
                                  std::span<const float> token_gains, uint32_t scored_begin,
                                  std::span<const ExpansionWord> related = {});

}  // namespace longhold
