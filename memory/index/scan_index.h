// The relevance index by exact scan: int8 attention keys of the recall heads for every token of the
// memory.
//
// Purpose: finds the blocks and tokens that the model's own recall heads attend to, without
// positions. Cost: head_dim + 4 bytes per token and head. One question (90 query rows) over 1M
// tokens takes 6 G multiply-adds per head.
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
#include "memory/record/records.h"

namespace longhold {

inline constexpr uint32_t kScanSegmentBlocksMax = 1024;

// The largest scale of a key. Stored keys are 16-bit floats in an orthonormal basis, at most 65504
// * sqrt(kMaxHeadDim) long, so a valid scale is far below. The squared length of a key within this
// bound is a finite float, which FAISS requires.
inline constexpr float kScanScaleMax = 65536;

// int8 attention keys of `heads` recall heads over consecutive blocks of one document, in the
// layout of KernelTable::scan. Immutable once built; published once. Persisted by Memory
// (docs/formats/index.md).
struct ScanSegment {
  DocumentId document{};
  uint32_t block_begin = 0;     // first block within the document
  uint32_t block_count = 0;     // 1..kScanSegmentBlocksMax
  uint32_t heads = 0;           // 1..kScanHeadsMax
  uint32_t head_dim = 0;        // a multiple of 4, at most kMaxHeadDim
  std::vector<uint8_t> counts;  // [blocks] used tokens: 64; in the last block 1..64
  // [heads] of [blocks, head_dim / 4, 64, 4]: value + 128; unused tokens have 128.
  std::vector<std::vector<uint8_t>> keys;
  // [heads] of [blocks, 64]: 0..kScanScaleMax; unused tokens have 0.
  std::vector<std::vector<float>> scales;

  // `rows(head, token)` is the un-rotated key [head_dim] of a token, counted from the segment's
  // start, valid until the next call. Each token is quantised with scale = max|k| / 127. A key with
  // an infinity, a NaN or an element beyond 127 * kScanScaleMax, as in a damaged block, is replaced
  // by zero. Must hold: the limits above.
  static ScanSegment Build(DocumentId document, uint32_t block_begin, uint64_t tokens,
                           uint32_t heads, uint32_t head_dim,
                           const std::function<const float*(uint32_t head, uint64_t token)>& rows);
  uint64_t token_count() const {
    return (uint64_t{block_count} - 1) * kBlockTokens + counts.back();
  }
  std::string Encode() const;
  // Errors: data_loss on anything wrong; failed_precondition when another version wrote the format.
  // Allocates at most bytes.size() plus a small constant.
  static Result<ScanSegment> Decode(std::string_view bytes);

  friend bool operator==(const ScanSegment&, const ScanSegment&) = default;
};

// The queries of one recall head: one row per question token and query head of the KV head's group.
struct ScanQuery {
  uint32_t head = 0;  // index within the segments' heads
  uint32_t rows = 0;
  uint32_t head_dim = 0;
  float scale = 1;  // the model's logit scale
  // [rows, head_dim], un-rotated. A row that is not finite is replaced by zero.
  std::vector<float> q;
  std::vector<float> row_weight;  // [rows]; weight of each row in the block score
};

// Per block: score = sum_r row_weight[r] * (share of row r's softmax over the whole memory that is
// in the block).
//
// A document's first token is an attention sink: heads give it the attention that they have no use
// for ("Efficient Streaming Language Models with Attention Sinks", arXiv:2309.17453). Recall heads
// do so too: token 0 of Genesis gets 0.5 of all mass, whatever the question. So that token stays in
// the softmax, where it lets a head choose nothing, but it counts for no block. With many
// documents, the mean of their sinks represents all of them.
struct ScanResult {
  struct BlockScore {
    BlockKey block;
    double score = 0;
  };
  // Descending by score, then ascending by block key; at most max_blocks.
  std::vector<BlockScore> blocks;
  // Sum of the row weights. score / weight_sum is the share of attention mass.
  double weight_sum = 0;
  double sink_score = 0;  // sum_r row_weight[r] * share of the sinks
  // [rows] log sum exp of the row's logits over the memory; -infinity when the memory is empty.
  std::vector<double> row_lse;
};

// A query's rows in the form that KernelTable::scan takes.
struct QuantisedRows {
  std::vector<int8_t> codes;  // [rows, head_dim]
  std::vector<float> scales;  // [rows]; includes the logit scale

  explicit QuantisedRows(const ScanQuery& query);
};

// The planner's interface to an index over the recall heads' keys. It finds the blocks that a
// question's rows attend to, as shares of their softmax over the whole memory. Two implementations:
// ScanIndex reads every token. IvfIndex (memory/index/ivf_index.h) reads the most promising ones
// and estimates the rest of the softmax. Thread use: *external* for Add and Remove; const methods
// are safe to call concurrently between them.
class RelevanceIndex {
 public:
  virtual ~RelevanceIndex() = default;
  // Adds a segment. It replaces an older one of the same document and blocks. Errors:
  // invalid_argument when it overlaps another segment or has other heads than earlier segments.
  virtual Status Add(std::shared_ptr<const ScanSegment> segment) = 0;
  virtual void Remove(DocumentId document) = 0;
  virtual uint64_t token_count() const = 0;
  virtual uint64_t block_count() const = 0;
  // Must hold: head and head_dim are those of the segments (an empty index accepts any).
  virtual ScanResult Query(const ScanQuery& query, size_t max_blocks,
                           const ParallelFor& parallel) const = 0;
  // Weighted softmax mass of each used token of one block, given the row_lse of the same query's
  // result. The sum is the block's score. Empty when the block is not in the index.
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
  // Queries are quantised to int8 per row, which changes a logit by at most about (|q|_1 max|k| +
  // |k|_1 max|q|) * scale / 254. Memory: 4 bytes per block and row. Rows are tiled to stay below 16
  // MiB, with a minimum tile of 16 rows.
  ScanResult Query(const ScanQuery& query, size_t max_blocks,
                   const ParallelFor& parallel) const override;
  std::vector<float> TokenMass(const ScanQuery& query, const ScanResult& result,
                               const BlockKey& block) const override;

 private:
  // Ascending by (document, block_begin).
  std::vector<std::shared_ptr<const ScanSegment>> segments_;
  uint64_t token_count_ = 0;
  uint64_t block_count_ = 0;
};

}  // namespace longhold
