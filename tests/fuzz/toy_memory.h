// The model and the memories of the export harnesses: the toy model with two layers of one KV head
// and passes of 64 tokens, so that a whole memory has a few kilobytes.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "memory/core/memory.h"
#include "memory/ingest/ingest.h"
#include "memory/model/recall_profile.h"
#include "store/mem_store.h"
#include "tests/support/stores.h"
#include "tests/support/toy_model.h"

namespace longhold {

inline ToyOptions FuzzToy() {
  return {.geometry = TinyGeometry(),
          .batch_tokens = kBlockTokens,
          .context_length = 2048,
          .answer = "It is seven."};
}

inline RecallProfile FuzzProfile() {
  RecallProfile p;
  p.name = "toy";
  p.heads = {{.layer = 2, .kv_head = 0}, {.layer = 0, .kv_head = 0}};
  p.window_tokens = 64;
  p.rerank_spans = 4;
  p.reencode_tokens = 32;
  return p;
}

inline constexpr char kFuzzDone[] = "done", kFuzzStopped[] = "stopped";

inline std::string FuzzText(size_t bytes) {
  std::string text = "The number of the elder is seven.\n";
  for (size_t line = 1; text.size() < bytes; ++line)
    text +=
        std::to_string(line * 7919) + " camels by the well of the elder, and \"a tent\"; one.\n";
  return text;
}

// Ingests one document, and stops another after its first pass.
inline std::unique_ptr<ColdStore> FuzzMemory(const std::string& codec, size_t text_bytes,
                                             bool lists) {
  auto store = NewMemStore();
  ToyModel model(FuzzToy());
  const LexicalVocabulary vocabulary(model.pieces());
  const auto memory =
      std::move(Memory::Create(Borrow(*store), "toy", model.info(), FuzzProfile(), codec)).value();
  if (lists) memory->UseLists({.memory_tokens_min = 1, .document_tokens_min = 1});
  LH_CHECK(IngestDocument(model, *memory, vocabulary,
                          {kFuzzDone, FuzzText(text_bytes), text_bytes / 2}, nullptr, nullptr)
               .ok());
  std::atomic<bool> stop{false};
  LH_CHECK(IngestDocument(model, *memory, vocabulary, {kFuzzStopped, "This one " + FuzzText(300)},
                          &stop,
                          [&](const IngestProgress& p) { stop = p.step == IngestStep::kReading; })
               .ok());
  return store;
}

}  // namespace longhold
