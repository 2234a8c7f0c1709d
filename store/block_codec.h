// A block's keys and values as bytes: 64 tokens, all tapped layers, in one self-describing value.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"

namespace longhold {

// Shape of a block's numbers. Value type.
struct BlockShape {
  uint32_t layers = 0;
  uint32_t kv_width = 0;  // kv_heads * head_dim
  friend bool operator==(const BlockShape&, const BlockShape&) = default;
};

// Keys (un-rotated) and values of up to 64 tokens as IEEE halves. Value type; owns its numbers.
//   data: [layers, 2 (K, V), 64, kv_width]; rows past `tokens` are zero.
struct KvBlock {
  BlockShape shape;
  uint32_t tokens = 0;  // 1..64
  std::vector<uint16_t> data;

  static KvBlock Empty(const BlockShape& shape);
  uint16_t* Keys(uint32_t layer) { return data.data() + size_t{layer} * 2 * kBlockTokens * shape.kv_width; }
  uint16_t* Values(uint32_t layer) { return Keys(layer) + size_t{kBlockTokens} * shape.kv_width; }
  const uint16_t* Keys(uint32_t layer) const { return const_cast<KvBlock*>(this)->Keys(layer); }
  const uint16_t* Values(uint32_t layer) const { return const_cast<KvBlock*>(this)->Values(layer); }
};

// Encodes and decodes blocks. Implementations are *immutable* and stateless. The format is docs/formats/block.md:
// header (magic, version, codec id, shape, tokens), payload, XXH3-64 of everything before.
class BlockCodec {
 public:
  virtual ~BlockCodec() = default;
  virtual std::string_view name() const = 0;  // "exact"
  virtual std::string Encode(const KvBlock& block) const = 0;
  // Errors: data_loss for wrong magic, version, checksum, length or a shape other than `expected`. Never crashes on
  // hostile bytes and never allocates more than `expected` needs.
  virtual Result<KvBlock> Decode(std::string_view bytes, const BlockShape& expected) const = 0;
};

// Sixteen-bit, lossless: the numbers as they are; only the used rows are stored.
const BlockCodec& ExactCodec();

}  // namespace longhold
