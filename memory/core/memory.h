// One memory: a named set of documents over a cold store, with its indexes. Everything that is
// stored goes through here.
//
// Owner: Engine. Thread use: *confined*, except that LoadBlock may be called by several threads at
// once.
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
#include "memory/index/scan_index.h"
#include "memory/index/summaries.h"
#include "memory/model/language_model.h"
#include "memory/model/recall_profile.h"
#include "memory/record/records.h"
#include "store/block_codec.h"
#include "store/cold_store.h"
#include "store/transform_codec.h"

namespace longhold {

// A word that crosses an index segment's edge is whole in the later one when it has at most this
// many tokens.
inline constexpr uint64_t kPrecedingTokens = 16;

// Where a token span stands in its document's text.
struct TextPlace {
  ByteSpan bytes;
  uint64_t line_begin = 1;  // 1-based
  uint64_t line_end = 1;    // inclusive
  std::string text;
};

// What became of a memory's index segments when they were loaded or made again. Value type.
struct IndexReport {
  uint64_t segments = 0;  // looked at
  // damaged, missing or of another version, and built again from blocks or tokens
  uint64_t segments_rebuilt = 0;
  // of those: written back, so the next one to open the memory finds them whole
  uint64_t segments_stored = 0;
  uint64_t segments_lost = 0;  // could not be built: what they cover is not found by this signal
  // unreadable while scan segments were built: their tokens are found by their words only
  uint64_t blocks_lost = 0;
  // documents that are to have lists and whose lists are damaged or missing: they are scanned
  uint64_t lists_lost = 0;
};

class Memory {
 public:
  // Opens what `store` holds. With `model`, its fingerprint must be the memory's:
  // failed_precondition names both otherwise; and then its layers, heads and head size must be,
  // too, for all that is stored is read by them. Errors: not_found (the store holds no memory),
  // data_loss.
  static Result<std::unique_ptr<Memory>> Open(std::unique_ptr<ColdStore> store,
                                              const std::string& name, const ModelInfo* model);
  // Whether `store` holds a memory. A crash while one is made leaves a store without: it is as good
  // as new.
  static bool Exists(ColdStore& store);
  // The name that the memory in `store` was made or imported under. Errors: not_found (there is
  // none), data_loss.
  static Result<std::string> NameInside(ColdStore& store);
  // Makes an empty memory for `model` in an empty store, with its blocks in `codec`, one of
  // CodecNames'. Errors: already_exists.
  static Result<std::unique_ptr<Memory>> Create(std::unique_ptr<ColdStore> store,
                                                const std::string& name, const ModelInfo& model,
                                                const RecallProfile& profile,
                                                std::string_view codec = ExactCodec().name());

  // Whether `model` is the one that wrote the memory, and reads it by the shape that it was written
  // in. Errors: as Open's.
  Status CheckModel(const ModelInfo& model) const;

  const std::string& name() const { return name_; }
  const Manifest& manifest() const { return manifest_; }
  const std::vector<DocumentRecord>& documents() const { return documents_; }  // ascending by id
  // the newest of that name, or null
  const DocumentRecord* Find(std::string_view document_name) const;
  const DocumentRecord& Get(DocumentId id) const;  // must exist
  ColdStore& store() { return *store_; }
  // Of all blocks that are written from now on, but the sinks', which stay exact: most of every
  // answer's attention rests there. In a memory whose codec is `archive` it is the default one
  // until there is text enough to learn a basis from.
  const BlockCodec& codec() const;
  BlockShape block_shape() const;
  uint64_t committed_tokens() const;
  // On the disk, as far as it counts: the files as they were when it was opened, and what was
  // written since. A log that is not written into tables yet, and resume states, do not count
  // twice.
  uint64_t disk_bytes() const { return opened_bytes_ + written_bytes_; }

