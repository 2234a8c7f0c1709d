// The exact codec: round trips (decoded equals encoded, bit for bit: no tolerance); damage
// (truncation and a flipped bit at every byte of a small block); hostile headers under a right
// checksum; and the golden file of format version 1, which every later build must read.
#include "store/block_codec.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstring>
#include <fstream>
#include <iterator>

#include "base/hash.h"

namespace longhold {
namespace {

// Any bit pattern may occur, NaNs too.
KvBlock MakeBlock(const BlockShape& shape, uint32_t tokens) {
  KvBlock block = KvBlock::Empty(shape);
  block.tokens = tokens;
  uint32_t state = 12345;
  for (uint32_t layer = 0; layer < shape.layers; ++layer) {
    for (uint16_t* rows : {block.Keys(layer), block.Values(layer)}) {
      for (size_t i = 0; i < size_t{tokens} * shape.kv_width; ++i) {
        state = state * 1664525 + 1013904223;
        rows[i] = static_cast<uint16_t>(state >> 16);
      }
    }
  }
  return block;
}

constexpr BlockShape kSmall{.layers = 2, .kv_width = 3};

std::string Resealed(std::string bytes) {
  const uint64_t checksum = Hash64(std::string_view(bytes).substr(0, bytes.size() - 8));
  std::memcpy(bytes.data() + bytes.size() - 8, &checksum, 8);
  return bytes;
}

template <typename T>
std::string WithField(std::string bytes, size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(value));
  return Resealed(std::move(bytes));
}

void ExpectDataLoss(const std::string& bytes, const BlockShape& expected, const std::string& what) {
  const auto block = ExactCodec().Decode(bytes, expected);
  ASSERT_FALSE(block.ok()) << what;
  EXPECT_EQ(block.status().code(), StatusCode::kDataLoss) << what;
}

TEST(ExactCodec, RoundTripsEveryBit) {
  const BlockShape shapes[] = {{1, 1}, {2, 3}, {30, 192}, {18, 256}, {3, 33}};
  for (const auto& shape : shapes) {
    for (uint32_t tokens : {1u, 2u, 31u, 63u, 64u}) {
      const KvBlock block = MakeBlock(shape, tokens);
      const auto decoded = ExactCodec().Decode(ExactCodec().Encode(block), shape);
      ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
      EXPECT_EQ(decoded->tokens, tokens);
      EXPECT_TRUE(decoded->shape == shape);
      EXPECT_TRUE(decoded->data == block.data)
          << shape.layers << " x " << shape.kv_width << ", " << tokens;
    }
  }
}

TEST(ExactCodec, ReadsUnalignedBytes) {
  const KvBlock block = MakeBlock(kSmall, 64);
  const std::string shifted = "x" + ExactCodec().Encode(block);
  const auto decoded = ExactCodec().Decode(std::string_view(shifted).substr(1), kSmall);
  ASSERT_TRUE(decoded.ok());
  EXPECT_TRUE(decoded->data == block.data);
}

TEST(ExactCodec, StoresOnlyUsedRows) {
  EXPECT_EQ(ExactCodec().Encode(MakeBlock(kSmall, 5)).size(), 32u + 2 * 2 * 5 * 3 * 2 + 8);
  EXPECT_EQ(ExactCodec().Encode(MakeBlock({30, 192}, 64)).size(), 32u + 1474560 + 8);
  KvBlock dirty = MakeBlock(kSmall, 5);
  dirty.Keys(0)[5 * 3] = 7;  // a row beyond `tokens`
  EXPECT_EQ(ExactCodec().Encode(dirty), ExactCodec().Encode(MakeBlock(kSmall, 5)));
}

TEST(ExactCodec, DetectsTruncationAtEveryByte) {
  const std::string bytes = ExactCodec().Encode(MakeBlock(kSmall, 5));
  for (size_t size = 0; size < bytes.size(); ++size) {
    ExpectDataLoss(bytes.substr(0, size), kSmall, "cut to " + std::to_string(size));
  }
  ExpectDataLoss(bytes + '\0', kSmall, "one byte more");
  ExpectDataLoss(Resealed(bytes + std::string(8, '\0')), kSmall, "eight bytes more");
}

TEST(ExactCodec, DetectsAFlippedBitAnywhere) {
  std::string bytes = ExactCodec().Encode(MakeBlock(kSmall, 5));
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    ExpectDataLoss(bytes, kSmall, "bit " + std::to_string(bit));
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
  }
}

