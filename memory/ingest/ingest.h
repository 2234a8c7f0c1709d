// Reads one document into a memory: tokens, forward passes over the hot window, blocks, index
// segments, commits.
#pragma once

#include <atomic>
#include <functional>

#include "memory/attend/hot_window.h"
#include "memory/core/memory.h"
#include "memory/engine.h"
#include "memory/index/lexical_index.h"

namespace longhold {

// Cuts `text` into chunks with their tokens; the first token of the first chunk is the model's BOS
// where it has one.
Result<std::vector<TextChunk>> TokenizeText(const LanguageModel& model, std::string_view text);

// RAM that IngestDocument takes while it reads a text of `text_bytes`, at most.
uint64_t IngestBytes(const KvGeometry& geometry, const HotWindowOptions& window,
                     uint64_t text_bytes);

// See Engine::Ingest. Goes on with an unfinished ingest of the same text.
Result<IngestReport> IngestDocument(LanguageModel& model, Memory& memory,
                                    const LexicalVocabulary& vocabulary, const IngestInput& input,
                                    const std::atomic<bool>* stop,
                                    const std::function<void(const IngestProgress&)>& on_progress);

}  // namespace longhold
