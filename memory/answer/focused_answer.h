// One focused answer, from a laid-out plan to its citations.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "memory/answer/ask_types.h"
#include "memory/answer/citations.h"
#include "memory/answer/copy_bias.h"
#include "memory/answer/place_spans.h"
#include "memory/recall/question.h"
#include "memory/recall/recall_plan.h"

namespace longhold {

// Owner: one call of Answerer. Thread use: *confined*. Borrows the question and the options.
//
// The working set holds, in this order: the prompt's head; the recalled spans, worst first, so that
// the best one stands next to the question; spans that are re-encoded whole; re-encoded excerpts;
// the prompt's tail with the question; the answer. What is added to the attention scores of a
// span's keys is
//   gate * ln(score of the span), and for assistant text ln(1/5) more (docs/decisions/0027)
class FocusedAnswer {
 public:
  using Clock = std::chrono::steady_clock;

  FocusedAnswer(const Question& question, RecallPlan plan, const AskOptions& options,
                Clock::time_point start, Clock::time_point planned);

  // Runs the model. Errors: the model's, the store's, deadline_exceeded (the deadline was over
  // before the answer began).
  Result<AskReply> Run();

 private:
  // Keys of one span in the working set. Value type.
  struct SpanKeys {
    TokenSpan recalled;    // its keys and values, recalled or re-encoded whole
    TokenSpan re_encoded;  // its excerpts
  };

  // Counts a damaged block, which several spans may need, once.
  void NoteLost(const BlockKey& block);
  // Puts the plan's recalled spans into the working set.
  Status RecallSpans();
  // Re-encodes the plan's best spans whole, where layers stay with the engine.
  Status ReencodeSpans();
  // Re-encodes the excerpts, in one pass.
  Status ReencodeExcerpts();
  // Reads the prompt's tail.
  Status ReadTail();
  Status Generate();
  void Cite();

  // Retrieval during generation: the span that the answer's own words lead to joins the set.
  // Returns the native position of the next token.
  Result<uint32_t> OnToken(std::span<const TokenId> generated, uint32_t left);
  // Puts `span` where it would stand had it been planned: before the prompt's tail, which runs
  // again behind it, as `generated` does. Nothing is done where the span is damaged or leaves no
  // room for `left` more tokens.
  Status Insert(const PlannedSpan& span, std::span<const TokenId> generated, uint32_t left);

  float BiasOf(const PlannedSpan& span, const BlockRows& rows) const;
  // The attention that each span has received since the prompt's tail.
  std::vector<double> Received() const;
  void ReportProgress(uint64_t tokens);

  const Question& q_;
  RecallPlan plan_;
  const AskOptions& options_;
  const FocusedOptions& focused_;
  const Clock::time_point start_;
  WorkingSet& set_;
  AskReply reply_;
  AskProgress progress_;
  std::vector<SpanKeys> keys_;  // [plan_.spans]
  std::set<BlockKey> lost_;
  CopyBias copy_bias_;
  Clock::time_point prompt_start_;
  uint32_t position_ = 0;       // native, of the next token
  uint32_t tail_at_ = 0;        // key at which the prompt's tail begins
  uint32_t tail_position_ = 0;  // native position at which it begins
  std::optional<InlineCitations> inline_citations_;
};

// Errors: deadline_exceeded (the options' deadline is over).
Status CheckDeadline(const FocusedOptions& options);

}  // namespace longhold
