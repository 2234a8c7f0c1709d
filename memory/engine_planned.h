// A question on its way through the engine: what recall and ask share. Internal to the engine_*.cc
// files.
#pragma once

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "base/memory_budget.h"
#include "memory/attend/working_set.h"
#include "memory/core/memory.h"
#include "memory/engine.h"
#include "memory/index/lexical_index.h"
#include "memory/recall/abstention.h"
#include "memory/recall/excerpts.h"
#include "memory/recall/multi_hop.h"
#include "memory/recall/prompt.h"
#include "memory/recall/query_expansion.h"
#include "memory/recall/recall_planner.h"

namespace longhold {

// Some rows of one block, as a planned span wants them.
struct Engine::Piece {
  size_t span = 0;  // which of the plan's
  BlockKey key;
  uint32_t row_begin = 0, row_end = 0;
  uint32_t index = 0;            // where its keys go in the working set
  bool assistant_begin = false;  // the model's: DocumentRecord::assistant_begin
};

// What both recall and ask begin with: the probe pass, the plan and the second look.
struct Engine::Planned {
  struct LoadedBlock {
    Result<KvBlock> block = DataLoss("not read");
    uint64_t bytes = 0;
  };

  std::shared_ptr<OpenMemory> open;  // what holds the memory
  Memory* memory = nullptr;
  Prompt prompt;
  std::unique_ptr<WorkingSet> set;  // holds the head
  RecallPlan plan;
  std::vector<LexicalWord> words;      // the question's, in order
  std::vector<AskedWord> asked;        // the distinct ones
  std::vector<ExpansionWord> related;  // what may stand for them, by its weight in the profile
  // all spans that competed, in their final order; the plan keeps the best
  std::vector<PlannedSpan> weighed;
  uint32_t reencode_tokens = 0;  // AskOptions::reencode_tokens, or the profile's
  // the longest answer that there is room for, at most AskOptions::max_tokens
  uint32_t answer_tokens = 0;
  bool heads_asked = false;  // for coverage
  bool looked = false;       // there was a second look
  bool abstained = false;
  // of the plan's spans: read again as text, and not recalled
  std::vector<SpanSentence> excerpts, distractors;
  std::unique_ptr<MultiHop> follow;
  uint32_t hops = 0;     // of follow-ups: AskReply::hops
  double plan_ms = 0;    // probe, scan and fusion
  double rerank_ms = 0;  // second look, with the blocks that it reads
  std::map<BlockKey, LoadedBlock> blocks;
  // of `blocks`, and of those that are about to be read; of `set`
  MemoryReservation block_memory, set_memory;

  uint64_t BlockBytes() const { return memory->block_shape().Elements() * sizeof(uint16_t); }
  // The block that holds the piece's rows; null when it is damaged.
  const KvBlock* Rows(const Piece& piece) const {
    const LoadedBlock& loaded = blocks.at(piece.key);
    return loaded.block.ok() && loaded.block->tokens >= piece.row_end ? &*loaded.block : nullptr;
  }
};

using EngineClock = std::chrono::steady_clock;
inline double Milliseconds(EngineClock::time_point from, EngineClock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

// Tokens that the model reads with the positions it has learned.
inline uint32_t NativeLength(const ModelInfo& info) { return std::max(info.context_length, 2048u); }
// An answer has room for so many tokens, or for all that were asked for.
inline constexpr uint32_t kAnswerTokensMin = 256;
// Errors: invalid_argument (empty).
Status CheckQuestion(std::string_view question);
// How many tokens the model reads beside the question. Errors: invalid_argument where they are too
// few for an answer.
Result<uint64_t> RoomForContext(const ModelInfo& info, const Prompt& prompt, uint32_t max_tokens);

// Which of the question's tokens is the first that a look judges.
inline uint32_t ScoredBegin(const Prompt& prompt) {
  return static_cast<uint32_t>(prompt.JudgedBegin() - prompt.words_begin);
}

}  // namespace longhold
