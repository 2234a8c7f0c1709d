// The relevance index by exact scan: int8 keys of the recall heads, every token of the memory.
//
// Purpose: which blocks and tokens the model's own recall heads would look at, without positions.
// Cost: head_dim + 4 bytes per token and head; one question (90 query rows) over 1M tokens is 6 G multiply-adds per head.
// Owner: Memory. Thread use: *external* for Add/Remove; const methods are safe to call concurrently between them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"

namespace longhold {

// Runs fn(i) for i in [0, count), possibly on several threads; returns when all are done.
using ParallelFor = std::function<void(size_t count, const std::function<void(size_t)>& fn)>;
// Runs them in order on the calling thread.
void SerialFor(size_t count, const std::function<void(size_t)>& fn);

// int8 keys of `heads` recall heads over consecutive blocks of one document, laid out for KernelTable::scan.
// Immutable once built; published once. Persisted by Memory (docs/formats/index.md).
struct ScanSegment {
  DocumentId document{};
  uint32_t block_begin = 0;  // first block within the document
  uint32_t block_count = 0;
  uint32_t heads = 0;
  uint32_t head_dim = 0;
  std::vector<uint8_t> counts;             // [blocks] used tokens of each block, 1..64
  std::vector<std::vector<uint8_t>> keys;  // [heads] of [blocks, head_dim / 4, 64, 4]; 64-byte aligned storage not
                                           // required: kernels load unaligned
  std::vector<std::vector<float>> scales;  // [heads] of [blocks, 64]

  // `rows(head, token)` is the un-rotated key [head_dim] of a token of the segment. Quantised per token: scale = max|k| / 127.
  static ScanSegment Build(DocumentId document, uint32_t block_begin, uint64_t tokens, uint32_t heads, uint32_t head_dim,
                           const std::function<const float*(uint32_t head, uint64_t token)>& rows);
  std::string Encode() const;
  static Result<ScanSegment> Decode(std::string_view bytes);  // data_loss on anything wrong
};

// Queries of one recall head: every query row that reads it (question tokens x query heads of its group).
struct ScanQuery {
  uint32_t head = 0;           // index within the segment's heads
  uint32_t rows = 0;
  uint32_t head_dim = 0;
  float scale = 1;             // the model's logit scale
  std::vector<float> q;        // [rows, head_dim], un-rotated
  std::vector<float> row_weight;  // [rows]; how much each row counts in the block score
};

// Per block: score = sum_r row_weight[r] * (share of row r's softmax over the whole memory that falls into the block).
struct ScanResult {
  struct BlockScore {
    BlockKey block;
    double score = 0;
  };
  std::vector<BlockScore> blocks;  // descending; at most max_blocks
  double weight_sum = 0;           // sum of row weights: score / weight_sum is the share of attention mass
};

class ScanIndex {
 public:
  void Add(std::shared_ptr<const ScanSegment> segment);
  void Remove(DocumentId document);
  uint64_t token_count() const;

  // Exact over all tokens: int8 dot products, softmax over the memory per row, mass per block.
  ScanResult Query(const ScanQuery& query, size_t max_blocks, const ParallelFor& parallel) const;
  // Softmax mass per token (sum over rows, weighted) of one block, scaled so that the block's tokens add up to 1.
  // Empty when the block is not in the index.
  std::vector<float> TokenShares(const ScanQuery& query, const BlockKey& block) const;

 private:
  std::vector<std::shared_ptr<const ScanSegment>> segments_;
};

}  // namespace longhold
