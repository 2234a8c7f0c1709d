// Blocks and the archive codec's basis, from hostile bytes. The first byte selects the kind of
// input:
//   0  a block. Its checksum and payload length are made valid. If it names codec 3, it is read
//   with a basis made here.
//   1  the parts of a rounded block. Each is a two-byte length and its bytes. The harness
//   compresses them, so that libFuzzer can change what zstd would hide.
//   2  the parts of an archive block, also with lengths, in a basis made here
//   3  a basis. Its checksum is made valid; a block is coded in it and read back.
//   4  coded symbols
// Decoded values must be safe to use: the harness encodes them with every codec and reads them
// back. It also builds an index segment and summaries from their keys.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "attention/kernels.h"
#include "attention/rope.h"
#include "base/half.h"
#include "memory/index/segment_keys.h"
#include "memory/index/summaries.h"
#include "store/block_codec.h"
#include "store/compress.h"
#include "store/symbol_coder.h"
#include "store/transform_codec.h"
#include "tests/fuzz/fuzz_bytes.h"
#include "tests/fuzz/fuzz_shape.h"
#include "tests/fuzz/mend.h"

namespace longhold {
namespace {

void Multiply(const float* a, const float* b, float* out, uint32_t rows, uint32_t depth,
              uint32_t columns) {
  Kernels().multiply_add(
      {.a = a, .b = b, .out = out, .rows = rows, .depth = depth, .columns = columns});
}

struct Archive {
  std::shared_ptr<const TransformBasis> basis;
  std::unique_ptr<const BlockCodec> codec;
};

Archive ArchiveOf(TransformBasis basis) {
  Archive archive{std::make_shared<const TransformBasis>(std::move(basis)), nullptr};
  archive.codec = NewTransformCodec(std::string(kArchiveCodec), archive.basis, Multiply);
  return archive;
}

const Archive& Own() {
  static const Archive archive =
      ArchiveOf(*TransformBasis::Decode(FuzzBasis(Multiply).Encode(), FuzzShape()));
  return archive;
}

void Use(const Result<KvBlock>& block) {
  ExpectRefusal(block);
  if (!block.ok()) return;
  LH_CHECK(block->shape == FuzzShape() && block->tokens >= 1 && block->tokens <= kBlockTokens &&
           block->data.size() == block->shape.Elements());
  const std::vector<const BlockCodec*> codecs = {&ExactCodec(), FindCodec("k5v4"),
                                                 FindCodec("k4v4"), Own().codec.get()};
  for (const BlockCodec* codec : codecs) {
    const Result<KvBlock> again =
        DecodeBlock(codec->Encode(*block), FuzzShape(), Own().codec.get());
    LH_CHECK(again.ok() && again->tokens == block->tokens);
    if (codec == codecs[0]) {
      for (uint32_t layer = 0; layer < block->shape.layers; ++layer) {
        LH_CHECK(std::equal(block->Keys(layer),
                            block->Keys(layer) + size_t{block->tokens} * block->shape.kv_width,
                            again->Keys(layer)));
      }
    }
  }
  SegmentKeys keys(FuzzManifest());
  keys.Append(*block, block->tokens);
  const std::shared_ptr<const ScanSegment> segment = keys.Build(DocumentId{1}, 0);
  LH_CHECK(ScanSegment::Decode(segment->Encode()).ok());
  const KvGeometry geometry = FuzzGeometry();
  SummarySegment summaries = SummarySegment::Of(DocumentId{1}, 0, geometry);
  summaries.Append(*block, block->tokens, RopeTables(geometry, kBlockTokens));
  LH_CHECK(SummarySegment::Decode(summaries.Encode()).ok());
}

// Length-prefixed parts, [parts].
std::vector<std::string> Parts(FuzzBytes* input, size_t count) {
  std::vector<std::string> parts;
  for (size_t p = 0; p < count; ++p) {
    const auto length = input->Take<uint16_t>();
    parts.push_back(input->Take(length));
  }
  return parts;
}

std::string Framed(uint16_t codec, uint32_t tokens, const std::string& payload) {
  KvBlock block = KvBlock::Empty(FuzzShape());
  block.tokens = 1;
  std::string bytes = ExactCodec().Encode(block).substr(0, 32);
  std::memcpy(bytes.data() + 8, &codec, sizeof codec);
  std::memcpy(bytes.data() + 20, &tokens, sizeof tokens);
  bytes += payload + std::string(8, '\0');
  MendBlock(&bytes, Own().basis->id());
  return bytes;
}

std::string Lengths(const std::vector<std::string>& parts) {
  std::string lengths;
  for (const std::string& part : parts) {
    const auto length = static_cast<uint32_t>(part.size());
    lengths.append(reinterpret_cast<const char*>(&length), sizeof length);
  }
  return lengths;
}

std::string Joined(const std::vector<std::string>& parts) {
  std::string all;
  for (const std::string& part : parts) all += part;
  return all;
}

void UseRounded(FuzzBytes input) {
  const uint32_t tokens = input.Take<uint8_t>();
  const uint32_t count = input.Take<uint8_t>() % 24;
  std::vector<std::string> parts = Parts(&input, count);
  for (std::string& part : parts) part = Compress(part);
  Use(DecodeBlock(Framed(2, tokens,
                         std::string(reinterpret_cast<const char*>(&count), sizeof count) +
                             Lengths(parts) + Joined(parts)),
                  FuzzShape()));
}

void UseTransformed(FuzzBytes input) {
  const uint32_t tokens = input.Take<uint8_t>();
  const std::vector<std::string> parts = Parts(&input, 2 + TransformBasis::kClasses);
  Use(DecodeBlock(
      Framed(kCodecTransform, tokens, std::string(8, '\0') + Lengths(parts) + Joined(parts)),
      FuzzShape(), Own().codec.get()));
}

void UseBasis(std::string bytes) {
  MendTail(&bytes);
  Result<TransformBasis> basis = TransformBasis::Decode(bytes, FuzzShape());
  ExpectRefusal(basis);
  if (!basis.ok()) return;
  LH_CHECK(basis->Encode() == bytes);
  const Archive archive = ArchiveOf(std::move(*basis));
  for (const uint32_t tokens : {1u, kBlockTokens}) {
    const std::string coded = archive.codec->Encode(FuzzBlock(tokens, tokens));
    const Result<KvBlock> block = DecodeBlock(coded, FuzzShape(), archive.codec.get());
    LH_CHECK(block.ok());
    Use(block);
  }
}

void UseSymbols(FuzzBytes input) {
  std::vector<uint8_t> symbols(input.Take<uint16_t>() % 4096);
  if (!DecodeSymbols(input.rest(), symbols).ok() || symbols.empty()) return;
  std::string coded;
  EncodeSymbols(symbols, &coded);
  std::vector<uint8_t> again(symbols.size());
  LH_CHECK(DecodeSymbols(coded, again).ok() && again == symbols);
}

void Run(FuzzBytes input) {
  switch (input.Take<uint8_t>() % 5) {
    case 0: {
      std::string bytes(input.rest());
      (void)DecodeBlock(bytes, FuzzShape(), Own().codec.get());
      MendBlock(&bytes, Own().basis->id());
      return Use(DecodeBlock(bytes, FuzzShape(), Own().codec.get()));
    }
    case 1: return UseRounded(input);
    case 2: return UseTransformed(input);
    case 3: return UseBasis(std::string(input.rest()));
    default: return UseSymbols(input);
  }
}

}  // namespace
}  // namespace longhold

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  longhold::Run({data, size});
  return 0;
}
