// What every answer does with a laid-out plan: recalled spans become rows of the working set, and
// excerpts become text.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "base/status.h"
#include "memory/answer/ask_types.h"
#include "memory/attend/working_set.h"
#include "memory/recall/block_cache.h"
#include "memory/recall/question.h"
#include "memory/recall/recall_plan.h"

namespace longhold {

// Recalled spans in a working set. Value type.
struct PlacedSpans {
  std::vector<BlockRows> rows;  // in the order of their keys, worst span first
  std::vector<TokenSpan> keys;  // [spans of the plan] where the set has them; empty for none
  std::set<BlockKey> lost;      // damaged blocks
  uint32_t tokens = 0;          // of `rows`
  uint64_t blocks_read = 0;
  uint64_t bytes_read = 0;

  // Sets the counts of a reply.
  void CountIn(AskReply* reply) const;
};

// Appends the plan's recalled spans to `set`, worst first, without near-duplicate distractors.
// `bias` returns what is added to the logits of some rows; none leaves them out. Rows that the set
// has no room for are left out, too, and damaged blocks are counted. Errors: the store's,
// resource_exhausted.
Result<PlacedSpans> PlaceSpans(const Question& question, const RecallPlan& plan, WorkingSet* set,
                               const std::function<std::optional<float>(const BlockRows&)>& bias);

// The excerpts of a plan as one text. Value type.
struct ExcerptText {
  // An excerpt: `tokens` is its place in the text.
  struct Part {
    size_t span = 0;  // which of the plan's
    TokenSpan tokens;
  };
  std::vector<TokenId> tokens;  // excerpts, date lines and line breaks
  std::vector<Part> parts;      // in the order of the text
};

// Reads the excerpts, each on lines of its own and behind its span's date line. Those are left out
// for which the working set has no room beside what it holds, the prompt's tail and the answer.
// Errors: the store's, the tokenizer's.
Result<ExcerptText> ReadExcerpts(const Question& question, const RecallPlan& plan);

// A reply with what the plan says, before the answer.
AskReply BeginReply(const Question& question, const RecallPlan& plan);

// Cuts rows where the assistant text of their document begins, and marks what is assistant text.
void SplitAssistantText(const Memory& memory, std::vector<BlockRows>* rows);
// Takes the sentences' rows out.
void LeaveOut(std::span<const SpanSentence> sentences, std::vector<BlockRows>* rows);

}  // namespace longhold
