// The relevance index for memories that are too large to scan. It is an IVF (inverted file) index:
// attention keys are clustered into inverted lists, and a query reads only the most promising
// lists.
//
// Purpose: the results of ScanIndex from a tenth of the keys. FAISS clusters a document's keys. A
// query selects the lists that may hold most of its rows' attention. The keys in them are scored
// exactly, from the same int8 keys and with the same kernels as in ScanIndex. (FAISS's own scanners
// were slower: docs/decisions/0008.) The rest of the softmax denominator is estimated from a
// stratified sample of all keys. So shares stay comparable with those of the exact scan.
//
// FAISS types and exceptions stay in ivf_build.cc. FAISS's own threads are never used: callers pass
// theirs as a ParallelFor.
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
// Limit for one document. Its inverted lists then take 1 GiB, half of the largest batch that the
// store accepts.
inline constexpr uint64_t kIvfTokensMax = 1u << 28;

// Which memories get inverted lists. The defaults are measured (bench/relevance_bench.cc,
// docs/figures.md). Tests use smaller values.
struct IvfLimits {
  // The exact scan of 90 query rows takes 28 ms per million tokens and head on two cores with
  // AVX-512. At this size two heads take 140 of the 150 ms that planning may take. Lists break even
  // at one million tokens, but the exact scan is preferred while it is fast enough
  // (docs/decisions/0008).
  uint64_t memory_tokens_min = 2'500'000;
  // Lists are built per document. Smaller documents are scanned, which takes no longer.
  uint64_t document_tokens_min = 2'000'000;
};

// How much of the index a query reads.
struct IvfSearch {
  // The share of a document's keys that a query reads: those of its most promising lists.
  double share = 0.1;
  // Keys in a document's sample, which estimates the lists that were not read. Determines the error
  // of row_lse.
  uint32_t sample_tokens = 1u << 18;
};

// The inverted lists of one recall head over one whole document. They are derived from the
// document's scan segments and need them: they hold token numbers, not keys. Value type. Persisted
// by Memory (docs/formats/index.md).
struct IvfSegment {
  DocumentId document{};
  uint32_t head = 0;  // index within the scan segments' heads
  uint32_t head_dim = 0;
  uint32_t tokens = 0;     // in the document, 1 or more
  uint64_t keys_hash = 0;  // hash of the scan keys that the lists were made from
  // [lists + 1], ascending from 0 to tokens - 1. The number of lists is 1..kIvfListsMax.
  std::vector<uint32_t> list_begin;
  // [tokens - 1] a permutation of the tokens 1, 2, ... grouped by list, ascending within a list.
  // Token 0 is the document's sink, which is in no list: see ScanResult.
  std::vector<uint32_t> order;
  std::vector<float> mean;      // [lists, head_dim] mean of a list's keys; 0 if it is empty
  std::vector<float> variance;  // [lists, head_dim]; not negative

  uint32_t lists() const { return static_cast<uint32_t>(list_begin.size() - 1); }
  // Checks what every reader relies on; Decode has checked it already. Returns null if all is well,
  // else a description of the fault.
  const char* Fault() const;
  std::string Encode() const;
  // Errors: data_loss on anything wrong; failed_precondition when another version wrote the format.
  // Allocates at most bytes.size() plus a small constant. FAISS never reads these bytes.
  static Result<IvfSegment> Decode(std::string_view bytes);

  friend bool operator==(const IvfSegment&, const IvfSegment&) = default;
};

// Builds the lists of one head. `segments` must be all those of one document, ascending, without
// gaps, from block 0, with at most kIvfTokensMax tokens. Pure: the same segments give the same
// lists on the same kind of machine (another machine's BLAS may round differently). Trains on at
// most 64 keys per list. Cost: tokens * lists * head_dim multiply-adds to assign keys to lists,
// plus half as much for training at a million tokens. Errors: resource_exhausted (out of memory),
// internal (FAISS).
Result<IvfSegment> BuildIvfSegment(std::span<const std::shared_ptr<const ScanSegment>> segments,
                                   uint32_t head, const ParallelFor& parallel);

// A ScanIndex with inverted lists for some of its documents. Without lists it returns the same
// results as the ScanIndex. Owner: Memory. Thread use: as RelevanceIndex; AddLists is *external*
// too.
// Memory: the scan segments are shared with the ScanIndex inside. Lists add head_dim + 8 bytes per
// token and head, because they hold a second copy of the keys in list order. (Gathering keys from
// the segments would touch one cache line per four bytes.)
class IvfIndex final : public RelevanceIndex {
 public:
  explicit IvfIndex(IvfSearch search = {});
  ~IvfIndex() override;
  IvfIndex(IvfIndex&&) noexcept;
  IvfIndex& operator=(IvfIndex&&) noexcept;

  // A new segment of a document removes that document's lists.
  Status Add(std::shared_ptr<const ScanSegment> segment) override;
  void Remove(DocumentId document) override;
  uint64_t token_count() const override { return exact_.token_count(); }
  uint64_t block_count() const override { return exact_.block_count(); }

  // Takes a document's inverted lists, one IvfSegment per head in order, and stops scanning the
  // document. Errors: failed_precondition when the lists were made from other keys; the document is
  // then scanned as before.
  Status AddLists(const std::vector<IvfSegment>& heads);
  bool HasLists(DocumentId document) const { return lists_.contains(document); }
  bool has_lists() const { return !lists_.empty(); }
  // The document's segments, ascending. Empty when there are none.
  std::span<const std::shared_ptr<const ScanSegment>> Segments(DocumentId document) const;
  const ScanIndex& exact() const { return exact_; }

  // As ScanIndex::Query, with three differences:
  //   - A block is found only by its tokens in the lists that are read. All of its tokens then
  //     count.
  //   - row_lse has the sampling error of the lists that are not read (measured: 0.01 at the
  //     median, 0.1 at the 99th percentile of rows). It changes all shares of a row by the same
  //     factor.
  //   - Fewer than max_blocks blocks may be returned.
  // Memory: 4 bytes per row and block that is read or sampled, with rows tiled by 96; and 4 bytes
  // per row and block that is found.
  ScanResult Query(const ScanQuery& query, size_t max_blocks,
                   const ParallelFor& parallel) const override;
  // Exact, except for the error of row_lse.
  std::vector<float> TokenMass(const ScanQuery& query, const ScanResult& result,
                               const BlockKey& block) const override;

 private:
  struct HeadLists;  // one head of one document, ready to search
  struct Tile;       // a group of a query's rows in process

  IvfSearch search_;
  ScanIndex exact_;  // all documents
  ScanIndex rest_;   // documents without lists
  std::map<DocumentId, std::vector<std::shared_ptr<const ScanSegment>>> segments_;
  // [heads] for each document
  std::map<DocumentId, std::vector<std::unique_ptr<HeadLists>>> lists_;
};

}  // namespace longhold
