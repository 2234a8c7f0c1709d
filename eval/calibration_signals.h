// What every attention head of a model, and the words, say about where a question's answer stands.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "base/status.h"
#include "eval/calibration_cases.h"
#include "memory/core/memory.h"
#include "memory/model/language_model.h"
#include "memory/model/recall_profile.h"

namespace longhold {

// One case's signals over the blocks of the text. Value type.
struct CaseSignals {
  size_t item = 0;                 // which case of the corpus
  std::vector<uint32_t> evidence;  // blocks that hold it
  // [heads] of [blocks]: share of the head's attention mass, as the planner takes it
  std::vector<std::vector<float>> head_share;
  // [blocks]: share of the question's words that the block explains
  std::vector<float> lexical;
  // [heads] of [blocks]: mean query by mean key, what a head costs least to ask
  std::vector<std::vector<float>> block_mean;
};

struct SignalTable {
  std::vector<RecallHead> heads;  // all of the model's, by layer
  uint32_t blocks = 0;
  std::vector<CaseSignals> cases;
};

// Probes the model with every question of `corpus` whose evidence `memory` holds. The memory holds
// the corpus's text as its only document, or the beginning of it; its indexes are loaded.
// `on_progress` (may be null) hears cases done and in all. Memory: bytes of the text's keys as
// int8, all heads, and 8 bytes * heads * blocks of each case. Errors: cancelled when `stop` is set;
// data_loss from reading the memory.
Result<SignalTable> MeasureSignals(
    LanguageModel& model, Memory& memory, const LexicalVocabulary& vocabulary,
    const CalibrationCorpus& corpus, const std::atomic<bool>* stop,
    const std::function<void(size_t done, size_t total)>& on_progress);

// The first token of `memory`'s document that ends after byte `byte` of the text.
Result<uint64_t> TokenAtByte(Memory& memory, DocumentId document, uint64_t byte);

}  // namespace longhold
