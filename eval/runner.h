// Runs an evaluation: asks every question in every mode.
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
  double seconds_left = 0;       // estimate from the speed so far; 0 before the first measurement
  IngestProgress reading;        // tokens_total > 0 while a text is read
};

// Runs prompts with a shared prefix through libllama's own attention, as RunNativeEach does.
using NativeRunner = std::function<Result<std::vector<NativeRun>>(
    std::span<const TokenId> prefix, const std::vector<std::vector<TokenId>>& tails,
    uint32_t max_tokens)>;
// RunNativeEach for `model` with the default sampler. Must hold: `model` and `stop` outlive the
// result.
NativeRunner NativeRunnerOf(LanguageModel& model, const std::atomic<bool>* stop);
// Makes a retriever over a text. Must hold: the text outlives the retriever.
using RetrieverMaker = std::function<Result<std::unique_ptr<Retriever>>(std::string_view text)>;

// The parts that a run works with. Borrowed for the call.
struct EvalParts {
  LanguageModel& model;
  // Uses `model`. The memories of the texts are in its home, named TASK-LENGTH-TEXT.
  Engine& engine;
  NativeRunner native;
  RetrieverMaker embed;                // empty: questions of rag-embed and rag-hybrid are skipped
  const Haystack* haystack = nullptr;  // required if a task needs one
  const std::vector<FileQuestion>* questions = nullptr;  // for the task `questions`
  bool keep_memories = false;  // false: a memory is deleted after the last question of its text
  const std::atomic<bool>* stop = nullptr;
  std::function<void(const EvalProgress&)> on_progress;
  std::function<Status(const EvalRow&)> on_row;  // called before the next question is asked
};

// Asks all questions of `settings` that have no row in `done`. Returns notes for the report: the
// questions that could not be asked, and why. If an interrupted run left a memory in the engine's
// home, its ingest is resumed, or a complete one is used directly. Errors: cancelled after `stop`
// (on_row has received all finished rows), invalid_argument (no task could generate its text), and
// those of engine, model and retrievers.
Result<std::vector<std::string>> RunEval(const EvalSettings& settings,
                                         const std::vector<EvalRow>& done, const EvalParts& parts);

// Whether a task of these settings needs a haystack.
bool NeedsHaystack(const EvalSettings& settings);

}  // namespace longhold
