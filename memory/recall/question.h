// A question as recall sees it: what was asked, what the memory knows of its words, and what all
// stages share. Made once by Understand and immutable from then on.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/memory_budget.h"
#include "base/status.h"
#include "memory/attend/working_set.h"
#include "memory/core/memory.h"
#include "memory/core/model_context.h"
#include "memory/core/notes.h"
#include "memory/recall/block_cache.h"
#include "memory/recall/prompt.h"
#include "memory/recall/question_text.h"
#include "memory/recall/recall_types.h"
#include "memory/recall/relevance_signal.h"
#include "memory/recall/word_match.h"

namespace longhold {

// What surrounds a question. Borrows its texts for the call.
struct QuestionOptions {
  PromptContext context;
  RecallOptions recall;
  // An answer is to rest on the plan. Without one, the stages Fit and LayOut have nothing to
  // reserve or to lay out.
  bool answers = false;
  uint32_t answer_tokens_max = 1;  // the longest answer
  // Where the memory holds nothing on the question, the model answers all the same, without it.
  bool answer_alone = false;
  std::optional<uint32_t> reencode_tokens;  // without a value, the profile's
  // Tokens that the engine which answers reads at most, if that is less than NativeLength.
  std::optional<uint32_t> context_tokens;
};

// Owner: one call of Recaller or Answerer. Thread use: *confined*; const, but for the shared
// caches behind its pointers.
struct Question {
  // --- the surroundings, borrowed ---
  const ModelContext& context;
  Memory& memory;
  MemoryBudget& budget;
  Notes& notes;
  const SignalList& signals;

  // --- what is wanted ---
  bool answers = false;       // an answer is to rest on the plan
  bool answer_alone = false;  // QuestionOptions
  bool may_abstain = true;
  bool explain = false;
  uint32_t spans_max = 0;
  // After multi-hop retrieval. A limit that the caller gave holds for all spans.
  uint32_t spans_max_with_hops = 0;
  uint32_t rerank_spans = 0;     // as many as the model's bounds allow; 0 for no reranking
  uint32_t reencode_tokens = 0;  // of excerpts, at most
  uint32_t answer_tokens = 0;    // the longest answer that there is room for

  // --- what was understood ---
  std::string question;  // as it was asked
  Prompt prompt;
  std::vector<LexicalWord> words;        // of the question, without references to the text itself
  std::vector<AskedWord> asked;          // the distinct ones, with their weights in the memory
  std::vector<ExpansionWord> expansion;  // words of the memory that mean nearly the same
  // What the lexical index says of both: one pass serves two signals and all word weights.
  LexicalResult lexical;
  std::vector<ScanQuery> head_queries;  // of the recall heads; empty when none are asked
  // [dim] the question's embedding. Empty without an embedder, or where the memory has no vectors.
  std::vector<float> vector;

  // --- shared by the stages ---
  std::unique_ptr<WorkingSet> set;  // holds the prompt's head where the model has read it
  mutable MemoryReservation set_memory;
  std::unique_ptr<QuestionText> text;
  std::unique_ptr<BlockCache> blocks;

  LanguageModel& model() const { return *context.model; }
  const ModelInfo& info() const { return context.info(); }
  const RecallProfile& profile() const { return context.profile; }
  ParallelFor Parallel() const { return WorkersOf(*context.model); }
  // The first of the question's tokens that a reranking judges.
  uint32_t ScoredBegin() const {
    return static_cast<uint32_t>(prompt.JudgedBegin() - prompt.words_begin);
  }
  // The question's words in a span, and what reranking says of them. Errors: data_loss.
  Result<std::vector<WordMatch>> Match(const PlannedSpan& span) const;
};

// Blocks that each signal may put forward. Ranks beyond this never made it into a plan of 32 spans
// in our measurements.
inline constexpr size_t kCandidatesPerSignal = 128;
// An answer has room for so many tokens, or for all that were asked for.
inline constexpr uint32_t kAnswerTokensMin = 256;

// Tokens that the model reads with the positions it has learned.
uint32_t NativeLength(const ModelInfo& info);
// What an embedder reads of a long text: its end, because there a question stands, or an answer.
std::string_view EmbeddedEnd(std::string_view text);
// Errors: invalid_argument (empty).
Status CheckQuestion(std::string_view question);
// How many of `length` tokens the model reads beside the question. Errors: invalid_argument where
// they are too few for an answer.
Result<uint64_t> RoomForContext(const ModelInfo& info, uint64_t length, const Prompt& prompt,
                                uint32_t max_tokens);

// Reads the question: words, expansion words, the queries of recall heads. The model reads the
// prompt's head only where something needs it. The memory's indexes must be loaded. Errors:
// invalid_argument (empty or too long a question), resource_exhausted, the tokenizer's.
Result<std::unique_ptr<const Question>> Understand(const ModelContext& context, Memory& memory,
                                                   MemoryBudget& budget, Notes& notes,
                                                   const SignalList& signals,
                                                   std::string_view question,
                                                   const QuestionOptions& options);

}  // namespace longhold
