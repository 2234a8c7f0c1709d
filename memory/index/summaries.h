// Summaries of blocks: the mean key of each layer and KV head, by which faithful attention picks
// blocks (decisions/0017, 0024).
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

// Mean keys of consecutive blocks of one document. A key is rotated to its place within its block
// before it is averaged, so that a mean rotated to where its block begins is the mean of the
// block's keys as attention would see them there: q . mean is then the mean logit. In four bits a
// number, with a scale for each kSummaryGroup of them: 0.2 % of the block at 16 bits. (One scale
// for a whole head lets a few large elements round all others away: it lost a fifth of what picking
// is worth with Gemma, docs/decisions/0024.)
//
// Value type. Persisted by Memory (docs/formats/index.md).
struct SummarySegment {
  DocumentId document{};
  uint32_t block_begin = 0;  // first block within the document
  uint32_t block_count = 0;
  uint32_t layers = 0;  // tapped
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  // [blocks, layers, kv_heads, groups()] IEEE halves; finite, not negative
  std::vector<uint16_t> scales;
  // [blocks, layers, kv_heads, head_dim / 2]: element 2 i in the low four bits, 2 i + 1 in the high
  // ones, each 1 to 15
  std::vector<uint8_t> codes;

  // Without blocks. `ropes` has kBlockTokens positions or more wherever a block is appended.
  static SummarySegment Of(DocumentId document, uint32_t block_begin, const KvGeometry& geometry);
  // Appends the summary of a block's first `rows` tokens. Must hold: 0 < rows <= block.tokens; the
  // block has this shape.
  void Append(const KvBlock& block, uint32_t rows, const RopeTables& ropes);
  // Appends a block of which nothing is known: its mean is 0.
  void AppendLost();
  uint32_t groups() const { return GroupsOf(head_dim); }
  static uint32_t GroupsOf(uint32_t head_dim) {
    return (head_dim + kSummaryGroup - 1) / kSummaryGroup;
  }
  // mean = scale * (code - 8), [head_dim]. Must hold: block < block_count, and so on.
  void Mean(uint32_t block, uint32_t slot, uint32_t kv_head, float* mean) const;
  // RAM of so many blocks.
  static uint64_t Bytes(const KvGeometry& geometry, uint64_t blocks);

  std::string Encode() const;
  // data_loss on anything wrong; failed_precondition when the format is another version's.
  // Allocates no more than bytes.size() and some fixed change.
  static Result<SummarySegment> Decode(std::string_view bytes);

  friend bool operator==(const SummarySegment&, const SummarySegment&) = default;
};

}  // namespace longhold
