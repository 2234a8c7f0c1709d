// The relevance index for memories that are too large to scan: lists of like keys, of which a query
// looks at the likely ones.
//
// Purpose: the answers of ScanIndex from a tenth of the keys. FAISS clusters a document's keys into
// lists; a query looks at the lists that may hold the most of its rows' attention, and what is in
// them is scored exactly from the same int8 keys and by the same kernels as in ScanIndex (FAISS's
// own scanners lost: docs/decisions/0008-lists-above-a-size.md). The part of the softmax that was
// not looked at is estimated from a stratified sample of all keys, so that shares stay comparable
// with the exact scan's.
//
// FAISS types and FAISS's exceptions stop at faiss_index.cc. Its threads are never used: callers
// bring theirs as ParallelFor.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "memory/index/scan_index.h"

namespace longhold {

inline constexpr uint32_t kIvfListsMax = 1u << 16;
// Of one document: its lists then are 1 GiB, half of what the store takes as one batch.
inline constexpr uint64_t kIvfTokensMax = 1u << 28;

// Which memories get lists. The defaults are measured (bench/relevance_bench.cc, docs/figures.md);
// tests take smaller ones.
struct IvfLimits {
  // The exact scan of 90 query rows takes 28 ms for a million tokens and head on two cores with
  // AVX-512: here two heads reach 140 of the 150 ms that planning may take. Lists break even at one
  // million, but exact is better than quick while there is time. decisions/0008.
  uint64_t memory_tokens_min = 2'500'000;
  // Lists are made per document; a smaller one is scanned beside them, at no loss of time.
  uint64_t document_tokens_min = 2'000'000;
};

// How hard a query tries.
struct IvfSearch {
  // Of a document's keys, how many a query looks at: its most likely lists.
  double share = 0.1;
  // Keys of a document's sample, which stands for what was not looked at. Sets the error of
  // row_lse.
  uint32_t sample_tokens = 1u << 18;
};

// The keys of one recall head over one whole document, as lists. Derived from the document's scan
// segments and of no use without them; holds no keys itself. Value type. Persisted by Memory
// (docs/formats/index.md).
struct IvfSegment {
  DocumentId document{};
  uint32_t head = 0;  // index within the scan segments' heads
  uint32_t head_dim = 0;
  uint32_t tokens = 0;     // of the document, 1 or more
  uint64_t keys_hash = 0;  // of the scan keys that the lists were made from
  // [lists + 1], ascending from 0 to tokens - 1; lists is 1..kIvfListsMax
  std::vector<uint32_t> list_begin;
  // [tokens - 1] a permutation of the tokens 1, 2, .. by list, ascending within a list. Token 0 is
  // the document's sink, which no list holds: see ScanResult.
  std::vector<uint32_t> order;
  std::vector<float> mean;      // [lists, head_dim] of a list's keys; 0 for an empty list
  std::vector<float> variance;  // [lists, head_dim]; not negative

  uint32_t lists() const { return static_cast<uint32_t>(list_begin.size() - 1); }
  // What every reader of it relies on, and Decode has checked; null when it holds, else what is
  // wrong.
  const char* Fault() const;
  std::string Encode() const;
  // data_loss on anything wrong; failed_precondition when the format is another version's.
  // Allocates no more than bytes.size() and some fixed change. FAISS never sees these bytes.
  static Result<IvfSegment> Decode(std::string_view bytes);

  friend bool operator==(const IvfSegment&, const IvfSegment&) = default;
};

// Makes the lists of one head. `segments`: all of one document, ascending, without gaps, from block
// 0; at most kIvfTokensMax tokens. Pure: the same segments give the same lists on one kind of
// machine (the BLAS of another may round otherwise). Trains on at most 64 keys a list. Cost: tokens
// * lists * head_dim multiply-adds for sorting keys into lists, half as much again at a million
// tokens for training. Errors: resource_exhausted (no memory), internal (FAISS).
Result<IvfSegment> BuildIvfSegment(std::span<const std::shared_ptr<const ScanSegment>> segments,
                                   uint32_t head, const ParallelFor& parallel);

// A ScanIndex, and lists for some of its documents. Without any it answers as the ScanIndex does.
// Owner: Memory. Thread use: as RelevanceIndex; AddLists is *external* too.
// Memory: the scan segments are shared with the ScanIndex inside; lists add head_dim + 8 bytes per
// token and head, because they hold the keys a second time in their own order (gathering them from
// the segments would touch a cache line per four bytes).
class IvfIndex final : public RelevanceIndex {
 public:
  explicit IvfIndex(IvfSearch search = {});
  ~IvfIndex() override;
  IvfIndex(IvfIndex&&) noexcept;
  IvfIndex& operator=(IvfIndex&&) noexcept;

  // A segment that changes a document drops its lists.
  Status Add(std::shared_ptr<const ScanSegment> segment) override;
  void Remove(DocumentId document) override;
  uint64_t token_count() const override { return exact_.token_count(); }
  uint64_t block_count() const override { return exact_.block_count(); }

  // Takes a document's lists, one for each head in order, and stops scanning it.
  // failed_precondition when they do not belong to the keys that are here; the document is then
  // scanned as before.
  Status AddLists(const std::vector<IvfSegment>& heads);
  bool HasLists(DocumentId document) const { return lists_.contains(document); }
  bool has_lists() const { return !lists_.empty(); }
  // The document's segments, ascending; empty when there are none.
  std::span<const std::shared_ptr<const ScanSegment>> Segments(DocumentId document) const;
  const ScanIndex& exact() const { return exact_; }

  // As ScanIndex::Query, with three differences. A block is found by those of its tokens that are
  // in the lists looked at; then all its tokens count. row_lse is off by the sampling error of what
  // was not looked at (measured: 0.01 at the median, 0.1 at the 99th percentile of rows), which
  // moves all shares of a row alike. Fewer than max_blocks blocks may come back. Memory: 4 bytes
  // per block looked at or sampled and row, rows tiled by 96; 4 bytes per block found and row.
  ScanResult Query(const ScanQuery& query, size_t max_blocks,
                   const ParallelFor& parallel) const override;
  // Exact but for row_lse.
  std::vector<float> TokenMass(const ScanQuery& query, const ScanResult& result,
                               const BlockKey& block) const override;

 private:
  struct HeadLists;  // one head of one document, ready to search
  struct Tile;       // some rows of a query on their way through

  IvfSearch search_;
  ScanIndex exact_;  // all documents
  ScanIndex rest_;   // those without lists
  std::map<DocumentId, std::vector<std::shared_ptr<const ScanSegment>>> segments_;
  std::map<DocumentId, std::vector<std::unique_ptr<HeadLists>>> lists_;  // [heads] each
};

}  // namespace longhold
