// The meaning of the question as a relevance signal: the nearest passages by an embedding model.
#pragma once

#include "memory/recall/relevance_signal.h"

namespace longhold {

// Finds places that say it in other words.
//   score(block)    = max over the sentences whose middle is in the block of score(sentence)
//   score(sentence) = max(0, (cosine(sentence, question) + cosine(its passage, question)) / 2)
//
// The signal's cover is the blocks of the three nearest sentences, by their own cosine, from 0.25
// on. The cosine is about 0.1 for a sentence on another subject. It is 0.4 to 0.8 for one that
// answers the question (all-MiniLM-L6-v2). Subtracting an offset did not rank better on any of four
// kinds of text (docs/decisions/0031).
//
// Puts nothing forward without an embedder, or where the memory has no vectors of it.
class DenseSignal final : public RelevanceSignal {
 public:
  std::string_view name() const override;
  // Errors: the index's.
  Result<SignalScores> Score(const Question& question, size_t blocks_max) const override;
};

}  // namespace longhold