  // --- reading ---
  // Lets lexical segments be built again; borrowed for as long as the memory lives. Without one, a
  // damaged one is data_loss.
  void UseVocabulary(const LexicalVocabulary* vocabulary) { vocabulary_ = vocabulary; }
  // What the indexes, the archive's basis and coding blocks anew take is reserved there before;
  // borrowed for as long as the memory lives. Without one, nothing is. Errors: resource_exhausted
  // (no room for the basis).
  Status UseBudget(MemoryBudget* budget);
  // Loads the index segments of all committed tokens; later calls do nothing. One that cannot be
  // used is built again from what it derives from, and written back where the store can be written;
  // index_report() tells. Lists that are missing or damaged are no error: their document is
  // scanned. resource_exhausted when the budget has no room for them.
  Status LoadIndexes(const ParallelFor& parallel = SerialFor);
  const IndexReport& index_report() const { return index_report_; }
  // Whether the scan index is over the heads that `profile` names; otherwise Reindex would bring
  // them.
  bool HasHeadsOf(const RecallProfile& profile) const;
  const LexicalIndex& lexical() const { return lexical_; }
  // What a plan asks: lists where a document has them, the exact scan of all others.
  const RelevanceIndex& relevance() const { return relevance_; }
  // The exact scan of everything.
  const ScanIndex& scan() const { return relevance_.exact(); }
  // A document's recall-head keys, ascending; empty when it has none.
  std::span<const std::shared_ptr<const ScanSegment>> ScanSegments(DocumentId document) const {
    return relevance_.Segments(document);
  }
  bool HasLists(DocumentId document) const { return relevance_.HasLists(document); }
  // The summaries of all committed blocks of a document, segment after segment. What is not stored,
  // is damaged or of another version is made from the blocks, and written back where the store can
  // be written; blocks that cannot be read have a mean of 0 and are counted. Must hold: the
  // geometry is the memory's model's.
  Result<std::vector<SummarySegment>> Summaries(DocumentId document, const KvGeometry& geometry,
                                                const ParallelFor& parallel, uint64_t* blocks_lost);
  // The same of one segment of kCommitTokens.
  Result<SummarySegment> SummariesOf(DocumentId document, uint32_t segment,
                                     const KvGeometry& geometry, const ParallelFor& parallel,
                                     uint64_t* blocks_lost);
  // Holds as many tokens as count of the block, or more, and only finite numbers. Errors:
  // data_loss. Must hold: the document is there.
  Result<KvBlock> LoadBlock(const BlockKey& key, uint64_t* bytes_read = nullptr);
  // Must hold: span.end <= the document's tokens.
  Result<TextPlace> Locate(DocumentId document, TokenSpan span);
  // How many characters of the document's text begin before each of these bytes, which ascend.
  // Reads all text up to the last one. Errors: data_loss.
  Result<std::vector<uint64_t>> CharactersBefore(DocumentId document,
                                                 std::span<const uint64_t> bytes);
  // Grows `span` to whole lines where each end moves by at most `tokens_max` tokens. Where the text
  // is damaged it stays as it is.
  Result<TokenSpan> GrowToLines(DocumentId document, TokenSpan span, uint32_t tokens_max);
  // The line that holds token `at`, or its sentence where that is shorter. A sentence ends at . !
  // or ? (and what closes quotes or brackets) before white space, and at such marks of other
  // scripts. Where one of its ends is farther than `tokens_max` tokens away, as in JSON or code
  // without line breaks, it is the object (up to "}," or "],"), the item (up to a comma behind a
  // quote, or a semicolon without a space), or else what is within reach, in whole words. Damaged
  // text beside the token is out of reach.
  Result<TokenSpan> SentenceAt(DocumentId document, uint64_t at, uint32_t tokens_max);
  Result<std::vector<TokenId>> Tokens(DocumentId document, TokenSpan span);

