// The model's recall heads as a relevance signal: which blocks they attend to when the model reads
// the question alone.
#pragma once

#include "memory/recall/relevance_signal.h"

namespace longhold {

//   score(block) = weighted mean over the heads of the block's share of the head's attention mass
// The heads are those that the memory was indexed for; their weights are the profile's, and a head
// that the profile does not name weighs nothing.
class HeadSignal final : public RelevanceSignal {
 public:
  std::string_view name() const override;
  Result<SignalScores> Score(const Question& question, size_t blocks_max) const override;
};

}  // namespace longhold
