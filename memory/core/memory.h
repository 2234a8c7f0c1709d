// One memory: a named set of documents in a cold store, with its indexes. Every stored value of a
// memory is read and written through this class.
//
// Owner: Engine. Thread use: *confined*, except that several threads may call LoadBlock at the same
// time.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/memory_budget.h"
#include "base/status.h"
#include "memory/index/ivf_index.h"
#include "memory/index/lexical_index.h"
#include "memory/index/passage_index.h"
#include "memory/index/scan_index.h"
#include "memory/index/summaries.h"
#include "memory/model/language_model.h"
#include "memory/model/recall_profile.h"
#include "memory/model/text_embedder.h"
#include "memory/record/records.h"
#include "store/block_codec.h"
#include "store/cold_store.h"
#include "store/transform_codec.h"

namespace longhold {

// A word that crosses the edge of an index segment is whole in the later segment if it has at most
// this many tokens.
inline constexpr uint64_t kPrecedingTokens = 16;

// The place of a token span in its document's text.
struct TextPlace {
  ByteSpan bytes;
  uint64_t line_begin = 1;  // 1-based
  uint64_t line_end = 1;    // inclusive
  std::string text;
};

// Tokens of text around a token span.
struct TextReach {
  uint32_t before = 0, after = 0;
};

// The text around a token span. Value type.
struct TextWindow {
  uint64_t begin = 0;  // its first token
  TokenText text;
  bool from_start = false, to_end = false;  // whether it has the document's first and last token
};

// What happened to a memory's index segments when they were loaded or rebuilt. Value type.
struct IndexReport {
  uint64_t segments = 0;  // segments that were checked
  // Segments that were damaged, missing or of another version, and were rebuilt from blocks or
  // tokens.
  uint64_t segments_rebuilt = 0;
  // Rebuilt segments that were also written back, so that the next open finds them intact.
  uint64_t segments_stored = 0;
  // Segments that could not be rebuilt: this signal does not find their tokens.
  uint64_t segments_lost = 0;
  // Blocks that could not be read while scan segments were built. Their tokens are found only by
  // their words.
  uint64_t blocks_lost = 0;
  // Tokens without passage vectors of the embedder in use. They are found only by other signals
  // until Reindex makes their vectors. 0 without an embedder.
  uint64_t tokens_without_vectors = 0;
  // Documents whose inverted lists are damaged or missing although the document should have some.
  // They are scanned.
  uint64_t lists_lost = 0;
};

// The index segments of text that make it searchable. Shared. Value type.
struct TextSegmentPair {
  std::shared_ptr<const LexicalSegment> lexical;
  std::shared_ptr<const PassageSegment> passages = nullptr;  // null without an embedder
};

// The index segments that one commit seals. Borrowed for the call, or shared. Value type.
struct SealedSegments {
  TextSegmentPair text;  // without a lexical segment where the text is searchable already
  std::shared_ptr<const ScanSegment> scan = nullptr;  // null without recall heads
  // Without summaries, Memory::Summaries makes them when they are needed.
  const SummarySegment* summaries = nullptr;
};

// What is known of a block that was read out of order (memory/recall/unread_blocks.h). Value type.
struct ProvisionalInfo {
  uint32_t run_up = 0;  // tokens right before it that were read with it
  uint32_t tokens = 0;  // that it holds; may be fewer than 64
};

class Memory {
 public:
  // Opens the memory in `store`. With `model`, the memory must have the same fingerprint, or the
  // error is failed_precondition and names both models. It must then also have the model's layers,
  // heads and head size, because all stored values are read by them; otherwise data_loss. Other
  // errors: not_found (the store holds no memory), data_loss.
  static Result<std::unique_ptr<Memory>> Open(std::unique_ptr<ColdStore> store,
                                              const std::string& name, const ModelInfo* model);
  // Whether `store` holds a memory. After a crash during Create it holds none and can be used as an
  // empty store.
  static bool Exists(ColdStore& store);
  // The name under which the memory in `store` was created or imported. Errors: not_found (the
  // store holds no memory), data_loss.
  static Result<std::string> NameInside(ColdStore& store);
  // Creates an empty memory for `model` in an empty store. `codec` encodes its blocks and is one of
  // CodecNames. Errors: already_exists.
  static Result<std::unique_ptr<Memory>> Create(std::unique_ptr<ColdStore> store,
                                                const std::string& name, const ModelInfo& model,
                                                const RecallProfile& profile,
                                                std::string_view codec = ExactCodec().name());

