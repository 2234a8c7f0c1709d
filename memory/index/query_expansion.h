// Query expansion: finds words whose meaning is close to that of a question's words, from the
// model's own embeddings. Example: "physician" for "doctor".
//
// A model's input embeddings are close to each other for words that are used alike. Every model has
// them, so query expansion needs no other model and no list of synonyms, and covers the languages
// that the model has learned. Words close to a question word that occur in the memory are searched
// in addition to the word itself (LexicalIndex::Query). The mean and the few strongest common
// directions are first removed from the vectors: they separate frequent from rare tokens and carry
// little meaning (Mu and Viswanath, "All-but-the-Top", arXiv:1702.01417). Measurements:
// docs/decisions/0018.
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

// The most expansion words per question word, and their least cosine similarity. Chosen on 121
// questions on the Bible and on paraphrased statements, with both models. The optimum is flat
// (docs/decisions/0018).
inline constexpr size_t kExpansionWordsMax = 20;
inline constexpr float kExpansionSimilarityMin = 0.22f;

// Owner: the engine, one for each model. *Immutable*.
class QueryExpansion {
 public:
  // Knows the words of `vocabulary` that are one token, including the space before them: 21,000 of
  // SmolLM2's vocabulary, 90,000 of Gemma's. Reads about 1,500 rows of `embed` in a few
  // milliseconds. Keeps a few bytes per word.
  QueryExpansion(const LexicalVocabulary& vocabulary, uint32_t width, EmbedTokens embed);

  // For each distinct word of `words`, which were read from the question's `tokens`, returns the
  // closest words that `index` holds, closest first. Function words, numbers and words of the
  // question itself are neither expanded nor returned. A word that is close to several question
  // words is returned for the closest one. `weight` is 1/2 at kExpansionSimilarityMin and 1 if the
  // two words have the same direction. Cost: one row of `embed` for every known word in the index
  // (10,000 in the Bible: 10 to 20 ms of one core).
  std::vector<ExpansionWord> Find(std::span<const LexicalWord> words,
                                  std::span<const TokenId> tokens, const LexicalIndex& index,
                                  const ParallelFor& parallel) const;

 private:
  struct Known {
    uint32_t id = 0;  // LexicalWord::id
    TokenId token = 0;
  };

  // What Find reads from the question.
  struct AskedWords {
    std::vector<uint32_t> own;      // all stems of the question
    std::vector<uint32_t> stems;    // those that are expanded
    std::vector<float> directions;  // [stems, width]
  };
  AskedWords Ask(std::span<const LexicalWord> words, std::span<const TokenId> tokens) const;
  // The cosine of each word of `held` with each asked one, without the mean and the common
  // directions: [held, stems].
  std::vector<float> Similarities(const AskedWords& words, const std::vector<Known>& held,
                                  const ParallelFor& parallel) const;
  // Chooses from `held`, whose stems are ascending, by `similarity` [held, asked].
  static std::vector<ExpansionWord> Nearest(const std::vector<uint32_t>& asked,
                                            const std::vector<Known>& held,
                                            const std::vector<float>& similarity);

  // The sum of the tokens' vectors without the mean and the common directions, normalised to length
  // 1. Returns false if nothing is left.
  bool Direction(std::span<const TokenId> tokens, float* out) const;

  uint32_t width_;
  EmbedTokens embed_;
  std::vector<Known> known_;   // ascending by id
  std::vector<float> mean_;    // [width]
  std::vector<float> common_;  // [directions, width], orthonormal
};

}  // namespace longhold
