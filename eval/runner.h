// Asks every question of an evaluation in every mode.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "eval/report.h"
#include "eval/retriever.h"
#include "memory/engine.h"
#include "model/llama_host.h"

namespace longhold {

struct EvalProgress {
  std::string label;             // "niah_single_2 4k longhold"
  uint64_t done = 0, total = 0;  // questions times modes, over the whole run
  double seconds_left = 0;       // a guess from what was measured so far; 0 until something was
  IngestProgress reading;        // tokens_total > 0 while a text is read
};

// RunNativeEach of a model, for several prompts that begin alike.
using NativeRunner = std::function<Result<std::vector<NativeRun>>(
    std::span<const TokenId> prefix, const std::vector<std::vector<TokenId>>& tails,
    uint32_t max_tokens)>;
// That of `model`, as samplers choose by default. Both are borrowed; `stop` as RunNativeEach's.
NativeRunner NativeRunnerOf(LanguageModel& model, const std::atomic<bool>* stop);
// A retriever over a text that outlives it.
using RetrieverMaker = std::function<Result<std::unique_ptr<Retriever>>(std::string_view text)>;

// What a run works with. Borrowed for the call.
struct EvalParts {
  LanguageModel& model;
  // uses that model; the texts' memories live in its home, named TASK-LENGTH-TEXT
  Engine& engine;
  NativeRunner native;
  RetrieverMaker embed;                                  // empty: rag-embed is skipped, saying so
  const Haystack* haystack = nullptr;                    // where a task needs one
  const std::vector<FileQuestion>* questions = nullptr;  // for the task `questions`
  bool keep_memories = false;  // else a text's memory goes when its last question is answered
  const std::atomic<bool>* stop = nullptr;
  std::function<void(const EvalProgress&)> on_progress;
  std::function<Status(const EvalRow&)> on_row;  // before the next question is asked
};

// Runs what `settings` say and `done` does not hold yet. Returns notes for the report: what could
// not be asked, and why. A memory that an interrupted run left in the engine's home is read on, or
// taken as it is. Errors: cancelled after `stop` (all rows were given to on_row), invalid_argument
// (no task could make its text), and what engine, model and retrievers report.
Result<std::vector<std::string>> RunEval(const EvalSettings& settings,
                                         const std::vector<EvalRow>& done, const EvalParts& parts);

// Whether a task of these settings needs a haystack.
bool NeedsHaystack(const EvalSettings& settings);

}  // namespace longhold
