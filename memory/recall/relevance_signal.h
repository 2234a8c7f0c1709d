// A relevance signal: one way to say which blocks of a memory a question is about.
//
// Four ship: the question's words and words that mean nearly the same (word_signals.h), passages
// nearest in meaning (dense_signal.h), and the model's recall heads (head_signal.h). A new one is
// an implementation of RelevanceSignal, a line in StandardSignals (retrieve.cc), and a weight under
// its name in a profile's "signals" (memory/model/recall_profile.h).
// tests/memory/recall/relevance_signal_test.cc adds one in a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"

namespace longhold {

struct Question;

// A block that a signal puts forward. Value type.
struct SignalCandidate {
  BlockKey block;
  // Of the question, the share that this block explains or attracts: 0..1, comparable between
  // questions. A signal that is unsure gives every block a small share.
  double score = 0;
  // The token that the signal points at. Without one, where `token_shares` is largest.
  std::optional<uint64_t> peak;
};

// What one signal found for one question. Value type.
struct SignalScores {
  std::vector<SignalCandidate> blocks;  // in any order, each block once
  // Blocks that must not be missed, best first. Words: those that explain the question together,
  // each what those before it leave. They keep a place in the plan behind the best span, whatever
  // their fused score; several signals' blocks take turns.
  std::vector<SignalCandidate> cover;
  // Of one block [kBlockTokens]: the share of the question's attention that each token attracts,
  // over the whole memory 1 in all. Empty for signals that know no tokens. Safe for as long as the
  // question.
  std::function<std::vector<double>(const BlockKey&)> token_shares;
  double scan_ms = 0;  // spent on scanning keys, for the record
};

// Thread use: *immutable*.
class RelevanceSignal {
 public:
  virtual ~RelevanceSignal() = default;
  // Its key in a profile, in explanations and in JSON.
  virtual std::string_view name() const = 0;
  // At most `blocks_max` candidates. Errors: data_loss.
  virtual Result<SignalScores> Score(const Question& question, size_t blocks_max) const = 0;
};

// In the order in which they are asked. Where several point at a token of one block, a span's peak
// is the first one's.
using SignalList = std::vector<std::unique_ptr<const RelevanceSignal>>;

// Those that longhold brings along.
SignalList StandardSignals();

}  // namespace longhold