  // Checks that the memory was written by `model` and has its layers, heads and head size. Errors:
  // as Open's.
  Status CheckModel(const ModelInfo& model) const;

  const std::string& name() const { return name_; }
  const Manifest& manifest() const { return manifest_; }
  const std::vector<DocumentRecord>& documents() const { return documents_; }  // ascending by id
  // The newest document of that name, or null.
  const DocumentRecord* Find(std::string_view document_name) const;
  const DocumentRecord& Get(DocumentId id) const;  // must exist
  ColdStore& store() { return *store_; }
  // The codec of all blocks written from now on, except the sinks'. Sinks stay exact because most
  // of every answer's attention goes to them. In a memory with codec `archive`, this is the default
  // codec until there is enough text to learn a basis from.
  const BlockCodec& codec() const;
  BlockShape block_shape() const;
  uint64_t committed_tokens() const;   // over all documents: read by the model
  uint64_t searchable_tokens() const;  // over all documents: found; at least committed_tokens()
  // Bytes on the disk: those of the files when the memory was opened plus those written since.
  // Neither a log that is not yet written into tables nor resume states are counted twice.
  uint64_t disk_bytes() const { return opened_bytes_ + written_bytes_; }

  // --- reading ---
  // Sets the vocabulary for rebuilding lexical segments; borrowed for the memory's lifetime.
  // Without one, a damaged lexical segment is data_loss.
  void UseVocabulary(const LexicalVocabulary* vocabulary) { vocabulary_ = vocabulary; }
  // Sets the model that embeds passages; borrowed for the memory's lifetime, null for none. Call
  // before the first LoadIndexes. Without one there is no passage index, and stored passage
  // segments are left alone.
  void UseEmbedder(TextEmbedder* embedder) { embedder_ = embedder; }
  TextEmbedder* embedder() const { return embedder_; }
  // From now on, RAM for the indexes, the archive codec's basis and recoding is first reserved in
  // `budget`; borrowed for the memory's lifetime. Without a budget nothing is reserved. Errors:
  // resource_exhausted (no room for the basis).
  Status UseBudget(MemoryBudget* budget);
  // Loads the index segments of all committed tokens. Later calls do nothing. Passage segments that
  // are missing or of another embedder or version are counted and left out, because embedding takes
  // long. Any other segment that cannot be used is rebuilt from what it is derived from, and
  // written back if the store is writable; see index_report(). Missing or damaged inverted lists
  // are no error: their document is scanned. Errors: resource_exhausted when the budget has no room
  // for the segments.
  Status LoadIndexes(const ParallelFor& parallel = SerialFor);
  const IndexReport& index_report() const { return index_report_; }
  // Whether the scan index has the heads that `profile` names. If not, Reindex can rebuild it for
  // them.
  bool HasHeadsOf(const RecallProfile& profile) const;
  const LexicalIndex& lexical() const { return lexical_; }
  const PassageIndex& passages() const { return passages_; }
  // The index that planning uses: inverted lists of the documents that have them, and the exact
  // scan of all others.
  const RelevanceIndex& relevance() const { return relevance_; }
  // The exact scan of all documents.
  const ScanIndex& scan() const { return relevance_.exact(); }
  // A document's scan segments, ascending. Empty when it has none.
  std::span<const std::shared_ptr<const ScanSegment>> ScanSegments(DocumentId document) const {
    return relevance_.Segments(document);
  }
  bool HasLists(DocumentId document) const { return relevance_.HasLists(document); }
  // The summaries of all committed blocks of a document, one element per segment. Summaries that
  // are missing, damaged or of another version are made from the blocks, and written back if the
  // store is writable. Blocks that cannot be read get a mean of 0 and are counted in `blocks_lost`.
  // Must hold: `geometry` is that of the memory's model.
  Result<std::vector<SummarySegment>> Summaries(DocumentId document, const KvGeometry& geometry,
                                                const ParallelFor& parallel, uint64_t* blocks_lost);
  // The same for one segment of kCommitTokens tokens.
  Result<SummarySegment> SummariesOf(DocumentId document, uint32_t segment,
                                     const KvGeometry& geometry, const ParallelFor& parallel,
                                     uint64_t* blocks_lost);
  // The block holds at least its committed tokens, and only finite elements. Errors: data_loss.
  // Must hold: the document exists.
  Result<KvBlock> LoadBlock(const BlockKey& key, uint64_t* bytes_read = nullptr);
  // A block that is not committed yet, as an earlier question had it read, and what is known of it
  // without decoding it. Errors: not_found, also where it is damaged: whoever needs it has it read
  // again.
  Result<KvBlock> LoadProvisional(const BlockKey& key);
  Result<ProvisionalInfo> FindProvisional(const BlockKey& key);
  // Must hold: span.end <= the document's tokens.
  Result<TextPlace> Locate(DocumentId document, TokenSpan span);
  // For each of `bytes`, which ascend: how many characters of the document's text begin before it.
  // Reads the text up to the last one. Errors: data_loss.
  Result<std::vector<uint64_t>> CharactersBefore(DocumentId document,
                                                 std::span<const uint64_t> bytes);
  // The line that has token `at`, from its begin, at most `bytes_max` bytes and without its
  // newline. A line that begins in an earlier text chunk is cut there. Errors: data_loss.
  Result<std::string> LineAt(DocumentId document, uint64_t at, size_t bytes_max);
  // Extends `span` to whole lines where an end moves by at most `tokens_max` tokens. An end that
  // cannot be extended, also because of damaged text, does not move.
  Result<TokenSpan> GrowToLines(DocumentId document, TokenSpan span, uint32_t tokens_max);
  // The text of the span and of up to `reach` tokens before and after it. Damaged text limits it.
  // Must hold: the span is not empty, and in the document. Errors: data_loss (in the span itself).
  Result<TextWindow> TextAround(DocumentId document, TokenSpan span, TextReach reach);
  // The line that contains token `at`, or its sentence if that is shorter. A sentence ends at . !
  // or ? (and closing quotes or brackets) before white space, and at the equivalent punctuation of
  // other scripts. A line that was wrapped to a width goes on in the next one. If an end is more
  // than `tokens_max` tokens away, as in JSON or code without line breaks, the result is smaller:
  // the object (up to "}," or "],"), else the item (up to a comma after a quote, or a semicolon
  // without a space), else the whole words within `tokens_max`. Damaged text limits the range in
  // the same way.
  Result<TokenSpan> SentenceAt(DocumentId document, uint64_t at, uint32_t tokens_max);
  Result<std::vector<TokenId>> Tokens(DocumentId document, TokenSpan span);
  // The text of these tokens. Must hold: span.end <= the document's tokens. Errors: data_loss.
  Result<TokenText> TextOf(DocumentId document, TokenSpan span);

