// Decides what to recall for one question, and why.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "memory/core/memory.h"
#include "memory/index/lexical_index.h"
#include "memory/index/scan_index.h"
#include "memory/model/recall_profile.h"

namespace longhold {

// What a question asks of the indexes. Value type.
struct RecallQuery {
  std::vector<LexicalWord> words;  // of the question
  std::vector<ScanQuery> heads;    // one per recall head of the memory, in the manifest's order
  std::vector<ExpansionWord>
      related;  // what may stand for the words (memory/recall/query_expansion.h)
};

struct PlannedSpan {
  DocumentId document{};
  TokenSpan tokens;
  // what the words point at, or the heads where no word matches; inside `tokens`
  uint64_t peak = 0;
  double score = 0;            // fused relevance, 1 is the best span's
  double head_score = 0;       // each signal by itself: share of attention mass
  double lexical_score = 0;    // and share of the question that is explained,
  double expansion_score = 0;  // of which by words that mean nearly the same
  // ln of how much likelier the question is beside the span than beside nothing; 0 without a second
  // look.
  double question_gain = 0;
  // what it adds to the spans that explain more, 1 for the first (RankByLikelihood); 0 without one
  double coverage_gain = 0;
  // share of the recall heads' mass inside the span, of what is not parked at sinks
  double coverage = 0;
  uint32_t planned_rank = 0;  // 1-based, by the indexes alone
  double planned_score = 0;   // `score` before a second look
  // how many follow-ups lead to it (memory/recall/multi_hop.h); 0: the question itself found it
  uint32_t hops = 0;
  std::vector<float> token_gains;  // `look` by token of the question; empty without one
};

// The best span first, then in the order in which they are to be kept: those that explain what the
// ones before do not (LexicalResult::cover), then by score. Spans do not overlap. After a second
// look by score alone.
struct RecallPlan {
  std::vector<PlannedSpan> spans;
  uint64_t candidates = 0;  // blocks that any signal put forward
  double scan_ms = 0;       // that the heads' keys took
  // of a second look: the best span's `look` per token of the question
  double token_gain = 0;
  std::vector<LexicalResult::Word> words;  // of the question: LexicalResult::words

  // Sum over the spans; 0 without heads.
  double Coverage() const;
};

// Tokens of the longest span: it grows to lines at both ends and covers two peaks of one block, or
// is two spans joined.
inline uint32_t SpanTokensMax(const RecallProfile& profile) {
  return profile.span_tokens + 2 * 64 + kBlockTokens;
}

// Scans, fuses and cuts. `parallel` runs the scan. Errors: data_loss from reading text.
//   score(block) = w_head * (mean over heads of the block's share of all attention mass)
//                + w_lexical * (lexical score / what a block with every word of the question would
//                score)
// Both are shares of 1, so a signal that is unsure weighs little by itself. (Scaling each to a
// maximum of 1 instead let heads that look everywhere a little outvote words that stand in one
// place.) A span is laid around the tokens that the signals point at, not around the block, so that
// what stands across a block's edge is whole; it then grows to whole lines where these are near.
// Spans of one document with at most 48 tokens between them are joined, with what lies between,
// under the better one's score; where that would make more than SpanTokensMax, the worse one grows
// until they touch. So evidence does not fall between two spans.
Result<RecallPlan> PlanRecall(Memory& memory, const RecallProfile& profile,
                              const RecallQuery& query, uint32_t spans_max,
                              const ParallelFor& parallel);

}  // namespace longhold
