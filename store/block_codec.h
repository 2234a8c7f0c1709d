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
  // of a whole block
  size_t Elements() const { return size_t{layers} * 2 * kBlockTokens * kv_width; }
  friend bool operator==(const BlockShape&, const BlockShape&) = default;
};

// Keys (un-rotated) and values of up to 64 tokens as IEEE halves. Value type; owns its numbers.
//   data: [layers, 2 (K, V), 64, kv_width]; rows past `tokens` are zero.
struct KvBlock {
  BlockShape shape;
  uint32_t tokens = 0;  // 1..64
  std::vector<uint16_t> data;

  static KvBlock Empty(const BlockShape& shape);
  uint16_t* Keys(uint32_t layer) {
    return data.data() + size_t{layer} * 2 * kBlockTokens * shape.kv_width;
  }
  uint16_t* Values(uint32_t layer) { return Keys(layer) + size_t{kBlockTokens} * shape.kv_width; }
  const uint16_t* Keys(uint32_t layer) const { return const_cast<KvBlock*>(this)->Keys(layer); }
  const uint16_t* Values(uint32_t layer) const { return const_cast<KvBlock*>(this)->Values(layer); }
};

// Encodes and decodes blocks. Implementations are *immutable* and stateless. The format is
// docs/formats/block.md: header (magic, version, codec id, shape, tokens), payload, XXH3-64 of
// everything before.
class BlockCodec {
 public:
  virtual ~BlockCodec() = default;
  virtual std::string_view name() const = 0;  // "exact"

  // Must hold: block.tokens is in 1..64 and its data has its shape.
  std::string Encode(const KvBlock& block) const;
  // Errors: data_loss for wrong magic, version, checksum, length, another codec, or a shape other
  // than `expected`. Never crashes on hostile bytes and never allocates more than `expected` needs.
  Result<KvBlock> Decode(std::string_view bytes, const BlockShape& expected) const;

 private:
  friend Result<KvBlock> DecodeBlock(std::string_view bytes, const BlockShape& expected,
                                     const BlockCodec* own);
  virtual uint16_t id() const = 0;  // of the format of the payload
  virtual void AppendPayload(const KvBlock& block, std::string* out) const = 0;
  // `block` has shape and tokens, and zeros, which the payload's numbers replace.
  virtual Status ReadPayload(std::string_view payload, KvBlock* block) const = 0;
};

// Sixteen-bit, lossless: the numbers as they are; only the used rows are stored.
const BlockCodec& ExactCodec();

// Keys and values rounded to a step and coded by how often each multiple of it occurs
// (docs/formats/block.md, codec 2; why this way: docs/decisions/0015). The step is the share
// `key_step` or `value_step` of what a token's keys or values deviate, in the root mean square,
// from the block's mean; one step for a layer's keys (values) in 64 neighbouring channels. Error:
// no finite number moves by more than half of its step and half a unit in its own last place;
// infinities and NaNs stay what they are.
struct RoundedCodecOptions {
  float key_step = 0.125f;
  float value_step = 0.25f;
};
std::unique_ptr<const BlockCodec> NewRoundedCodec(std::string name,
                                                  const RoundedCodecOptions& options);

// The codec of that name, or null. It lives as long as the process.
//   exact  16 bits
//   k5v4   steps of 0.125 and 0.25: some 5 and 4 bits a number
//   k4v4   steps of 0.25 and 0.33: some 4 bits a number, keys and values
// `archive`, some 1.6 bits a number, is none of them: it belongs to a memory
// (store/transform_codec.h).
const BlockCodec* FindCodec(std::string_view name);
// What a memory's codec can be: the names that FindCodec knows, and `archive`.
std::vector<std::string_view> CodecNames();
bool IsCodecName(std::string_view name);
std::string CodecList();  // the same for people: "exact, k5v4, ..."
// Of new memories. docs/figures.md, "Codecs", has what it costs.
inline constexpr std::string_view kDefaultCodec = "k5v4";

// What became of a memory's blocks when they were coded anew. Value type.
struct RecodeReport {
  uint64_t blocks = 0;        // of complete documents, without the sinks'
  uint64_t blocks_coded = 0;  // by this call
  uint64_t blocks_lost = 0;   // unreadable
};

// Decodes what any of them wrote, or `own`, a codec of the memory's, where there is one. Errors:
// those of BlockCodec::Decode.
Result<KvBlock> DecodeBlock(std::string_view bytes, const BlockShape& expected,
                            const BlockCodec* own = nullptr);

}  // namespace longhold
