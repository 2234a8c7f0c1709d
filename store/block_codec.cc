#include "store/block_codec.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/hash.h"
#include "store/transform_codec.h"

namespace longhold {
namespace {

// docs/formats/block.md specifies the layout. Integers are little-endian, as on every machine that
// we build for.
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

// The header fields and payload of a value, after the checksum was verified.
struct Frame {
  uint16_t codec = 0;
  uint32_t tokens = 0;
  std::string_view payload;
};

Result<Frame> OpenFrame(std::string_view bytes, const BlockShape& expected) {
  if (bytes.size() < kHeaderBytes + kChecksumBytes) {
    return DataLoss("decode block: " + std::to_string(bytes.size()) +
                    " bytes are too few for a block");
  }
  if (std::memcmp(bytes.data(), kMagic, sizeof(kMagic)) != 0)
    return DataLoss("decode block: wrong magic");
  const std::string_view body = bytes.substr(0, bytes.size() - kChecksumBytes);
  if (Hash64(body) != Load<uint64_t>(bytes, body.size()))
    return DataLoss("decode block: checksum mismatch");

  // From here on, the bytes are what some writer wrote. That writer may be newer, buggy or hostile.
  if (const auto version = Load<uint16_t>(body, 4); version != kVersion) {
    return DataLoss("decode block: version " + std::to_string(version) +
                    "; this build reads version 1");
  }
  const size_t header_bytes = Load<uint16_t>(body, 6);
  if (header_bytes < kHeaderBytes || header_bytes > kHeaderBytesMax || header_bytes > body.size()) {
    return DataLoss("decode block: invalid header size of " + std::to_string(header_bytes) +
                    " bytes");
  }
  if (Load<uint16_t>(body, 10) != 0) return DataLoss("decode block: unknown flags");
  const BlockShape shape{.layers = Load<uint32_t>(body, 12), .kv_width = Load<uint32_t>(body, 16)};
  if (!(shape == expected)) {
    return DataLoss("decode block: shape " + std::to_string(shape.layers) + " x " +
                    std::to_string(shape.kv_width) + ", expected " +
                    std::to_string(expected.layers) + " x " + std::to_string(expected.kv_width));
  }
  Frame frame;
  frame.codec = Load<uint16_t>(body, 8);
  frame.tokens = Load<uint32_t>(body, 20);
  if (frame.tokens < 1 || frame.tokens > kBlockTokens) {
    return DataLoss("decode block: invalid token count " + std::to_string(frame.tokens));
  }
  frame.payload = body.substr(header_bytes);
  if (Load<uint64_t>(body, 24) != frame.payload.size()) {
    return DataLoss("decode block: payload of " + std::to_string(frame.payload.size()) +
                    " bytes, the header says " + std::to_string(Load<uint64_t>(body, 24)));
  }
  return frame;
}

class ExactBlockCodec final : public BlockCodec {
 public:
  std::string_view name() const override { return "exact"; }

 private:
  uint16_t id() const override { return kCodecExact; }

  static size_t RowsBytes(const KvBlock& block) {
    return size_t{block.tokens} * block.shape.kv_width * sizeof(uint16_t);
  }

  void AppendPayload(const KvBlock& block, std::string* out) const override {
    const size_t rows_bytes = RowsBytes(block);
    out->reserve(out->size() + size_t{block.shape.layers} * 2 * rows_bytes + kChecksumBytes);
    for (uint32_t layer = 0; layer < block.shape.layers; ++layer) {
      out->append(reinterpret_cast<const char*>(block.Keys(layer)), rows_bytes);
      out->append(reinterpret_cast<const char*>(block.Values(layer)), rows_bytes);
    }
  }

