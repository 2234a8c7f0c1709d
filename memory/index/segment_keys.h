// Collects the recall heads' attention keys of one index segment's tokens from blocks, and builds
// the scan segment from them.
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

// Owner: the ingest or rebuild of a segment. Thread use: *confined*. Memory: 4 bytes * heads *
// head_dim per token, for kCommitTokens tokens.
class SegmentKeys {
 public:
  // Uses the heads of `manifest`. Must hold: blocks have the layers of these heads.
  explicit SegmentKeys(const Manifest& manifest);

  // Appends the first `rows` tokens of a block. Must hold: rows <= block.tokens, and only the last
  // block has fewer than 64.
  void Append(const KvBlock& block, uint32_t rows);
  // Appends tokens whose block cannot be read. Their key is the mean key of the segment's other
  // tokens. Because exp is convex, it gets at most the average attention mass. (A zero key would
  // get much where all other logits are negative.)
  void AppendLost(uint32_t rows);
  void Clear();
  // Save returns the appended keys as bytes; Restore continues from them with the same result. Must
  // hold for Save: no AppendLost. Errors of Restore: data_loss when the bytes are not those of
  // `tokens` tokens.
  std::string Save() const;
  Status Restore(std::string_view bytes, uint64_t tokens);

  // The segment of the appended tokens, the first of which is token `begin` of the document. Null
  // without heads.
  std::shared_ptr<const ScanSegment> Build(DocumentId document, uint64_t begin) const;

 private:
  uint32_t head_dim_;
  std::vector<uint32_t> slots_;           // [heads] index of the head's layer in a block
  std::vector<uint32_t> kv_heads_;        // [heads]
  std::vector<std::vector<float>> keys_;  // [heads] of [tokens, head_dim]
  std::vector<TokenSpan> lost_;
  uint64_t tokens_ = 0;
};

}  // namespace longhold
