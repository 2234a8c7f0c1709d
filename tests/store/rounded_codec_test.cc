// The rounded codecs: their stated error, recomputed here in double; elements that do not round
// (infinities, NaNs, outliers); damage; and hostile payloads under a right checksum. A golden file
// fixes the format.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>

#include "base/half.h"
#include "base/hash.h"
#include "store/block_codec.h"

namespace longhold {
namespace {

constexpr float kKeyStep = 0.25f, kValueStep = 0.33f;

// Like keys and values: every channel has its own mean and width, and a few tokens are far from all
// others.
KvBlock MakeBlock(const BlockShape& shape, uint32_t tokens, uint32_t seed = 1) {
  KvBlock block = KvBlock::Empty(shape);
  block.tokens = tokens;
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (uint32_t layer = 0; layer < shape.layers; ++layer) {
    for (uint16_t* rows : {block.Keys(layer), block.Values(layer)}) {
      for (uint32_t c = 0; c < shape.kv_width; ++c) {
        const float mean = 3 * normal(random), width = std::exp(normal(random));
        for (uint32_t t = 0; t < tokens; ++t)
          rows[size_t{t} * shape.kv_width + c] =
              ToHalf(mean + width * normal(random) * (t % 23 == 7 ? 8 : 1));
      }
    }
  }
  return block;
}

// The step that the header states: a share of the median token's root mean square deviation, in 64
// channels, with its floors.
double StatedStep(const KvBlock& block, uint32_t layer, bool keys, uint32_t begin, double share) {
  const uint32_t width = block.shape.kv_width, end = std::min(begin + 64, width);
  const uint16_t* rows = keys ? block.Keys(layer) : block.Values(layer);
  std::vector<double> deviation(block.tokens, 0);
  double largest = 0;
  for (uint32_t c = begin; c < end; ++c) {
    double mean = 0;
    for (uint32_t t = 0; t < block.tokens; ++t)
      mean += FromHalf(rows[size_t{t} * width + c]) / block.tokens;
    for (uint32_t t = 0; t < block.tokens; ++t) {
      const double x = FromHalf(rows[size_t{t} * width + c]);
      deviation[t] += (x - mean) * (x - mean);
      largest = std::max(largest, std::abs(x));
    }
  }
  std::sort(deviation.begin(), deviation.end());
  return std::max(
      {share * std::sqrt(deviation[block.tokens / 2] / (end - begin)), largest * 0x1p-20, 0x1p-24});
}

const BlockCodec& Codec() { return *FindCodec("k4v4"); }

KvBlock RoundTrip(const KvBlock& block) {
  Result<KvBlock> decoded = Codec().Decode(Codec().Encode(block), block.shape);
  EXPECT_TRUE(decoded.ok()) << decoded.status().ToString();
  return decoded.ok() ? *decoded : KvBlock::Empty(block.shape);
}

TEST(RoundedCodec, MovesNoElementByMoreThanHalfItsStep) {
  for (const BlockShape shape : {BlockShape{1, 1}, {2, 3}, {3, 64}, {2, 65}, {4, 192}}) {
    for (const uint32_t tokens : {1u, 2u, 31u, 64u}) {
      const KvBlock block = MakeBlock(shape, tokens);
      const KvBlock decoded = RoundTrip(block);
      EXPECT_EQ(decoded.tokens, tokens);
      double most = 0;
      for (uint32_t layer = 0; layer < shape.layers; ++layer) {
        for (const bool keys : {true, false}) {
          const uint16_t* before = keys ? block.Keys(layer) : block.Values(layer);
          const uint16_t* after = keys ? decoded.Keys(layer) : decoded.Values(layer);
          for (uint32_t c = 0; c < shape.kv_width; ++c) {
            const double step =
                StatedStep(block, layer, keys, c / 64 * 64, keys ? kKeyStep : kValueStep);
            for (uint32_t t = 0; t < kBlockTokens; ++t) {
              const double x = FromHalf(before[size_t{t} * shape.kv_width + c]),
                           y = FromHalf(after[size_t{t} * shape.kv_width + c]);
              ASSERT_LE(std::abs(x - y), 0.5001 * step + std::abs(x) * 0x1p-10 + 0x1p-24)
                  << shape.kv_width << " wide, " << tokens << " tokens: layer " << layer
                  << " channel " << c << " token " << t;
              most = std::max(most, std::abs(x - y) / step);
            }
          }
        }
      }
      if (tokens == 64 && shape.kv_width >= 64) {
        EXPECT_GT(most, 0.45) << "a bound that nothing comes near tests nothing";
      }
    }
  }
}

TEST(RoundedCodec, TakesAQuarterOfTheBytes) {
  const KvBlock block = MakeBlock({30, 192}, 64);
  const double share = static_cast<double>(Codec().Encode(block).size()) /
                       static_cast<double>(ExactCodec().Encode(block).size());
  EXPECT_LT(share, 0.29);  // real keys have fewer outliers: docs/figures.md
  EXPECT_GT(share, 0.15);
  EXPECT_LT(share, static_cast<double>(FindCodec("k5v4")->Encode(block).size()) /
                       static_cast<double>(ExactCodec().Encode(block).size()));
}

TEST(RoundedCodec, KeepsNonFiniteAndFarOutlyingElementsExactly) {
  KvBlock block = MakeBlock({2, 64}, 64);
  // infinities, NaNs, the largest
  const std::vector<uint16_t> odd = {0x7C00, 0xFC00, 0x7E01, 0xFFFF, 0x7BFF, 0xFBFF};
  for (size_t i = 0; i < odd.size(); ++i) {
    block.Keys(0)[i * 64 + 5 * i] = odd[i];
    block.Values(1)[(60 - i) * 64 + 63] = odd[i];
  }
  const KvBlock decoded = RoundTrip(block);
  for (size_t i = 0; i < odd.size(); ++i) {
    EXPECT_EQ(decoded.Keys(0)[i * 64 + 5 * i], odd[i]);
    EXPECT_EQ(decoded.Values(1)[(60 - i) * 64 + 63], odd[i]);
  }
  // Only such elements.
  KvBlock none = block;
  std::fill_n(none.Keys(0), size_t{64} * 64, uint16_t{0x7E00});
  EXPECT_TRUE(std::equal(none.Keys(0), none.Keys(0) + 64 * 64, RoundTrip(none).Keys(0)));
}

TEST(RoundedCodec, KeepsConstantChannels) {
  KvBlock block = KvBlock::Empty({1, 70});
  block.tokens = 64;
  EXPECT_TRUE(RoundTrip(block).data == block.data) << "zeros";
  for (uint32_t t = 0; t < 64; ++t) {
    for (uint32_t c = 0; c < 70; ++c)
      block.Keys(0)[t * 70 + c] = ToHalf(0.001f * static_cast<float>(c));
  }
  const KvBlock decoded = RoundTrip(block);
  for (uint32_t i = 0; i < 64 * 70; ++i)
    ASSERT_NEAR(FromHalf(decoded.Keys(0)[i]), FromHalf(block.Keys(0)[i]), 1e-4);
}

TEST(RoundedCodec, UsesOnlyUsedRowsAndEncodesDeterministically) {
  KvBlock block = MakeBlock({2, 9}, 5);
  const std::string bytes = Codec().Encode(block);
  EXPECT_EQ(bytes, Codec().Encode(block));
  block.Keys(0)[5 * 9] = 7;
  EXPECT_EQ(bytes, Codec().Encode(block));
  const KvBlock decoded = RoundTrip(block);
  EXPECT_TRUE(std::all_of(decoded.Keys(1) + 5 * 9, decoded.Keys(1) + 64 * 9,
                          [](uint16_t half) { return half == 0; }));
}

TEST(RoundedCodec, DecodersRecogniseItByItsBytes) {
  const KvBlock block = MakeBlock({2, 9}, 5);
  const std::string rounded = Codec().Encode(block), exact = ExactCodec().Encode(block);
  EXPECT_TRUE(DecodeBlock(rounded, block.shape)->data == RoundTrip(block).data);
  EXPECT_TRUE(DecodeBlock(exact, block.shape)->data == block.data);
  EXPECT_EQ(ExactCodec().Decode(rounded, block.shape).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(Codec().Decode(exact, block.shape).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(FindCodec("k4v5"), nullptr);
  for (const std::string_view name : {"exact", "k5v4", "k4v4"})
    EXPECT_EQ(FindCodec(name)->name(), name);
  EXPECT_NE(FindCodec(kDefaultCodec), nullptr);
}

std::string Resealed(std::string bytes) {
  const uint64_t size = bytes.size() - 40;
  std::memcpy(bytes.data() + 24, &size, 8);
  const uint64_t checksum = Hash64(std::string_view(bytes).substr(0, bytes.size() - 8));
  std::memcpy(bytes.data() + bytes.size() - 8, &checksum, 8);
  return bytes;
}

TEST(RoundedCodec, DetectsTruncationAndAFlippedBitAnywhere) {
  const KvBlock block = MakeBlock({2, 3}, 5);
  std::string bytes = Codec().Encode(block);
  for (size_t size = 0; size < bytes.size(); ++size) {
    ASSERT_EQ(DecodeBlock(bytes.substr(0, size), block.shape).status().code(),
              StatusCode::kDataLoss)
        << size;
  }
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    ASSERT_EQ(DecodeBlock(bytes, block.shape).status().code(), StatusCode::kDataLoss) << bit;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
  }
}

// Under a right checksum a payload may be anything. The result must be a block or data_loss,
// without a sanitizer report.
TEST(RoundedCodec, HandlesHostilePayloads) {
  KvBlock block = MakeBlock({2, 70}, 64);
  block.Keys(0)[3] = 0x7C00;  // adds an escaped element next to the symbols
  const std::string bytes = Codec().Encode(block);
  std::mt19937 random(7);
  size_t refused = 0, taken = 0;
  for (int i = 0; i < 5000; ++i) {
    std::string evil = bytes;
    for (int n = 0; n < 1 + i % 3; ++n)
      evil[32 + random() % (evil.size() - 40)] = static_cast<char>(random());
    if (i % 5 == 0) evil.erase(32 + random() % (evil.size() - 40), 1 + random() % 8);
    if (i % 7 == 0) evil.insert(32 + random() % (evil.size() - 40), "\x01\x02\x03");
    const Result<KvBlock> decoded = DecodeBlock(Resealed(evil), block.shape);
    decoded.ok() ? ++taken : ++refused;
    ASSERT_TRUE(decoded.ok() || decoded.status().code() == StatusCode::kDataLoss);
  }
  EXPECT_GT(refused, 250u);
  EXPECT_GT(taken, 25u) << "most other bytes decode to valid elements";
  for (const uint32_t parts : {0u, 5u, 22u, 0x40000000u, 0xFFFFFFFFu}) {
    std::string evil = bytes;
    std::memcpy(evil.data() + 32, &parts, 4);
    EXPECT_EQ(DecodeBlock(Resealed(evil), block.shape).status().code(), StatusCode::kDataLoss)
        << parts;
  }
}

TEST(RoundedCodec, ReadsTheGoldenFileOfVersion1) {
  std::ifstream file(std::string(LONGHOLD_SOURCE_DIR) + "/tests/golden/block_v1_rounded.bin",
                     std::ios::binary);
  const std::string golden((std::istreambuf_iterator<char>(file)),
                           std::istreambuf_iterator<char>());
  const Result<KvBlock> decoded = DecodeBlock(golden, {2, 3});
  ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
  EXPECT_EQ(decoded->tokens, 5u);
  const std::string_view elements(reinterpret_cast<const char*>(decoded->data.data()),
                                  decoded->data.size() * 2);
  EXPECT_EQ(Hash64(elements), 14100425477555077200ull);
}

}  // namespace
}  // namespace longhold