  // --- writing ---
  // Adds a document with its text and tokens. Nothing is committed yet. Must hold: each chunk
  // begins where the one before it ends. Atomic.
  Result<DocumentId> AddDocument(DocumentRecord record, const std::vector<TextChunk>& chunks);
  // Makes everything before token `end` of the document searchable, with the segment of text that
  // contains or ends with the newest token. `retire` as Commit has it, for the last segment.
  // Atomic.
  Status MakeSearchable(DocumentId document, uint64_t end, const TextSegmentPair& text,
                        const DocumentId* retire);
  // Keeps a block that was read out of order until Commit covers it. Does nothing for a committed
  // one, and for one of a document that there is not any more.
  Status PutProvisional(const BlockKey& key, const KvBlock& block, uint32_t run_up);
  // Stores sealed blocks. The first is block `first` of the document. They do not count before a
  // Commit covers them.
  Status PutBlocks(DocumentId document, uint32_t first, std::span<const KvBlock> blocks,
                   const ParallelFor& parallel = SerialFor);
  // Commits everything before token `tokens` of the document: the index segments that contain or
  // end with the newest tokens, the position and the resume state, in one atomic write. `retire` is
  // the document that had this one's name until now, or null. It loses the name in the same write,
  // and is removed if it has no other name.
  Status Commit(DocumentId document, uint64_t tokens, const SealedSegments& segments,
                const ResumeRecord* resume, const DocumentId* retire);
  // Errors: not_found (imports leave resume states out), data_loss.
  Result<ResumeRecord> LoadResume(DocumentId document);
  // Undoes all commits of an unfinished document, as if it had been made searchable only. Atomic.
  Status Restart(DocumentId document);
  // Learns and stores the basis of the codec `archive`. Does nothing if the memory has another
  // codec, a basis, or fewer than 4,096 committed tokens. Without room in the budget it does
  // nothing either; a later call may succeed. Stored blocks do not change.
  Status LearnBasis();
  // Sets the memory's codec to `codec`, one of CodecNames, and recodes the blocks of its complete
  // documents, except the sinks'. A kill or stop at any moment leaves a consistent memory, and the
  // next call continues. A block is kept as it is unless recoding saves at least a twentieth of its
  // bytes: what an earlier lossy codec removed does not come back. Unreadable blocks are kept and
  // counted. Errors: cancelled; failed_precondition (too little text to learn a basis);
  // resource_exhausted.
  Result<RecodeReport> Recode(
      std::string_view codec, const ParallelFor& parallel, const std::atomic<bool>* stop,
      const std::function<void(uint64_t done, uint64_t total)>& on_progress);
  // Adds `name` to the searchable document `document` and removes it from all others, in one atomic
  // write.
  Status AddName(DocumentId document, const std::string& name);
  // Builds inverted lists for the complete documents that should have some and have none. They are
  // stored if possible. If the store is read-only or the disk is full, they are used while this
  // memory is open. A document whose lists do not fit the budget has none. In a memory below the
  // limit of UseLists this does nothing and loads nothing. Errors: those of LoadIndexes and
  // BuildIvfSegment.
  Status BuildLists(const ParallelFor& parallel);
  // Sets which documents get and use inverted lists, and how much of them a query reads. Call
  // before the first LoadIndexes.
  void UseLists(const IvfLimits& limits, const IvfSearch& search = {}) {
    ivf_limits_ = limits;
    ivf_search_ = search;
  }
  // Removes a name from a document. A document without names is deleted with everything that
  // belongs to it; the next Compact frees its disk space. Atomic.
  Status Forget(DocumentId document, const std::string& name);
  // Rebuilds the index for the heads of `profile` from stored data; the model does not read the
  // text again. With an embedder, makes the passage segments that are missing or of another one;
  // they count as soon as they are written. If the index already has these heads, only segments
  // that cannot be used are rebuilt. Otherwise new scan segments are stored in addition to the old
  // ones. The last write makes them valid and deletes the old ones and their inverted lists; a kill
  // before it changes nothing of them. BuildLists builds new inverted lists. `on_progress` (may be
  // null) gets the tokens done so far and in total. Errors: cancelled when `stop` is set; the
  // embedder's; never data_loss: what cannot be rebuilt is counted in the report.
  Result<IndexReport> Reindex(
      const RecallProfile& profile, const ParallelFor& parallel, const std::atomic<bool>* stop,
      const std::function<void(uint64_t done, uint64_t total)>& on_progress);
  // RAM that the indexes use now.
  uint64_t index_bytes() const { return index_memory_.bytes(); }
  // Writes another name into the manifest. Engine moves the store itself.
  Status Rename(const std::string& name);
  // Reads every record, segment and block. Errors: data_loss, which names the first damaged one.
  Status Verify();