  Status ReadPayload(std::string_view payload, KvBlock* block) const override {
    const size_t rows_bytes = RowsBytes(*block);
    if (payload.size() != size_t{block->shape.layers} * 2 * rows_bytes) {
      return DataLoss("decode block: payload of " + std::to_string(payload.size()) +
                      " bytes, expected " +
                      std::to_string(size_t{block->shape.layers} * 2 * rows_bytes));
    }
    if (rows_bytes == 0) return OkStatus();  // kv_width is 0: data() may be null
    const char* rows = payload.data();
    for (uint32_t layer = 0; layer < block->shape.layers; ++layer, rows += 2 * rows_bytes) {
      std::memcpy(block->Keys(layer), rows, rows_bytes);
      std::memcpy(block->Values(layer), rows + rows_bytes, rows_bytes);
    }
    return OkStatus();
  }
};

// Every codec that has a name, the exact one first. If several codecs share a format, the first one
// decodes for all of them.
const std::vector<const BlockCodec*>& Codecs() {
  static const auto k5v4 = NewRoundedCodec("k5v4", {}),
                    k4v4 = NewRoundedCodec("k4v4", {.key_step = 0.25f, .value_step = 0.33f});
  static const std::vector<const BlockCodec*> codecs = {&ExactCodec(), k5v4.get(), k4v4.get()};
  return codecs;
}

}  // namespace

KvBlock KvBlock::Empty(const BlockShape& shape) {
  KvBlock block;
  block.shape = shape;
  block.data.assign(shape.Elements(), 0);
  return block;
}

std::string BlockCodec::Encode(const KvBlock& block) const {
  LH_CHECK(block.tokens >= 1 && block.tokens <= kBlockTokens);
  LH_CHECK(block.data.size() == block.shape.Elements());
  std::string out(kHeaderBytes, '\0');
  std::memcpy(out.data(), kMagic, sizeof(kMagic));
  Store(&out, 4, kVersion);
  Store(&out, 6, static_cast<uint16_t>(kHeaderBytes));
  Store(&out, 8, id());
  Store(&out, 10, uint16_t{0});
  Store(&out, 12, block.shape.layers);
  Store(&out, 16, block.shape.kv_width);
  Store(&out, 20, block.tokens);
  AppendPayload(block, &out);
  Store(&out, 24, static_cast<uint64_t>(out.size() - kHeaderBytes));
  const uint64_t checksum = Hash64(out);
  out.append(reinterpret_cast<const char*>(&checksum), sizeof(checksum));
  return out;
}

Result<KvBlock> BlockCodec::Decode(std::string_view bytes, const BlockShape& expected) const {
  LH_ASSIGN_OR_RETURN(const Frame frame, OpenFrame(bytes, expected));
  if (frame.codec != id()) {
    return DataLoss("decode block: codec " + std::to_string(frame.codec) + ", expected " +
                    std::to_string(id()) + " (" + std::string(name()) + ")");
  }
  KvBlock block = KvBlock::Empty(expected);
  block.tokens = frame.tokens;
  LH_RETURN_IF_ERROR(ReadPayload(frame.payload, &block));
  return block;
}

const BlockCodec& ExactCodec() {
  static const ExactBlockCodec codec;
  return codec;
}

const BlockCodec* FindCodec(std::string_view name) {
  for (const BlockCodec* codec : Codecs()) {
    if (codec->name() == name) return codec;
  }
  return nullptr;
}

std::vector<std::string_view> CodecNames() {
  std::vector<std::string_view> names;
  for (const BlockCodec* codec : Codecs()) names.push_back(codec->name());
  names.push_back(kArchiveCodec);
  return names;
}

bool IsCodecName(std::string_view name) {
  const std::vector<std::string_view> names = CodecNames();
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string CodecList() {
  std::string list;
  for (const std::string_view name : CodecNames())
    list += (list.empty() ? "" : ", ") + std::string(name);
  return list;
}

Result<KvBlock> DecodeBlock(std::string_view bytes, const BlockShape& expected,
                            const BlockCodec* own) {
  // Reads the codec id without checking the frame. The chosen codec then checks everything.
  const uint16_t id = bytes.size() >= kHeaderBytes ? Load<uint16_t>(bytes, 8) : kCodecExact;
  if (own != nullptr && own->id() == id) return own->Decode(bytes, expected);
  for (const BlockCodec* codec : Codecs()) {
    if (codec->id() == id) return codec->Decode(bytes, expected);
  }
  LH_ASSIGN_OR_RETURN(const Frame frame, OpenFrame(bytes, expected));
  return DataLoss("decode block: codec " + std::to_string(frame.codec) +
                  (frame.codec == kCodecTransform
                       ? ", whose basis is damaged or missing"
                       : ", which this version of longhold does not support"));
}

}  // namespace longhold
