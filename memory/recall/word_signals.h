// The question's words as relevance signals, by the lexical index.
#pragma once

#include "memory/recall/relevance_signal.h"

namespace longhold {

// The words themselves, in any inflection: n-grams weighted by rarity (LexicalIndex::Query).
//   score(block) = (lexical score - what only expansion words give) / what a block with every word
//                  of the question would score
class WordSignal final : public RelevanceSignal {
 public:
  std::string_view name() const override;
  Result<SignalScores> Score(const Question& question, size_t blocks_max) const override;
};

// Words that mean nearly the same (memory/index/query_expansion.h).
//   score(block) = what only expansion words give / what a block with every word of the question
//                  would score
class ExpansionSignal final : public RelevanceSignal {
 public:
  std::string_view name() const override;
  Result<SignalScores> Score(const Question& question, size_t blocks_max) const override;
};

}  // namespace longhold