 private:
  Memory(std::unique_ptr<ColdStore> store, std::string name)
      : store_(std::move(store)), name_(std::move(name)) {}
  Status LoadRecords();
  // Every change of the store goes through this function, which counts the bytes.
  Status Write(WriteBatch batch, Durability durability);
  static void AppendText(DocumentId document, uint32_t segment, const TextSegmentPair& text,
                         WriteBatch* batch);
  // Adds to `batch` the deletion of the document's provisional blocks [begin, end).
  Status DropProvisional(DocumentId document, uint32_t begin, uint32_t end, WriteBatch* batch);
  Result<ProvisionalRecord> ReadProvisional(const BlockKey& key) const;
  // After a write: the record, and what it sealed. `grows`: a segment that the indexes have became
  // longer.
  void Replace(const DocumentRecord& record);
  Status AddToIndexes(const SealedSegments& segments, bool grows);
  // Stores `next` as the manifest, and then uses it.
  Status PutManifest(Manifest next);

  // --- the codec (memory_codec.cc) ---
  // Reads the basis, if there is one. Damage to it is reported by the blocks that need it and by
  // Verify.
  void LoadBasis();
  void UseBasis(TransformBasis basis);
  // Reserves `bytes` in the budget for the lifetime of the result. Without a budget the result is
  // empty.
  Result<MemoryReservation> ReserveFor(uint64_t bytes, const std::string& what) const;
  Result<TransformBasis> ReadBasis() const;  // as stored; not_found, data_loss
  // AppendForget adds to `batch` the changes that remove `name` from a document. ForgetInRam makes
  // the same change in RAM, after the batch is written.
  void AppendForget(DocumentId document, const std::string& name, WriteBatch* batch) const;
  void ForgetInRam(DocumentId document, const std::string& name);

