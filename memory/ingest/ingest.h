// Takes one document into a memory, in two steps. *Indexing* makes its text searchable, at the
// speed of the embedding model. *Reading* is the language model's: forward passes over the hot
// window, blocks, index segments of keys, commits.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "memory/attend/hot_window.h"
#include "memory/core/memory.h"
#include "memory/ingest/disk_allowance.h"
#include "memory/model/language_model.h"
#include "memory/text/vocabulary.h"

namespace longhold {

// One text to ingest. `name` identifies the document within its memory.
struct IngestInput {
  std::string name;
  std::string text;  // valid UTF-8, not empty
  // Bytes of the user's words; what follows is assistant text, up to the end. When recalled, it
  // gets a fifth of the attention that other words would (docs/decisions/0027). As many as the text
  // has where there is no assistant text.
  uint64_t user_bytes = UINT64_MAX;
  // Asked before the text is read and at each commit; the ingest stays below the last reply.
  DiskBytesMax disk_bytes_max;
};

enum class IngestStep : uint8_t { kIndexing, kReading };

// Value type.
struct IngestProgress {
  IngestStep step = IngestStep::kReading;
  std::string_view document;
  uint64_t tokens_done = 0;  // of this document
  uint64_t tokens_total = 0;
  double tokens_per_s = 0;   // over the last few seconds
  uint64_t pass_tokens = 0;  // since the last call
};
using OnIngestProgress = std::function<void(const IngestProgress&)>;

// Value type.
struct IngestReport {
  enum class Outcome : uint8_t { kIngested, kResumed, kUnchanged, kStopped };
  Outcome outcome = Outcome::kIngested;
  // Under which name the content is held: another one when it was there already.
  std::string document;
  uint32_t version = 1;
  uint64_t tokens = 0;          // of the document
  uint64_t tokens_indexed = 0;  // by this call
  double index_seconds = 0;
  uint64_t tokens_read = 0;  // by this call
  double seconds = 0;        // that reading them took
  // Tokens per second over the first and the last 65,536 tokens that this call read (all, when
  // fewer).
  double first_64k_tok_s = 0;
  double last_64k_tok_s = 0;
};

// Cuts `text` into chunks with their tokens; the first token of the first chunk is the model's BOS
// where it has one.
Result<std::vector<TextChunk>> TokenizeText(const LanguageModel& model, std::string_view text);

// RAM that IngestDocument takes while it reads a text of `text_bytes`, at most.
uint64_t IngestBytes(const KvGeometry& geometry, const HotWindowOptions& window,
                     uint64_t text_bytes);

// The first step: afterwards every token of the text is found, and can be cited and asked about.
// The outcome is kUnchanged where the model has read the text already, and kIngested or kResumed
// where it still has to. Goes on with an unfinished call for the same text.
Result<IngestReport> IndexDocument(LanguageModel& model, Memory& memory,
                                   const LexicalVocabulary& vocabulary, const IngestInput& input,
                                   const std::atomic<bool>* stop,
                                   const OnIngestProgress& on_progress);
// The second step. Goes on where reading was interrupted. Must hold: the document is searchable.
Result<IngestReport> ReadDocument(LanguageModel& model, Memory& memory,
                                  const LexicalVocabulary& vocabulary, DocumentId document,
                                  const DiskBytesMax& disk_bytes_max, const std::atomic<bool>* stop,
                                  const OnIngestProgress& on_progress);
// Both. See Ingestor::Ingest.
Result<IngestReport> IngestDocument(LanguageModel& model, Memory& memory,
                                    const LexicalVocabulary& vocabulary, const IngestInput& input,
                                    const std::atomic<bool>* stop,
                                    const OnIngestProgress& on_progress);

}  // namespace longhold
