// The relevance index by exact scan: int8 keys of the recall heads, every token of the memory.
//
// Purpose: which blocks and tokens the model's own recall heads would look at, without positions.
// Cost: head_dim + 4 bytes per token and head; one question (90 query rows) over 1M tokens is 6 G
// multiply-adds per head.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/parallel.h"
#include "base/status.h"
#include "base/types.h"

namespace longhold {

inline constexpr uint32_t kScanSegmentBlocksMax = 1024;
inline constexpr uint32_t kScanHeadsMax = 64;

// The largest scale of a key. Stored keys are 16-bit floats in an orthonormal basis, at most 65504
// * sqrt(kMaxHeadDim) long, so that a true scale stays far below; and the squared length of any key
// that keeps to it is a finite float, which FAISS relies on.
inline constexpr float kScanScaleMax = 65536;

// int8 keys of `heads` recall heads over consecutive blocks of one document, laid out for
// KernelTable::scan. Immutable once built; published once. Persisted by Memory
// (docs/formats/index.md).
struct ScanSegment {
  DocumentId document{};
  uint32_t block_begin = 0;     // first block within the document
  uint32_t block_count = 0;     // 1..kScanSegmentBlocksMax
  uint32_t heads = 0;           // 1..kScanHeadsMax
  uint32_t head_dim = 0;        // a multiple of 4, at most kMaxHeadDim
  std::vector<uint8_t> counts;  // [blocks] used tokens: 64, in the last block 1..64
  // [heads] of [blocks, head_dim / 4, 64, 4], value + 128; unused tokens 128
  std::vector<std::vector<uint8_t>> keys;
  // [heads] of [blocks, 64]; 0..kScanScaleMax; unused tokens 0
  std::vector<std::vector<float>> scales;

  // `rows(head, token)` is the un-rotated key [head_dim] of a token, counted from the segment's
  // begin, valid until the next call. Quantised per token: scale = max|k| / 127. A key with an
  // infinity, a NaN or a number beyond 127 * kScanScaleMax, as a damaged block has them, counts as
  // zero. Must hold: the limits above.
  static ScanSegment Build(DocumentId document, uint32_t block_begin, uint64_t tokens,
                           uint32_t heads, uint32_t head_dim,
                           const std::function<const float*(uint32_t head, uint64_t token)>& rows);
  uint64_t token_count() const {
    return (uint64_t{block_count} - 1) * kBlockTokens + counts.back();
  }
  std::string Encode() const;
  // data_loss on anything wrong; failed_precondition when the format is another version's.
  // Allocates no more than bytes.size() and some fixed change.
  static Result<ScanSegment> Decode(std::string_view bytes);

  friend bool operator==(const ScanSegment&, const ScanSegment&) = default;
};

// Queries of one recall head: every query row that reads it (question tokens x query heads of its
// group).
struct ScanQuery {
  uint32_t head = 0;  // index within the segments' heads
  uint32_t rows = 0;
  uint32_t head_dim = 0;
  float scale = 1;  // the model's logit scale
  // [rows, head_dim], un-rotated; a row that is not finite counts as zero
  std::vector<float> q;
  std::vector<float> row_weight;  // [rows]; how much each row counts in the block score
};

// Per block: score = sum_r row_weight[r] * (share of row r's softmax over the whole memory that
// falls into the block).
//
// A document's first token is where heads park the attention that they have no use for (an
// attention sink; "Efficient Streaming Language Models with Attention Sinks", arXiv:2309.17453).
// Recall heads do it too: measured 0.5 of all mass on token 0 of Genesis, whatever the question. So
// that token stays in the softmax, as the heads' way to say "nothing", but counts for no block.
// With many documents their mean sink stands for all.
struct ScanResult {
  struct BlockScore {
    BlockKey block;
    double score = 0;
  };
  std::vector<BlockScore> blocks;  // descending by score, then ascending by key; at most max_blocks
  // sum of row weights: score / weight_sum is the share of attention mass
  double weight_sum = 0;
  double sink_score = 0;  // sum_r row_weight[r] * share of the sinks
  // [rows] log sum exp of the row's logits over the memory; -infinity when it is empty
  std::vector<double> row_lse;
};

// A query's rows as KernelTable::scan reads them.
struct QuantisedRows {
  std::vector<int8_t> codes;  // [rows, head_dim]
  std::vector<float> scales;  // [rows]; holds the logit scale

  explicit QuantisedRows(const ScanQuery& query);
};

// What the planner needs of an index over the recall heads' keys: which blocks a question's rows
// attend to, as shares of their softmax over the whole memory. Two implementations: ScanIndex looks
// at every token; IvfIndex (memory/index/ivf_index.h) at the likely ones, and estimates the rest
// of the softmax. Thread use: *external* for Add and Remove; const methods are safe to call
// concurrently between them.
class RelevanceIndex {
 public:
  virtual ~RelevanceIndex() = default;
  // A segment of the same document and blocks takes the older one's place. invalid_argument when it
  // overlaps another or has other heads than the segments before it.
  virtual Status Add(std::shared_ptr<const ScanSegment> segment) = 0;
  virtual void Remove(DocumentId document) = 0;
  virtual uint64_t token_count() const = 0;
  virtual uint64_t block_count() const = 0;
  // Must hold: head and head_dim are those of the segments (an empty index takes any).
  virtual ScanResult Query(const ScanQuery& query, size_t max_blocks,
                           const ParallelFor& parallel) const = 0;
  // Weighted softmax mass of each used token of one block, by the row_lse of the same query's
  // result: adds up to the block's score. Empty when the block is not in the index.
  virtual std::vector<float> TokenMass(const ScanQuery& query, const ScanResult& result,
                                       const BlockKey& block) const = 0;
};

// Owner: Memory. Thread use: as RelevanceIndex.
class ScanIndex final : public RelevanceIndex {
 public:
  Status Add(std::shared_ptr<const ScanSegment> segment) override;
  void Remove(DocumentId document) override;
  uint64_t token_count() const override { return token_count_; }
  uint64_t block_count() const override { return block_count_; }

  // Exact over all tokens: int8 dot products, softmax over the memory per row, mass per block.
  // Queries are quantised to int8 per row, which shifts a logit by at most about (|q|_1 max|k| +
  // |k|_1 max|q|) * scale / 254. Memory: 4 bytes per block and row, rows tiled to stay below 16 MiB
  // (16 rows of a memory so large that this is more).
  ScanResult Query(const ScanQuery& query, size_t max_blocks,
                   const ParallelFor& parallel) const override;
  std::vector<float> TokenMass(const ScanQuery& query, const ScanResult& result,
                               const BlockKey& block) const override;

 private:
  // ascending by (document, block_begin)
  std::vector<std::shared_ptr<const ScanSegment>> segments_;
  uint64_t token_count_ = 0;
  uint64_t block_count_ = 0;
};

}  // namespace longhold