TEST(ExactCodec, RefusesHostileHeadersWithoutAllocating) {
  const std::string bytes = ExactCodec().Encode(MakeBlock(kSmall, 5));
  rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  for (uint32_t evil : {0u, 1u, 65u, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
    ExpectDataLoss(WithField(bytes, 12, evil), kSmall, "layers " + std::to_string(evil));
    ExpectDataLoss(WithField(bytes, 16, evil), kSmall, "kv_width " + std::to_string(evil));
    ExpectDataLoss(WithField(bytes, 20, evil), kSmall, "tokens " + std::to_string(evil));
    ExpectDataLoss(WithField(bytes, 24, uint64_t{evil} << 32 | evil), kSmall,
                   "payload " + std::to_string(evil));
  }
  for (uint16_t evil : {0, 8, 31, 33, 40, 153, 4096, 65535}) {
    ExpectDataLoss(WithField(bytes, 6, evil), kSmall, "header bytes " + std::to_string(evil));
  }
  ExpectDataLoss(WithField(bytes, 0, uint32_t{0}), kSmall, "magic");
  ExpectDataLoss(WithField(bytes, 4, uint16_t{0}), kSmall, "version 0");
  ExpectDataLoss(WithField(bytes, 4, uint16_t{2}), kSmall, "version 2");
  ExpectDataLoss(WithField(bytes, 8, uint16_t{0}), kSmall, "codec 0");
  ExpectDataLoss(WithField(bytes, 8, uint16_t{2}), kSmall, "codec 2");
  ExpectDataLoss(WithField(bytes, 10, uint16_t{1}), kSmall, "flags");
  getrusage(RUSAGE_SELF, &after);
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 16 << 10) << "KiB";
}

TEST(ExactCodec, RefusesAnotherModelsShape) {
  const std::string bytes = ExactCodec().Encode(MakeBlock(kSmall, 5));
  ExpectDataLoss(bytes, {3, 2}, "same size, other shape");
  ExpectDataLoss(bytes, {2, 4}, "other width");
  ExpectDataLoss(bytes, {0, 0}, "empty shape");
}

TEST(ExactCodec, SkipsUnknownHeaderFields) {
  const KvBlock block = MakeBlock(kSmall, 5);
  std::string bytes = ExactCodec().Encode(block);
  bytes.insert(32, "later...");
  const auto decoded = ExactCodec().Decode(WithField(bytes, 6, uint16_t{40}), kSmall);
  ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
  EXPECT_TRUE(decoded->data == block.data);
}

// tests/golden/block_v1.bin is MakeBlock({2, 3}, 5) as the first release wrote it. Never rewrite
// it: a different format is a new version with its own golden file.
TEST(ExactCodec, ReadsAndWritesTheGoldenFileOfVersion1) {
  std::ifstream file(LONGHOLD_SOURCE_DIR "/tests/golden/block_v1.bin", std::ios::binary);
  ASSERT_TRUE(file.is_open());
  const std::string golden((std::istreambuf_iterator<char>(file)),
                           std::istreambuf_iterator<char>());
  const auto decoded = ExactCodec().Decode(golden, kSmall);
  ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
  EXPECT_EQ(decoded->tokens, 5u);
  EXPECT_TRUE(decoded->data == MakeBlock(kSmall, 5).data);
  EXPECT_EQ(ExactCodec().Encode(MakeBlock(kSmall, 5)), golden);
}

}  // namespace
}  // namespace longhold
