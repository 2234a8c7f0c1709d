// Decides what to recall for one question, and why.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "memory/lexical_index.h"
#include "memory/memory.h"
#include "memory/recall_profile.h"
#include "memory/scan_index.h"

namespace longhold {

// What a question asks of the indexes. Value type.
struct RecallQuery {
  std::vector<LexicalWord> words;   // of the question
  std::vector<ScanQuery> heads;     // one per recall head of the memory, in the manifest's order
};

struct PlannedSpan {
  DocumentId document{};
  TokenSpan tokens;
  double score = 0;                 // fused relevance, 1 is the best span's
  double head_score = 0;            // each signal by itself, 1 is its best block's
  double lexical_score = 0;
};

// Best span first; spans do not overlap.
struct RecallPlan {
  std::vector<PlannedSpan> spans;
  uint64_t candidates = 0;          // blocks that any signal put forward
  double coverage = 0;              // share of the recall heads' attention mass inside the spans; 0 without heads
};

// Scans, fuses and cuts. `parallel` runs the scan. Errors: data_loss from reading text.
//   score(block) = sum_h w_h * share_h(block) / max share_h  +  w_lexical * lexical(block) / max lexical
// A span is laid around the tokens that the signals point at, not around the block, so that what stands across a block's
// edge is whole; it then grows to whole lines where these are near.
Result<RecallPlan> PlanRecall(Memory& memory, const RecallProfile& profile, const RecallQuery& query, uint32_t spans_max,
                              const ParallelFor& parallel);

}  // namespace longhold
