// Retrieval signals of a model: for each question, how each attention head and the words score
// every block of the text.
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

// The signals of one case over the blocks of the text. Value type.
struct CaseSignals {
  size_t item = 0;                 // index into CalibrationCorpus::cases
  std::vector<uint32_t> evidence;  // blocks that hold the evidence
  // [heads] of [blocks]: the block's share of the head's attention mass, as the planner computes it
  std::vector<std::vector<float>> head_share;
  // [blocks]: the block's lexical score as a share of the score of all words of the question
  std::vector<float> lexical;
  // [heads] of [blocks]: dot product of the mean query and the block's mean key. This is the
  // cheapest signal of a head.
  std::vector<std::vector<float>> block_mean;
};

// Value type.
struct SignalTable {
  std::vector<RecallHead> heads;  // all KV heads of the model, by layer
  uint32_t blocks = 0;
  std::vector<CaseSignals> cases;
};

// Probes the model with every question of `corpus` whose evidence `memory` holds. Must hold: the
// memory's only document is the corpus text or a prefix of it, and its indexes are loaded.
// `on_progress` (may be null) receives the number of finished cases and their total. It uses the
// RAM of the text's keys as int8, for all heads, and 8 bytes * heads * blocks per case. Errors:
// cancelled (`stop` is set), data_loss (from reading the memory).
Result<SignalTable> MeasureSignals(
    LanguageModel& model, Memory& memory, const LexicalVocabulary& vocabulary,
    const CalibrationCorpus& corpus, const std::atomic<bool>* stop,
    const std::function<void(size_t done, size_t total)>& on_progress);

// The first token of the document that ends after byte `byte` of its text. Errors: those of
// Memory::Locate.
Result<uint64_t> TokenAtByte(Memory& memory, DocumentId document, uint64_t byte);

}  // namespace longhold