  // --- index segments (memory_index.cc) ---
  // Reads segment `n` of a document from the store. Errors: data_loss, also when another version
  // wrote it; ReadSummaries also not_found.
  Result<std::shared_ptr<const ScanSegment>> ReadScan(const DocumentRecord& d, uint32_t n) const;
  Result<std::shared_ptr<const LexicalSegment>> ReadLexical(const DocumentRecord& d,
                                                            uint32_t n) const;
  Result<SummarySegment> ReadSummaries(const DocumentRecord& d, uint32_t n) const;
  // not_found also where another embedder or another version made the segment.
  Result<std::shared_ptr<const PassageSegment>> ReadPassages(const DocumentRecord& d,
                                                             uint32_t n) const;
  // Reads the blocks of a segment, several at a time. Calls `fn` for each in order, with null for a
  // block that cannot be read, and with the number of its tokens that count.
  void ForBlocks(const DocumentRecord& d, uint32_t n, const ParallelFor& parallel,
                 const std::function<void(const KvBlock* block, uint32_t rows)>& fn);
  // Build segment `n` from blocks (for the heads of `manifest`) or from tokens. Unreadable blocks
  // are counted in `blocks_lost`.
  std::shared_ptr<const ScanSegment> BuildScan(const Manifest& manifest, const DocumentRecord& d,
                                               uint32_t n, const ParallelFor& parallel,
                                               uint64_t* blocks_lost);
  Result<std::shared_ptr<const LexicalSegment>> BuildLexical(const DocumentRecord& d, uint32_t n);
  // Embeds the segment's text and tries to store the result. Null when the text is damaged.
  // Errors: the embedder's.
  Result<std::shared_ptr<const PassageSegment>> BuildPassages(const DocumentRecord& d, uint32_t n,
                                                              IndexReport* report);
  // Return the stored segment. If that is damaged, they rebuild it and try to write it back. Null
  // when the segment is lost.
  Result<std::shared_ptr<const ScanSegment>> ScanOrBuild(
      const DocumentRecord& d, uint32_t n, Result<std::shared_ptr<const ScanSegment>> stored,
      const ParallelFor& parallel, IndexReport* report);
  Result<std::shared_ptr<const LexicalSegment>> LexicalOrBuild(
      const DocumentRecord& d, uint32_t n, Result<std::shared_ptr<const LexicalSegment>> stored,
      IndexReport* report);
  // The stored segment; a damaged one is built again. A missing one takes 0.7 s to make, so only
  // Reindex makes it: here it is null and counted.
  Result<std::shared_ptr<const PassageSegment>> PassagesOrRebuild(const DocumentRecord& d,
                                                                  uint32_t n, IndexReport* report);
  // RAM of a document's segments, and of its inverted lists.
  uint64_t SegmentBytes(const DocumentRecord& d) const;
  uint64_t ListBytes(const DocumentRecord& d) const;
  // Reserves `bytes` more for the indexes.
  Status ReserveIndex(uint64_t bytes);
  // Whether a document should have inverted lists.
  bool WantsLists(const DocumentRecord& d) const;
  // Reads the stored inverted lists of one head. Errors: not_found; data_loss when they are damaged
  // or of another version.
  Result<IvfSegment> ReadLists(const DocumentRecord& d, uint32_t head) const;
  // The lists of all heads.
  Result<std::vector<IvfSegment>> ReadAllLists(const DocumentRecord& d) const;
  // Reads all segments and inverted lists of a document and discards them. Missing lists are no
  // error.
  Status VerifySegments(const DocumentRecord& d) const;
  // The chunk that contains a token; cached.
  Result<std::shared_ptr<const TextChunk>> ChunkOf(DocumentId document, uint64_t token);
  // Calls fn for each text chunk that has tokens of the span: those from `first` to `end`, counted
  // from the chunk's begin. Errors: data_loss; fn may have been called before.
  Status EachChunk(DocumentId document, TokenSpan span,
                   const std::function<void(const TextChunk& chunk, size_t first, size_t end)>& fn);
  Result<std::shared_ptr<const TextChunk>> LoadChunk(DocumentId document, uint32_t chunk);

