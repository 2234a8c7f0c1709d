// What recall has found for a question so far: the value that its stages pass on (stages.h).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "memory/index/lexical_index.h"
#include "memory/recall/excerpts.h"
#include "memory/recall/multi_hop.h"
#include "memory/recall/planned_span.h"
#include "memory/recall/recall_types.h"
#include "memory/recall/relevance_signal.h"

namespace longhold {

// One signal's findings, between Retrieve and Fuse. Value type.
struct RetrievedSignal {
  std::string_view name;
  double weight = 0;  // the profile's
  SignalScores scores;
};

// How recalled spans are put before the model, worst first. Value type.
struct RecallLayout {
  // The first of the plan's spans are re-encoded whole as text instead of recalled: layers that
  // stay with the engine see nothing else (docs/decisions/0004).
  size_t reencoded_spans = 0;
  std::vector<SpanSentence> excerpts;     // re-encoded as text right before the question, in order
  std::vector<SpanSentence> distractors;  // not recalled
};

// Move-only value.
struct RecallPlan {
  std::vector<RetrievedSignal> retrieved;  // empty after Fuse
  // Best first. They do not overlap.
  std::vector<PlannedSpan> spans;
  // Competed and fell out; each span's trail says where and why.
  std::vector<PlannedSpan> dropped;
  uint64_t candidates = 0;                         // blocks that any signal put forward
  double scan_ms = 0;                              // that the recall heads' keys took
  std::chrono::steady_clock::time_point fused_at;  // when Fuse was done
  bool reranked = false;
  double token_gain = 0;   // of the best reranked span, per token of the question
  bool abstained = false;  // the memory seems to hold nothing on the question
  Evidence evidence;
  // Retrieval that goes on while the answer is generated; null where none is to.
  std::unique_ptr<MultiHop> hops;
  uint32_t hops_used = 0;  // lookups that lead to the farthest span
  // From Fit on: [spans] for people, and how many spans are left out because their text is damaged.
  std::vector<RecalledSpan> described;
  uint64_t spans_lost = 0;
  RecallLayout layout;

  // Share of the recall heads' attention mass that the spans hold: 0..1, and 0 without heads.
  double Coverage() const;
  // Moves spans[from, ...) to the dropped ones.
  void DropFrom(size_t from, std::string_view stage, std::string_view reason);
};

}  // namespace longhold
