// Keys and values of recalled text that the model has not read yet.
//
// A text is found as soon as it is indexed (memory/ingest), and reading it takes the model much
// longer. Until then, the blocks that a question recalls are read for it alone: the document's
// sinks, a *run-up* of the tokens right before the block, and the block. In a reading from the
// start, a token attends to the sinks and to a window, so that a short run-up comes close
// (docs/decisions/0036). Such blocks are *provisional*: they are kept for later questions, and
// replaced when the model has read the document up to there.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "base/memory_budget.h"
#include "base/status.h"
#include "base/types.h"
#include "memory/attend/hot_window.h"
#include "memory/core/memory.h"
#include "memory/model/language_model.h"

namespace longhold {

// The least tokens right before a token that are read with it. Blocks are read whole from their
// begin on, so that most tokens have up to 63 more.
inline constexpr uint32_t kRunUpTokens = 64;

// The most unread tokens, run-ups included, that a question has read: some seconds with a model of
// 1.5 billion parameters on two cores. The best span is always read.
inline constexpr uint32_t kUnreadTokensMax = 640;

// What a question needs of one block. Value type.
struct NeededRows {
  BlockKey key;
  uint32_t begin = 0, end = 0;  // rows of the block
};

// A block that was read for a question, to be kept (Memory::PutProvisional). Value type.
struct UnkeptBlock {
  BlockKey key;
  KvBlock block;
  uint32_t run_up = 0;
};

// Owner: one question. Thread use: *confined*.
class UnreadBlocks {
 public:
  // Borrows all of them. Must hold: `run_up` is a multiple of kBlockTokens.
  UnreadBlocks(LanguageModel* model, Memory* memory, MemoryBudget* budget,
               uint32_t run_up = kRunUpTokens)
      : model_(*model), memory_(*memory), budget_(*budget), run_up_(run_up) {}

  // Whether the model has yet to read some of the document's tokens before `end`.
  static bool IsUnread(const Memory& memory, DocumentId document, uint64_t end) {
    return end > memory.Get(document).committed_tokens;
  }

  // Reserves the RAM that Load takes beside the blocks, for as long as this object lives. Errors:
  // resource_exhausted.
  Status Reserve();
  // Blocks that hold at least the needed rows. Those that an earlier question had read come from
  // the memory; the model reads the others, which takes as long as a prompt of their tokens, and
  // the memory keeps them, or TakeUnkept returns them. The native cache is as before. Must hold:
  // the blocks are not committed. Errors: the model's, resource_exhausted, data_loss (the text).
  Result<std::map<BlockKey, KvBlock>> Load(std::span<const NeededRows> needed);
  // How many tokens the model would read for that.
  uint64_t TokensToRead(std::span<const NeededRows> needed);

  uint64_t tokens_read() const { return tokens_read_; }  // for all calls of Load
  // The blocks that were read and that the memory, open only for reading, could not keep.
  std::vector<UnkeptBlock> TakeUnkept() { return std::exchange(unkept_, {}); }

 private:
  // Tokens of one document that are read in one go: whole blocks from `begin` on, of which those
  // before block `first` are the run-up.
  struct Run {
    DocumentId document{};
    uint64_t begin = 0, end = 0;
    uint32_t first = 0;
  };

  // What the memory has no provisional block for, each block once, sorted by key.
  std::vector<NeededRows> Missing(std::span<const NeededRows> needed);
  // Whether the memory has the rows, with a run-up that is long enough.
  bool IsStored(const NeededRows& rows);
  // What the model has to read for `missing`.
  std::vector<Run> Plan(std::span<const NeededRows> missing) const;
  Status Read(const Run& run, std::map<BlockKey, KvBlock>* blocks);
  // The document's sink blocks, which are read where they are not there.
  Result<std::vector<KvBlock>> Sinks(DocumentId document);
  uint32_t SinkTokens() const { return memory_.manifest().sink_tokens; }
  // The sink blocks that the model has not read.
  std::vector<NeededRows> SinkRows(DocumentId document) const;
  HotWindowOptions Window() const;

  LanguageModel& model_;
  Memory& memory_;
  MemoryBudget& budget_;
  const uint32_t run_up_;
  MemoryReservation reading_;
  std::map<DocumentId, std::vector<KvBlock>> sinks_;
  // Of the blocks that were looked for; without tokens where the memory has none.
  std::map<BlockKey, ProvisionalInfo> stored_;
  std::vector<UnkeptBlock> unkept_;
  uint64_t tokens_read_ = 0;
};

}  // namespace longhold
