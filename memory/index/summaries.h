// Summaries of blocks: the mean attention key of each layer and KV head. Faithful attention picks
// blocks by them (docs/decisions/0017, 0024).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "attention/geometry.h"
#include "attention/rope.h"
#include "base/status.h"
#include "base/types.h"
#include "store/block_codec.h"

namespace longhold {

inline constexpr uint32_t kSummaryGroup = 32;

// Mean attention keys of consecutive blocks of one document. Each key is rotated to its position
// within its block before averaging. Rotating the mean to the position of the block's first token
// gives the mean of the block's keys as attention would see them there. So q . mean is the mean
// logit. Elements have four bits, with one scale per kSummaryGroup elements: 0.2 % of the block's
// size at 16 bits. (With one scale per head, a few large elements round all others to 0. With Gemma
// this lost a fifth of the benefit of picking: docs/decisions/0024.)
//
// Value type. Persisted by Memory (docs/formats/index.md).
struct SummarySegment {
  DocumentId document{};
  uint32_t block_begin = 0;  // first block within the document
  uint32_t block_count = 0;
  uint32_t layers = 0;  // tapped layers
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  // [blocks, layers, kv_heads, groups()] in fp16; finite, not negative.
  std::vector<uint16_t> scales;
  // [blocks, layers, kv_heads, head_dim / 2]: element 2 i in the low four bits, 2 i + 1 in the high
  // ones. Each is 1 to 15.
  std::vector<uint8_t> codes;

  // An empty segment. For Append, `ropes` must cover at least kBlockTokens positions.
  static SummarySegment Of(DocumentId document, uint32_t block_begin, const KvGeometry& geometry);
  // Appends the summary of a block's first `rows` tokens. Must hold: 0 < rows <= block.tokens; the
  // block has this segment's shape.
  void Append(const KvBlock& block, uint32_t rows, const RopeTables& ropes);
  // Appends a summary for a block that cannot be read. Its mean is 0.
  void AppendLost();
  uint32_t groups() const { return GroupsOf(head_dim); }
  static uint32_t GroupsOf(uint32_t head_dim) {
    return (head_dim + kSummaryGroup - 1) / kSummaryGroup;
  }
  // Writes mean = scale * (code - 8), [head_dim]. Must hold: block < block_count, slot < layers,
  // kv_head < kv_heads.
  void Mean(uint32_t block, uint32_t slot, uint32_t kv_head, float* mean) const;
  // RAM that the summaries of `blocks` blocks need.
  static uint64_t Bytes(const KvGeometry& geometry, uint64_t blocks);

  std::string Encode() const;
  // Errors: data_loss on anything wrong; failed_precondition when another version wrote the format.
  // Allocates at most bytes.size() plus a small constant.
  static Result<SummarySegment> Decode(std::string_view bytes);

  friend bool operator==(const SummarySegment&, const SummarySegment&) = default;
};

}  // namespace longhold
