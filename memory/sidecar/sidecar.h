// A memory for a model that another engine runs: the engine puts the keys and values that it
// computed, and gets those of the spans that a question is about. The C library (capi/) and the
// wire protocol are thin layers above this class.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/memory_budget.h"
#include "base/secret.h"
#include "base/status.h"
#include "memory/catalog/memory_catalog.h"
#include "memory/core/model_context.h"
#include "memory/core/notes.h"
#include "memory/ingest/ingestor.h"
#include "memory/recall/recaller.h"
#include "memory/sidecar/described_model.h"
#include "memory/sidecar/document_writer.h"
#include "memory/sidecar/kv_rows.h"

namespace longhold {

// Positions of rows and queries are at most so far from 0.
inline constexpr int64_t kPositionMax = int64_t{1} << 40;
// Tokens of a question that have queries, and places of one Fetch.
inline constexpr size_t kQueryTokensMax = 4096, kPlacesMax = 65536;

// Value type.
struct SidecarOptions {
  uint64_t memory_budget_bytes = 1ull << 30;
  std::string codec = std::string(kDefaultCodec);  // of new memories
  Secret encryption_key;                           // see EngineOptions
  // Recall heads of new memories. Without any, words and meaning find the spans.
  std::vector<RecallHead> heads;
};

// The queries of the recall heads for some tokens of a question. Borrows its arrays for the call.
struct GivenQueries {
  std::vector<const float*> heads;  // [heads] each [tokens, q_heads / kv_heads, head_dim]
  size_t tokens = 0;
  bool rotated = false;
  int64_t position = 0;  // of the first token, where they are rotated
  bool empty() const { return heads.empty(); }
};

struct PlanRequest {
  std::string_view question;  // may be empty where there are queries
  GivenQueries queries;
  uint32_t spans_max = 0;   // 0: the profile's number
  uint64_t tokens_max = 0;  // of all spans with their date lines; 0: no limit
};

// Tokens of a document, and the position to which the first one's key is rotated. Value type.
struct PlacedSpan {
  DocumentId document{};
  TokenSpan tokens;
  int64_t position = 0;
};

// Value type.
struct StoredPrefix {
  DocumentId document{};
  uint64_t tokens = 0;  // 0: no document begins with these tokens
};

// Owner: the composition root. Thread use: *synchronised*; calls run one at a time.
class Sidecar {
 public:
  // For a model that runs elsewhere. Borrows the stores and the embedder, which may be null.
  // Errors: invalid_argument (the description, the codec, a head that the model does not have).
  static Result<std::unique_ptr<Sidecar>> Open(StoreProvider* stores, ModelDescription model,
                                               TextEmbedder* embedder, SidecarOptions options);
  // For a model that runs here, so that Ingest can read texts, with its own profile's recall heads.
  static Result<std::unique_ptr<Sidecar>> Open(StoreProvider* stores,
                                               std::unique_ptr<LanguageModel> model,
                                               TextEmbedder* embedder, SidecarOptions options);

  const ModelInfo& model() const { return model_->info(); }
  size_t head_count() const { return context_->profile.heads.size(); }

  // Puts one document. Owner: the caller; must go before its sidecar. Without Finish, what was
  // committed stays. Thread use: *synchronised*.
  class Writer {
   public:
    ~Writer();
    DocumentId document() const;
    uint64_t position() const;
    // As DocumentWriter's.
    Status Append(const KvArrays<const void>& arrays, size_t count, int64_t rotary_position);
    Status Finish();

   private:
    friend class Sidecar;
    Writer(Sidecar* sidecar, std::unique_ptr<DocumentWriter> writer)
        : sidecar_(sidecar), writer_(std::move(writer)) {}
    Sidecar* const sidecar_;
    std::unique_ptr<DocumentWriter> writer_;  // null after Finish
    DocumentId document_{};
    uint64_t position_ = 0;
  };
  // The memory is made where there is none. Errors: DocumentWriter::Begin's, the catalog's.
  Result<std::unique_ptr<Writer>> Put(const std::string& memory, const GivenDocument& document);

  // Reads a text by the model. Errors: Ingestor::Ingest's; failed_precondition (the model runs
  // elsewhere).
  Result<IngestReport> Ingest(const std::string& memory, const IngestInput& input,
                              const std::atomic<bool>* stop);

  // The spans that a question is about and that a model has read, best first. Errors: not_found,
  // failed_precondition (another model's memory; other recall heads), invalid_argument, data_loss.
  Result<RecallReply> Plan(const std::string& memory, const PlanRequest& request);
  // Copies the keys and values of the spans, one after the other, into `arrays`, which has room for
  // all of them. Errors: data_loss (a damaged block; nothing is to be used), invalid_argument (a
  // span is not committed), resource_exhausted.
  Status Fetch(const std::string& memory, std::span<const PlacedSpan> spans,
               const KvArrays<void>& arrays);
  // Errors: not_found, invalid_argument, data_loss.
  Result<std::vector<TokenId>> Tokens(const std::string& memory, DocumentId document,
                                      TokenSpan span);
  // The document that shares the longest prefix with `tokens`. Errors: data_loss.
  Result<StoredPrefix> LongestPrefix(const std::string& memory, std::span<const TokenId> tokens);

  // As MemoryCatalog's; with an empty document, the memory.
  Status Forget(const std::string& memory, const std::string& document);
  Result<MemoryInfo> Show(const std::string& memory);
  Result<std::vector<MemoryInfo>> List(const std::string& tenant);
  // As MemoryCatalog's: waits for no other call, so that GivenDocument::disk_bytes_max may use it.
  uint64_t DiskBytes(const std::string& tenant, const std::string& except) const {
    return catalog_.DiskBytes(tenant, except);
  }
  // How many sinks and window tokens a new memory is read with.
  uint32_t sink_tokens() const { return context_->profile.sink_tokens; }
  uint32_t window_tokens() const { return context_->profile.window_tokens; }
  std::vector<std::string> TakeNotes();

 private:
  Sidecar(StoreProvider* stores, std::unique_ptr<LanguageModel> model,
          const SidecarOptions& options);
  static Result<std::unique_ptr<Sidecar>> OpenWith(StoreProvider* stores,
                                                   std::unique_ptr<LanguageModel> model,
                                                   TextEmbedder* embedder,
                                                   const RecallProfile& profile,
                                                   const SidecarOptions& options);
  Result<MemoryLease> LeaseToRead(const std::string& memory);
  Result<std::vector<ScanQuery>> ScanQueries(const GivenQueries& queries) const;

  mutable std::mutex mutex_;  // of all below
  std::unique_ptr<LanguageModel> model_;
  bool runs_here_ = false;  // the model can read
  MemoryBudget budget_;
  Notes notes_;
  std::unique_ptr<const ModelContext> context_;
  MemoryCatalog catalog_;
  Ingestor ingestor_;
  Recaller recaller_;
};

}  // namespace longhold
