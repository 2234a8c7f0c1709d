// Words that mean nearly what a question's words mean, by what the model itself knows: "physician"
// for "doctor".
//
// A model's input embeddings lie near each other for words that are used alike, and every model
// brings them along: no other model, no list of synonyms, no language but those that it has
// learned. What lies near a word of the question and stands in the memory is looked for beside the
// word itself (LexicalIndex::Query). Vectors have their mean and their few strongest common
// directions taken off, which tell frequent from rare tokens and little else (Mu and Viswanath,
// "All-but-the-Top", arXiv:1702.01417). docs/decisions/0018 has the measurements.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/parallel.h"
#include "base/types.h"
#include "memory/index/lexical_index.h"

namespace longhold {

// Reads token embeddings: [tokens, width]. Safe to call concurrently.
using EmbedTokens = std::function<void(std::span<const TokenId> tokens, float* out)>;

// Words beside one of a question that are looked for, and how near they must be: a cosine. Chosen
// on 121 questions on the Bible and on statements in other words, with both models; the optimum is
// flat (decisions/0018).
inline constexpr size_t kExpansionWordsMax = 20;
inline constexpr float kExpansionSimilarityMin = 0.22f;

// Owner: the engine, one for each model. *Immutable*.
class QueryExpansion {
 public:
  // Words of one token of `vocabulary`, with the space before them, are known: 21,000 of SmolLM2's
  // vocabulary, 90,000 of Gemma's. Reads some 1,500 rows of `embed`, and takes some milliseconds;
  // keeps a few bytes a word.
  QueryExpansion(const LexicalVocabulary& vocabulary, uint32_t width, EmbedTokens embed);

  // For each distinct word of `words`, which stand in the question's `tokens`, the nearest words
  // that `index` holds, nearest first. Function words, numbers and words of the question itself are
  // neither expanded nor found; a word that lies near several is the nearest one's. `weight` is 1/2
  // at kExpansionSimilarityMin and 1 where nothing tells the two words apart. Cost: one row of
  // `embed` for every known word that the index holds (10,000 in the Bible: 10 to 20 ms of one
  // core).
  std::vector<ExpansionWord> Find(std::span<const LexicalWord> words,
                                  std::span<const TokenId> tokens, const LexicalIndex& index,
                                  const ParallelFor& parallel) const;

 private:
  struct Known {
    uint32_t id = 0;  // LexicalWord::id
    TokenId token = 0;
  };

  // The sum of the tokens' vectors without mean and common directions, of length 1; false where
  // nothing is left.
  bool Direction(std::span<const TokenId> tokens, float* out) const;

  uint32_t width_;
  EmbedTokens embed_;
  std::vector<Known> known_;   // ascending by id
  std::vector<float> mean_;    // [width]
  std::vector<float> common_;  // [directions, width], orthonormal
};

}  // namespace longhold