  // --- writing ---
  // Adds a document with its text and tokens, nothing committed yet. Chunks must follow each other.
  // Atomic.
  Result<DocumentId> AddDocument(DocumentRecord record, const std::vector<TextChunk>& chunks);
  // Stores sealed blocks, the first of which is block `first` of the document. They count only once
  // a Commit covers them.
  Status PutBlocks(DocumentId document, uint32_t first, std::span<const KvBlock> blocks,
                   const ParallelFor& parallel = SerialFor);
  // Makes everything before `tokens` of a document count: index segments that hold (or end with)
  // the newest tokens, cursor and resume state, in one atomic write. `retire` is the document that
  // has had this one's name until now, or null: it loses the name in the same write, and goes when
  // it has no other. Without `summaries` they are made when they are wanted.
  Status Commit(DocumentId document, uint64_t tokens, std::shared_ptr<const ScanSegment> scan,
                std::shared_ptr<const LexicalSegment> lexical, const ResumeRecord* resume,
                const DocumentId* retire, const SummarySegment* summaries = nullptr);
  // Errors: not_found (an import leaves them out), data_loss.
  Result<ResumeRecord> LoadResume(DocumentId document);
  // Takes back all that is committed of an unfinished document; its text stays. Atomic. What was
  // committed is not recalled any more.
  Status Restart(DocumentId document);
  // Learns and stores the basis of a memory whose codec is `archive`, where it has none, 4,096
  // committed tokens to learn from, and room in the budget; without room a later call may have it.
  // Blocks that are there stay as they are.
  Status LearnBasis();
  // Makes `codec`, one of CodecNames', the memory's, and codes the blocks of its complete documents
  // with it, but for the sinks'. Killed or stopped at any moment it leaves a whole memory, and the
  // next call goes on. A block that would not get smaller by a twentieth stays as it is: what was
  // lost when it was coded does not come back. Blocks that cannot be read are left, too, and
  // counted. Errors: cancelled; failed_precondition (too little text for a basis);
  // resource_exhausted.
  Result<RecodeReport> Recode(
      std::string_view codec, const ParallelFor& parallel, const std::atomic<bool>* stop,
      const std::function<void(uint64_t done, uint64_t total)>& on_progress);
  // Lets `document`, which is complete, be known as `name` too, and takes that name off all others:
  // in one atomic write.
  Status AddName(DocumentId document, const std::string& name);
  // Makes lists for the complete documents that are to have some and lack them, and stores them
  // where the store can be written; where it cannot, or the disk is full, they serve for as long as
  // this memory is open. A document whose lists the budget has no room for stays without. Does
  // nothing, and loads nothing, in a memory below the limit. Errors: those of LoadIndexes and
  // BuildIvfSegment.
  Status BuildLists(const ParallelFor& parallel);
  // Which documents get and use lists, and how hard a query tries; before the first LoadIndexes.
  void UseLists(const IvfLimits& limits, const IvfSearch& search = {}) {
    ivf_limits_ = limits;
    ivf_search_ = search;
  }
  // Takes a name off a document. Without any name left, it goes with all that belongs to it; its
  // bytes leave the disk with the next Compact. Atomic.
  Status Forget(DocumentId document, const std::string& name);
  // Builds the index for the heads of `profile` from what is stored, without reading the text
  // again. When they are the heads that it has, only segments that cannot be used are built.
  // Otherwise new scan segments are laid beside the old ones, and the last write makes them count
  // and drops the old ones and their lists: a kill before it changes nothing. cancelled when `stop`
  // is set, data_loss never: what cannot be built is told in the report. Lists are BuildLists' to
  // make again. `on_progress` (may be null) hears tokens done and in all.
  Result<IndexReport> Reindex(
      const RecallProfile& profile, const ParallelFor& parallel, const std::atomic<bool>* stop,
      const std::function<void(uint64_t done, uint64_t total)>& on_progress);
  // RAM that the indexes take now.
  uint64_t index_bytes() const { return index_memory_.bytes(); }
  // Writes another name into the manifest. Where the memory's store lies is Engine's to change.
  Status Rename(const std::string& name);
  // Reads every record, segment and block. Data_loss names the first bad one.
  Status Verify();

 private:
  Memory(std::unique_ptr<ColdStore> store, std::string name)
      : store_(std::move(store)), name_(std::move(name)) {}
  Status LoadRecords();
  // Every change goes through here, and is counted.
  Status Write(WriteBatch batch, Durability durability);
  // Makes `next` the manifest, in the store and here.
  Status PutManifest(Manifest next);

  // --- the codec (memory_codec.cc) ---
  // Reads the basis, where there is one. One that is damaged is told by the blocks that need it,
  // and by Verify.
  void LoadBasis();
  void UseBasis(TransformBasis basis);
  // Takes `bytes` from the budget for as long as the result lives. An empty one without a budget.
  Result<MemoryReservation> ReserveFor(uint64_t bytes, const std::string& what) const;
  Result<TransformBasis> ReadBasis() const;  // as it is stored; not_found, data_loss
  // Takes `name` off a document in `batch`; ForgetInRam does the same here, once the batch is
  // written.
  void AppendForget(DocumentId document, const std::string& name, WriteBatch* batch) const;
  void ForgetInRam(DocumentId document, const std::string& name);

