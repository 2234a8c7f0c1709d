#include "store/block_codec.h"

#include <bit>
#include <cstring>

#include "base/hash.h"

namespace longhold {
namespace {

// docs/formats/block.md has the layout. Numbers are little-endian, and so is every machine we build for.
static_assert(std::endian::native == std::endian::little);

constexpr char kMagic[4] = {'L', 'H', 'K', 'V'};
constexpr uint16_t kVersion = 1;
constexpr uint16_t kCodecExact = 1;
constexpr size_t kHeaderBytes = 32;
constexpr size_t kHeaderBytesMax = 4096;
constexpr size_t kChecksumBytes = 8;

template <typename T>
void Store(std::string* out, size_t offset, T value) {
  std::memcpy(out->data() + offset, &value, sizeof(value));
}

template <typename T>
T Load(std::string_view in, size_t offset) {
  T value;
  std::memcpy(&value, in.data() + offset, sizeof(value));
  return value;
}

size_t BlockElements(const BlockShape& shape) { return size_t{shape.layers} * 2 * kBlockTokens * shape.kv_width; }

class ExactBlockCodec final : public BlockCodec {
 public:
  std::string_view name() const override { return "exact"; }

  std::string Encode(const KvBlock& block) const override {
    LH_CHECK(block.tokens >= 1 && block.tokens <= kBlockTokens);
    LH_CHECK(block.data.size() == BlockElements(block.shape));
    const size_t rows_bytes = size_t{block.tokens} * block.shape.kv_width * sizeof(uint16_t);
    const size_t payload_bytes = size_t{block.shape.layers} * 2 * rows_bytes;

    std::string out;
    out.reserve(kHeaderBytes + payload_bytes + kChecksumBytes);
    out.resize(kHeaderBytes);
    std::memcpy(out.data(), kMagic, sizeof(kMagic));
    Store(&out, 4, kVersion);
    Store(&out, 6, static_cast<uint16_t>(kHeaderBytes));
    Store(&out, 8, kCodecExact);
    Store(&out, 10, uint16_t{0});
    Store(&out, 12, block.shape.layers);
    Store(&out, 16, block.shape.kv_width);
    Store(&out, 20, block.tokens);
    Store(&out, 24, static_cast<uint64_t>(payload_bytes));
    for (uint32_t layer = 0; layer < block.shape.layers; ++layer) {
      out.append(reinterpret_cast<const char*>(block.Keys(layer)), rows_bytes);
      out.append(reinterpret_cast<const char*>(block.Values(layer)), rows_bytes);
    }
    const uint64_t checksum = Hash64(out);
    out.append(reinterpret_cast<const char*>(&checksum), sizeof(checksum));
    return out;
  }

  Result<KvBlock> Decode(std::string_view bytes, const BlockShape& expected) const override {
    if (bytes.size() < kHeaderBytes + kChecksumBytes) {
      return DataLoss("decode block: " + std::to_string(bytes.size()) + " bytes are shorter than any block");
    }
    if (std::memcmp(bytes.data(), kMagic, sizeof(kMagic)) != 0) return DataLoss("decode block: wrong magic");
    const std::string_view body = bytes.substr(0, bytes.size() - kChecksumBytes);
    if (Hash64(body) != Load<uint64_t>(bytes, body.size())) return DataLoss("decode block: checksum mismatch");

    // From here on the bytes are what some writer wrote; it may be a newer, a broken or a hostile one.
    if (const auto version = Load<uint16_t>(body, 4); version != kVersion) {
      return DataLoss("decode block: version " + std::to_string(version) + ", this build reads 1");
    }
    const size_t header_bytes = Load<uint16_t>(body, 6);
    if (header_bytes < kHeaderBytes || header_bytes > kHeaderBytesMax || header_bytes > body.size()) {
      return DataLoss("decode block: header of " + std::to_string(header_bytes) + " bytes");
    }
    if (const auto codec = Load<uint16_t>(body, 8); codec != kCodecExact) {
      return DataLoss("decode block: codec " + std::to_string(codec) + ", expected 1 (exact)");
    }
    if (Load<uint16_t>(body, 10) != 0) return DataLoss("decode block: unknown flags");
    const BlockShape shape{.layers = Load<uint32_t>(body, 12), .kv_width = Load<uint32_t>(body, 16)};
    if (!(shape == expected)) {
      return DataLoss("decode block: shape " + std::to_string(shape.layers) + " x " + std::to_string(shape.kv_width) +
                      ", expected " + std::to_string(expected.layers) + " x " + std::to_string(expected.kv_width));
    }
    const auto tokens = Load<uint32_t>(body, 20);
    if (tokens < 1 || tokens > kBlockTokens) return DataLoss("decode block: " + std::to_string(tokens) + " tokens");
    const size_t rows_bytes = size_t{tokens} * shape.kv_width * sizeof(uint16_t);
    const size_t payload_bytes = size_t{shape.layers} * 2 * rows_bytes;
    if (Load<uint64_t>(body, 24) != payload_bytes || body.size() - header_bytes != payload_bytes) {
      return DataLoss("decode block: payload of " + std::to_string(body.size() - header_bytes) + " bytes, expected " +
                      std::to_string(payload_bytes));
    }

    KvBlock block = KvBlock::Empty(shape);
    block.tokens = tokens;
    if (rows_bytes == 0) return block;  // nothing to copy, and no data() to copy it to
    const char* rows = body.data() + header_bytes;
    for (uint32_t layer = 0; layer < shape.layers; ++layer, rows += 2 * rows_bytes) {
      std::memcpy(block.Keys(layer), rows, rows_bytes);
      std::memcpy(block.Values(layer), rows + rows_bytes, rows_bytes);
    }
    return block;
  }
};

}  // namespace

KvBlock KvBlock::Empty(const BlockShape& shape) {
  KvBlock block;
  block.shape = shape;
  block.data.assign(BlockElements(shape), 0);
  return block;
}

const BlockCodec& ExactCodec() {
  static const ExactBlockCodec codec;
  return codec;
}

}  // namespace longhold