  std::unique_ptr<ColdStore> store_;
  std::string name_;
  Manifest manifest_;
  const BlockCodec* codec_ = &ExactCodec();  // null if the memory's codec is `archive`
  // Set when there is a basis. It decodes archive blocks whatever the memory's codec is now.
  std::unique_ptr<const BlockCodec> archive_;
  Status basis_status_ = NotFound("no basis");  // ok if archive_ is set, else why it is not
  uint64_t basis_bytes_ = 0;                    // RAM of the basis
  MemoryReservation basis_memory_;
  uint64_t opened_bytes_ = 0;
  std::atomic<uint64_t> written_bytes_ = 0;
  std::vector<DocumentRecord> documents_;
  const LexicalVocabulary* vocabulary_ = nullptr;
  TextEmbedder* embedder_ = nullptr;
  bool indexes_loaded_ = false;
  IndexReport index_report_;
  LexicalIndex lexical_;
  PassageIndex passages_;
  IvfIndex relevance_;
  MemoryBudget* budget_ = nullptr;
  MemoryReservation index_memory_;  // for all indexes
  IvfLimits ivf_limits_;
  IvfSearch ivf_search_;
  // The most recently read chunks, newest at the end; at most kChunkCache.
  std::vector<std::pair<std::pair<DocumentId, uint32_t>, std::shared_ptr<const TextChunk>>> chunks_;
};

}  // namespace longhold