  // --- index segments (memory_index.cc) ---
  // Segment `n` of a document as it is stored. Errors: data_loss; failed_precondition where another
  // version wrote it.
  Result<std::shared_ptr<const ScanSegment>> ReadScan(const DocumentRecord& d, uint32_t n) const;
  Result<std::shared_ptr<const LexicalSegment>> ReadLexical(const DocumentRecord& d,
                                                            uint32_t n) const;
  Result<SummarySegment> ReadSummaries(const DocumentRecord& d, uint32_t n) const;
  // Reads the blocks of a segment in order, several at a time; `fn` gets each, or null where it
  // cannot be read, and how many of its tokens count.
  void ForBlocks(const DocumentRecord& d, uint32_t n, const ParallelFor& parallel,
                 const std::function<void(const KvBlock* block, uint32_t rows)>& fn);
  // The same from blocks, for the heads of `manifest`, and from tokens. Blocks that cannot be read
  // are counted in `blocks_lost`.
  std::shared_ptr<const ScanSegment> BuildScan(const Manifest& manifest, const DocumentRecord& d,
                                               uint32_t n, const ParallelFor& parallel,
                                               uint64_t* blocks_lost);
  Result<std::shared_ptr<const LexicalSegment>> BuildLexical(const DocumentRecord& d, uint32_t n);
  // What was read, or where that is damaged, what is built and, where that works, written back.
  // Null when it is lost.
  Result<std::shared_ptr<const ScanSegment>> ScanOrBuild(
      const DocumentRecord& d, uint32_t n, Result<std::shared_ptr<const ScanSegment>> stored,
      const ParallelFor& parallel, IndexReport* report);
  Result<std::shared_ptr<const LexicalSegment>> LexicalOrBuild(
      const DocumentRecord& d, uint32_t n, Result<std::shared_ptr<const LexicalSegment>> stored,
      IndexReport* report);
  // RAM of a document's segments, and of its lists.
  uint64_t SegmentBytes(const DocumentRecord& d) const;
  uint64_t ListBytes(const DocumentRecord& d) const;
  // Lets the indexes take `bytes` more.
  Status ReserveIndex(uint64_t bytes);
  // Whether a document is to have lists.
  bool WantsLists(const DocumentRecord& d) const;
  // Lists of one head as they are stored. Errors: not_found; data_loss when they are damaged or of
  // another version.
  Result<IvfSegment> ReadLists(const DocumentRecord& d, uint32_t head) const;
  // Those of all heads.
  Result<std::vector<IvfSegment>> ReadAllLists(const DocumentRecord& d) const;
  // Reads all segments and lists of a document and keeps none. Lists that are missing are no
  // damage.
  Status VerifySegments(const DocumentRecord& d) const;
  // The chunk that holds a token; cached.
  Result<std::shared_ptr<const TextChunk>> ChunkOf(DocumentId document, uint64_t token);
  Result<std::shared_ptr<const TextChunk>> LoadChunk(DocumentId document, uint32_t chunk);

  std::unique_ptr<ColdStore> store_;
  std::string name_;
  Manifest manifest_;
  const BlockCodec* codec_ = &ExactCodec();  // null in a memory whose codec is `archive`
  // where there is a basis; reads what it wrote whatever the codec is now
  std::unique_ptr<const BlockCodec> archive_;
  Status basis_status_ = NotFound("no basis");  // ok where archive_ is there, else why it is not
  uint64_t basis_bytes_ = 0;                    // RAM of it
  MemoryReservation basis_memory_;
  uint64_t opened_bytes_ = 0;
  std::atomic<uint64_t> written_bytes_ = 0;
  std::vector<DocumentRecord> documents_;
  const LexicalVocabulary* vocabulary_ = nullptr;
  bool indexes_loaded_ = false;
  IndexReport index_report_;
  LexicalIndex lexical_;
  IvfIndex relevance_;
  MemoryBudget* budget_ = nullptr;
  MemoryReservation index_memory_;  // all that the indexes hold
  IvfLimits ivf_limits_;
  IvfSearch ivf_search_;
  // The chunks read last, newest at the end; at most kChunkCache of them.
  std::vector<std::pair<std::pair<DocumentId, uint32_t>, std::shared_ptr<const TextChunk>>> chunks_;
};

}  // namespace longhold
