// One faithful answer: near the model's full attention. The softmax sees the text's begin and end,
// and of the rest what each layer and KV head picks for itself (docs/decisions/0024).
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/memory_budget.h"
#include "base/status.h"
#include "memory/answer/ask_types.h"
#include "memory/answer/faithful_plan.h"
#include "memory/attend/picked_blocks.h"
#include "memory/core/memory.h"
#include "memory/core/model_context.h"
#include "memory/core/notes.h"
#include "memory/recall/prompt.h"

namespace longhold {

// Owner: one call of Answerer. Thread use: *confined*. Borrows all that it is made with.
class FaithfulAnswer {
 public:
  using Clock = std::chrono::steady_clock;

  FaithfulAnswer(const ModelContext& context, Memory& memory, MemoryBudget& budget, Notes& notes,
                 const AskOptions& options);

  // Errors: invalid_argument (empty or too long a question), resource_exhausted, those of the model
  // and the store.
  Result<AskReply> Run(std::string_view question);

 private:
  // Sizes that follow from text, question, options and budget. Value type.
  struct Sizes {
    uint32_t head = 0, tail = 0, end = 0;  // tokens of the prompt, and of the re-encoded text end
    uint64_t blocks = 0;                   // of the text
    uint64_t fixed = 0;                    // of them, seen by every head
    uint64_t picked = 0;                   // that each head sees, the fixed ones included
    uint64_t answer_tokens = 0;
    bool in_place = false;   // all of the text fits the native length: blocks keep their positions
    uint32_t shift = 0;      // positions that stand before the question
    uint64_t own = 0;        // keys of the working set
    uint64_t positions = 0;  // rotations that picking needs
  };

  // Reads the summaries of all blocks and, for native layers, the text's end. Errors:
  // resource_exhausted, the store's.
  Status ReadText();
  Status ReadEnd();
  // Which blocks every head sees: the text's begin and end, as while it was read.
  void FixEnds();
  // Errors: resource_exhausted.
  Status ChooseSizes();
  Status Reserve();
  Status Refuse(uint64_t blocks) const;
  // Asks the model what each layer looks for: it reads the question with the fixed blocks alone.
  Status Probe();
  // Reads the blocks that were picked, and counts them in the reply.
  void Place(PickedBlocks* picked);
  // Reads the question with the picked blocks, and writes the answer.
  Status Answer();
  // Cites what got most of the attention: `mass` by block, `own_mass` by key of the set.
  Status Cite(const std::vector<double>& mass, const std::vector<double>& own_mass);

  const ModelContext& context_;
  LanguageModel& model_;
  Memory& memory_;
  MemoryBudget& budget_;
  Notes& notes_;
  const AskOptions& options_;
  const Clock::time_point start_ = Clock::now();

  Prompt prompt_;
  std::vector<SummarySegment> segments_;
  // All of the memory's text in the order in which it was ingested, but its re-encoded end.
  std::vector<SummarisedBlock> blocks_;
  uint64_t text_tokens_ = 0;  // of blocks_
  std::vector<TokenId>
      end_tokens_;  // the last document's last tokens, which native layers re-encode
  DocumentId end_document_{};
  TokenSpan end_span_;
  Sizes sizes_;
  MemoryReservation summary_memory_, set_memory_, picked_memory_;
  std::unique_ptr<WorkingSet> set_;
  QueryCapture asked_;
  AskReply reply_;
};

}  // namespace longhold
