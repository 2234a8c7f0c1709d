// The recall heads' keys of the tokens of one index segment, gathered from blocks, as its scan
// segment is built from them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "memory/index/scan_index.h"
#include "memory/record/records.h"
#include "store/block_codec.h"

namespace longhold {

// Owner: whoever builds a segment. Thread use: *confined*. Memory: 4 bytes * heads * head_dim per
// token, kCommitTokens of them.
class SegmentKeys {
 public:
  // For the heads that `manifest` lists. Must hold: it lists layers that blocks have.
  explicit SegmentKeys(const Manifest& manifest);

  // Appends the first `rows` tokens of a block. Must hold: rows <= block.tokens, and only the last
  // block has fewer than 64.
  void Append(const KvBlock& block, uint32_t rows);
  // Appends tokens whose block is lost. They get the mean key of the segment's other tokens, which
  // by convexity of exp draws no more attention mass than they do on average: zeros would draw much
  // where all other logits are negative.
  void AppendLost(uint32_t rows);
  void Clear();
  // What was appended, as bytes, and back from them: what comes next is as if it had never been
  // away. Nothing may be lost in it. Restore is data_loss where the bytes are not those of so many
  // tokens.
  std::string Save() const;
  Status Restore(std::string_view bytes, uint64_t tokens);

  // The segment over what was appended, which begins at token `begin` of the document; null without
  // heads.
  std::shared_ptr<const ScanSegment> Build(DocumentId document, uint64_t begin) const;

 private:
  uint32_t head_dim_;
  std::vector<uint32_t> slots_;           // [heads] place of the head's layer in a block
  std::vector<uint32_t> kv_heads_;        // [heads]
  std::vector<std::vector<float>> keys_;  // [heads] of [tokens, head_dim]
  std::vector<TokenSpan> lost_;
  uint64_t tokens_ = 0;
};

}  // namespace longhold
