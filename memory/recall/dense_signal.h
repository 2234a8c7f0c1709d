// The meaning of the question as a relevance signal: the nearest passages by an embedding model.
#pragma once

#include "memory/recall/relevance_signal.h"

namespace longhold {

// Finds places that say it in other words.
//   score(sentence) = max(0, 0.9 cosine(sentence, question) + 0.1 cosine(its passage, question))
//   score(block)    = the largest score of a sentence whose middle is in the block
//
// The cover has the blocks of the three nearest sentences with a cosine of 0.25 or more. The cosine
// is about 0.1 for a sentence on another subject. It is 0.4 to 0.8 for one that answers the
// question (all-MiniLM-L6-v2). Subtracting an offset did not rank better on any of four kinds of
// text (docs/decisions/0031 and 0033).
//
// Puts nothing forward without an embedder, or where the memory has no vectors of it.
class DenseSignal final : public RelevanceSignal {
 public:
  std::string_view name() const override;
  // Errors: the index's.
  Result<SignalScores> Score(const Question& question, size_t blocks_max) const override;
};

}  // namespace longhold
