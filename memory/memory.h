// One memory: a named set of documents over a cold store, with its indexes. Everything that is stored goes through here.
//
// Owner: Engine. Thread use: *confined*, except that LoadBlock may be called by several threads at once.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "memory/language_model.h"
#include "memory/lexical_index.h"
#include "memory/recall_profile.h"
#include "memory/records.h"
#include "memory/scan_index.h"
#include "store/block_codec.h"
#include "store/cold_store.h"

namespace longhold {

// Tokens between two commits, and of one index segment. A contract of the stored index.
inline constexpr uint32_t kCommitTokens = 4096;
// Text bytes of one stored chunk, at most; chunks end at a line's end where there is one.
inline constexpr size_t kChunkBytesMax = 32u << 10;

// Where a token span stands in its document's text.
struct TextPlace {
  ByteSpan bytes;
  uint64_t line_begin = 1;  // 1-based
  uint64_t line_end = 1;    // inclusive
  std::string text;
};

class Memory {
 public:
  // Opens what `store` holds. With `model`, its fingerprint must be the memory's: failed_precondition names both otherwise.
  // Errors: not_found (the store holds no memory), data_loss.
  static Result<std::unique_ptr<Memory>> Open(std::unique_ptr<ColdStore> store, const std::string& name, const ModelInfo* model);
  // Whether `store` holds a memory. A crash while one is made leaves a store without: it is as good as new.
  static bool Exists(ColdStore& store);
  // Makes an empty memory for `model` in an empty store. Errors: already_exists.
  static Result<std::unique_ptr<Memory>> Create(std::unique_ptr<ColdStore> store, const std::string& name,
                                                const ModelInfo& model, const RecallProfile& profile);

  const Manifest& manifest() const { return manifest_; }
  const std::vector<DocumentRecord>& documents() const { return documents_; }  // ascending by id
  const DocumentRecord* Find(std::string_view document_name) const;            // the newest of that name, or null
  const DocumentRecord& Get(DocumentId id) const;                              // must exist
  ColdStore& store() { return *store_; }
  const BlockCodec& codec() const { return ExactCodec(); }
  BlockShape block_shape() const;
  uint64_t committed_tokens() const;

  // --- reading ---
  // Loads the index segments of all committed tokens; later calls do nothing.
  Status LoadIndexes();
  const LexicalIndex& lexical() const { return lexical_; }
  const ScanIndex& scan() const { return scan_; }
  Result<KvBlock> LoadBlock(const BlockKey& key, uint64_t* bytes_read = nullptr);
  // Must hold: span.end <= the document's tokens.
  Result<TextPlace> Locate(DocumentId document, TokenSpan span);
  // Grows `span` to whole lines where each end moves by at most `tokens_max` tokens.
  Result<TokenSpan> GrowToLines(DocumentId document, TokenSpan span, uint32_t tokens_max);
  Result<std::vector<TokenId>> Tokens(DocumentId document, TokenSpan span);

  // --- writing ---
  // Adds a document with its text and tokens, nothing committed yet. Chunks must follow each other. Atomic.
  Result<DocumentId> AddDocument(DocumentRecord record, const std::vector<TextChunk>& chunks);
  // Stores a sealed block. It counts only once a Commit covers it.
  Status PutBlock(const BlockKey& key, const KvBlock& block);
  // Makes everything before `tokens` of a document count: index segments that hold (or end with) the newest tokens, cursor
  // and resume state, in one atomic write. `retire` names an older version that goes away with it, or null.
  Status Commit(DocumentId document, uint64_t tokens, std::shared_ptr<const ScanSegment> scan,
                std::shared_ptr<const LexicalSegment> lexical, const ResumeRecord* resume, const DocumentId* retire);
  Result<ResumeRecord> LoadResume(DocumentId document);
  // Drops a document and all that belongs to it. Its bytes leave the disk with the next Compact.
  Status Forget(DocumentId document);
  // Reads every record, segment and block. Data_loss names the first bad one.
  Status Verify();

 private:
  Memory(std::unique_ptr<ColdStore> store, std::string name) : store_(std::move(store)), name_(std::move(name)) {}
  Status LoadRecords();
  void AppendForget(DocumentId document, WriteBatch* batch) const;
  void DropFromRam(DocumentId document);
  // The chunk that holds a token; cached.
  Result<std::shared_ptr<const TextChunk>> ChunkOf(DocumentId document, uint64_t token);
  Result<std::shared_ptr<const TextChunk>> LoadChunk(DocumentId document, uint32_t chunk);

  std::unique_ptr<ColdStore> store_;
  std::string name_;
  Manifest manifest_;
  std::vector<DocumentRecord> documents_;
  bool indexes_loaded_ = false;
  LexicalIndex lexical_;
  ScanIndex scan_;
  // The chunks read last, newest at the end; at most kChunkCache of them.
  std::vector<std::pair<std::pair<DocumentId, uint32_t>, std::shared_ptr<const TextChunk>>> chunks_;
};

}  // namespace longhold
