// Encodes the keys and values of one block as bytes: 64 tokens, all tapped layers, in
// one self-describing value.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"

namespace longhold {

// Shape of a block's keys and values. Value type.
struct BlockShape {
  uint32_t layers = 0;
  uint32_t kv_width = 0;  // kv_heads * head_dim
  // Elements of a full block.
  size_t Elements() const { return size_t{layers} * 2 * kBlockTokens * kv_width; }
  friend bool operator==(const BlockShape&, const BlockShape&) = default;
};

// Keys (un-rotated) and values of up to 64 tokens in fp16 (IEEE binary16). Value type;
// owns its data.
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

// Encodes and decodes blocks. Implementations are *immutable* and stateless.
//
// docs/formats/block.md specifies the format: a header (magic, version, codec id, shape, tokens),
// the payload, and the XXH3-64 of everything before it.
class BlockCodec {
 public:
  virtual ~BlockCodec() = default;
  virtual std::string_view name() const = 0;  // "exact"

  // Must hold: block.tokens is in 1..64, and block.data has the size of block.shape.
  std::string Encode(const KvBlock& block) const;
  // Errors: data_loss for a wrong magic, version, checksum or length, another codec, or a
  // shape other than `expected`. Never crashes on hostile bytes, and never allocates more
  // than `expected` needs.
  Result<KvBlock> Decode(std::string_view bytes, const BlockShape& expected) const;

 private:
  friend Result<KvBlock> DecodeBlock(std::string_view bytes, const BlockShape& expected,
                                     const BlockCodec* own);
  virtual uint16_t id() const = 0;  // identifies the payload's format
  virtual void AppendPayload(const KvBlock& block, std::string* out) const = 0;
  // Fills in the payload's keys and values. `block` has its shape and tokens set; its
  // data is zeros.
  virtual Status ReadPayload(std::string_view payload, KvBlock* block) const = 0;
};

// Lossless: stores fp16 unchanged. Only the used rows are stored.
const BlockCodec& ExactCodec();

// Rounds keys and values to multiples of a step, and entropy-codes the multiples.
// docs/formats/block.md, codec 2, specifies the format; docs/decisions/0015 gives the reasons.
//
// A layer's keys (values) in 64 neighbouring channels share one step. The step is `key_step`
// (`value_step`) times the root-mean-square deviation of a typical token's keys (values) from
// the block's mean.
//
// Error: no finite number moves by more than half a step plus half a unit in its own last place.
// Infinities and NaNs are stored unchanged.
struct RoundedCodecOptions {
  float key_step = 0.125f;
  float value_step = 0.25f;
};
std::unique_ptr<const BlockCodec> NewRoundedCodec(std::string name,
                                                  const RoundedCodecOptions& options);

// The codec of that name, or null. It lives as long as the process.
//   exact  16 bits per element
//   k5v4   steps of 0.125 (keys) and 0.25 (values): about 5 and 4 bits per element
//   k4v4   steps of 0.25 (keys) and 0.33 (values): about 4 bits per element
// `archive`, about 1.6 bits per element, is not found here, because each memory has its own basis
// for it (store/transform_codec.h).
const BlockCodec* FindCodec(std::string_view name);
// The names that a memory's codec may have: those that FindCodec knows, and `archive`.
std::vector<std::string_view> CodecNames();
bool IsCodecName(std::string_view name);
std::string CodecList();  // the names for messages: "exact, k5v4, ..."
// The codec of new memories. docs/figures.md, "Codecs", has its cost.
inline constexpr std::string_view kDefaultCodec = "k5v4";

// The result of re-encoding a memory's blocks. Value type.
struct RecodeReport {
  uint64_t blocks = 0;        // in complete documents, without the blocks of the sinks
  uint64_t blocks_coded = 0;  // re-encoded by this call
  uint64_t blocks_lost = 0;   // unreadable
};

// Decodes a block of any of these codecs, or of `own`, the memory's own codec, if it has one.
// Errors: as BlockCodec::Decode.
Result<KvBlock> DecodeBlock(std::string_view bytes, const BlockShape& expected,
                            const BlockCodec* own = nullptr);

}  // namespace longhold
