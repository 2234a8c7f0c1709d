// The engine: the memories of one store provider, and what can be done with them. The library's
// front door, and only that: its parts do the work.
//
//   MemoryCatalog   which memories there are, which are open, who uses them
//   Ingestor        reads texts into memories
//   Recaller        finds the places that a question is about
//   Answerer        answers from them
//
// Owner: the composition root. Thread use: *confined* (one call at a time); `stop` flags may be set
// from anywhere. With a SharedModel, calls that only read (Recall, Ask, Exists, List, Show) and
// Ingest may be made by several threads, each within a turn of its own: they then overlap where the
// model is asked. An answer sees a memory as it was when the answer began.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/memory_budget.h"
#include "base/secret.h"
#include "base/status.h"
#include "memory/answer/answerer.h"
#include "memory/answer/ask_types.h"
#include "memory/catalog/memory_catalog.h"
#include "memory/catalog/memory_info.h"
#include "memory/core/model_context.h"
#include "memory/core/notes.h"
#include "memory/ingest/ingestor.h"
#include "memory/recall/recall_types.h"
#include "memory/recall/recaller.h"
#include "store/block_codec.h"
#include "store/store_provider.h"

namespace longhold {

class RecalledPrompt;  // memory/answer/recalled_prompt.h
struct RecalledPromptOptions;

// Value type.
struct EngineOptions {
  // With the model's weights and 64 MiB for the program itself, all the RAM that the process takes.
  // Reranking goes through its spans in groups that fit. Where there is no room for all that was
  // recalled, the least relevant spans are left out, with a note. Where an index or a question does
  // not fit, the call says so (resource_exhausted).
  uint64_t memory_budget_bytes = 1ull << 30;
  // kSealKeyBytes that new memories are encrypted with, and those read that are
  // (store/sealed_store.h); empty: none.
  Secret encryption_key;
  // Of the blocks of new memories, one of CodecNames'.
  std::string codec = std::string(kDefaultCodec);
  SignalList signals = StandardSignals();
};

class Engine {
 public:
  // Borrows `stores`, which must outlive the engine.
  Engine(StoreProvider* stores, EngineOptions options);
  ~Engine();

  // Gives the engine its model. Until then only the calls work that are marked (no model). `model`
  // must outlive the engine. With a null `profile`, the shipped profile that matches the model is
  // taken, or the generic rule. `embedder` embeds passages and questions; it must outlive the
  // engine too, and nobody else may use it. Without one, places are found by the other signals.
  // Errors: invalid_argument, resource_exhausted (the model's own buffers do not fit the memory
  // budget).
  Status UseModel(LanguageModel* model, const RecallProfile* profile,
                  TextEmbedder* embedder = nullptr);
  const RecallProfile& profile() const;  // must hold: it has its model
  const ModelInfo& model_info() const;   // must hold: it has its model
  const MemoryBudget& budget() const { return budget_; }
  MemoryBudget& budget() { return budget_; }  // for what else its process takes

  // --- writing: Ingestor ---
  // The codec of memories that are made from now on; others keep theirs, which Ingest then notes.
  // (no model) Errors: invalid_argument.
  Status UseCodec(std::string_view name);
  Result<IngestReport> Ingest(const std::string& memory, const IngestInput& input,
                              const std::atomic<bool>* stop, const OnIngestProgress& on_progress) {
    return ingestor_.Ingest(memory, input, stop, on_progress);
  }
  Result<IngestReport> Index(const std::string& memory, const IngestInput& input,
                             const std::atomic<bool>* stop, const OnIngestProgress& on_progress) {
    return ingestor_.Index(memory, input, stop, on_progress);
  }
  Result<IngestReport> ReadNext(const std::string& memory, const DiskBytesMax& disk_bytes_max,
                                const std::atomic<bool>* stop,
                                const OnIngestProgress& on_progress) {
    return ingestor_.ReadNext(memory, disk_bytes_max, stop, on_progress);
  }
  Result<ReindexReport> Reindex(const std::string& memory, const std::atomic<bool>* stop,
                                const OnIngestProgress& on_progress = nullptr) {
    return ingestor_.Reindex(memory, stop, on_progress);
  }

  // --- asking: Recaller and Answerer ---
  Result<RecallReply> Recall(const std::string& memory, std::string_view query,
                             const RecallOptions& options) {
    return recaller_.Recall(memory, query, options);
  }
  Result<AskReply> Ask(const std::string& memory, std::string_view question,
                       const AskOptions& options) {
    return answerer_.Ask(memory, question, options);
  }
  // What another inference engine needs to answer the question. Must hold: it has its model.
  Result<std::unique_ptr<RecalledPrompt>> RecallPrompt(const std::string& memory,
                                                       std::string_view question,
                                                       const RecalledPromptOptions& options);
  // Safe to call concurrently. Must hold: it has its model.
  bool HasRoomForAnother() const { return answerer_.HasRoomForAnother(); }

  // What the calls since the last TakeNotes have to report beside their results, a line each. The
  // same thing is reported once. (no model)
  std::vector<std::string> TakeNotes() { return notes_.Take(); }

  // --- managing (no model, but for Create): MemoryCatalog ---
  MemoryCatalog& catalog() { return catalog_; }
  Status Create(const std::string& memory, const std::string& codec) {
    return catalog_.Create(memory, codec);
  }
  void CloseMemory() { catalog_.Close(); }
  uint64_t opens() const { return catalog_.opens(); }
  Status Exists(const std::string& memory) { return catalog_.Exists(memory); }
  Result<std::vector<MemoryInfo>> List(const std::string& tenant = "") {
    return catalog_.List(tenant);
  }
  Result<MemoryInfo> Show(const std::string& memory) { return catalog_.Show(memory); }
  uint64_t DiskBytes(const std::string& tenant, const std::string& except = "") const {
    return catalog_.DiskBytes(tenant, except);
  }
  Result<TierReport> Tiers(const std::string& memory) { return catalog_.Tiers(memory); }
  Status Forget(const std::string& memory, const std::string& document, bool compact) {
    return catalog_.Forget(memory, document, compact);
  }
  Status Compact(const std::string& memory) { return catalog_.Compact(memory); }
  // MemoryCatalog::Recode, with its progress in tokens.
  Result<RecodeReport> Recode(const std::string& memory, std::string_view codec,
                              const std::atomic<bool>* stop,
                              const OnIngestProgress& on_progress = nullptr);
  Result<TransferReport> Export(const std::string& memory, const ByteSink& sink) {
    return catalog_.Export(memory, sink);
  }
  Result<std::unique_ptr<MemoryExport>> OpenExport(const std::string& memory) {
    return catalog_.OpenExport(memory);
  }
  Result<TransferReport> Import(const ByteSource& source, const std::string& name = "",
                                const ImportLimits& limits = {}) {
    return catalog_.Import(source, name, limits);
  }
  Status Verify(const std::string& memory) { return catalog_.Verify(memory); }

 private:
  MemoryBudget budget_;  // before what reserves from it
  Notes notes_;
  MemoryReservation model_memory_;
  std::unique_ptr<const ModelContext> context_;
  MemoryCatalog catalog_;
  Ingestor ingestor_;
  Recaller recaller_;
  Answerer answerer_;
};

}  // namespace longhold
