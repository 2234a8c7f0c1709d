// Compares summaries with plain means in double precision, and tests their bytes against any damage
// that a disk may do.
#include "memory/index/summaries.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/hash.h"
#include "tests/support/attention_driver.h"

namespace longhold {
namespace {

constexpr uint64_t kSeed = 11;

SummarySegment Build(const KvGeometry& g, const Sequence& s) {
  const RopeTables ropes(g, kBlockTokens);
  SummarySegment segment = SummarySegment::Of(DocumentId{3}, 64, g);
  for (const KvBlock& block : BlocksOf(g, s)) segment.Append(block, block.tokens, ropes);
  return segment;
}

TEST(Summaries, EqualTheMeanOfTheKeysAtTheirPlacesInTheBlock) {
  const KvGeometry g = TestGeometry();
  const Sequence s = RandomSequence(g, 150, kSeed);
  const SummarySegment segment = Build(g, s);
  ASSERT_EQ(segment.block_count, 3u);
  for (uint32_t b = 0; b < 3; ++b) {
    const uint32_t tokens = b == 2 ? 150 - 128 : 64;
    for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
      for (uint32_t h = 0; h < g.kv_heads; ++h) {
        std::vector<double> mean(g.head_dim, 0);
        std::vector<float> rotated(g.head_dim), got(g.head_dim);
        for (uint32_t r = 0; r < tokens; ++r) {
          ReferenceRotate(g.rope[slot],
                          s.k[slot].data() + (size_t{b * 64 + r} * g.kv_heads + h) * g.head_dim,
                          rotated.data(), g.head_dim, r);
          for (uint32_t c = 0; c < g.head_dim; ++c) mean[c] += rotated[c] / tokens;
        }
        const double largest =
            std::abs(*std::max_element(mean.begin(), mean.end(), [](double a, double x) {
              return std::abs(a) < std::abs(x);
            }));
        segment.Mean(b, slot, h, got.data());
        for (uint32_t c = 0; c < g.head_dim; ++c)
          EXPECT_NEAR(got[c], mean[c], largest / 13.5) << "block " << b << " slot " << slot;
      }
    }
  }
}

TEST(Summaries, AFewLargeElementsDoNotRoundTheOthersToZero) {
  KvGeometry g = TestGeometry();
  g.head_dim = 80;  // groups of 32, 32 and 16
  for (RopeSpec& rope : g.rope) rope.rotary_dims = 8;
  Sequence s = RandomSequence(g, 64, kSeed);
  for (size_t i = 0; i < s.k[0].size(); i += g.head_dim) s.k[0][i + 40] = 1000;
  const RopeTables ropes(g, kBlockTokens);
  SummarySegment segment = SummarySegment::Of(DocumentId{1}, 0, g);
  segment.Append(BlocksOf(g, s)[0], 64, ropes);
  EXPECT_EQ(segment.scales.size(), g.layers.size() * g.kv_heads * 3);
  EXPECT_EQ(segment.codes.size(), g.layers.size() * g.kv_heads * 40);
  std::vector<float> mean(g.head_dim);
  segment.Mean(0, 0, 1, mean.data());
  EXPECT_NEAR(mean[40], 1000, 1);
  for (const uint32_t first : {10u, 64u}) {  // not rotated
    float largest = 0, off = 0;
    for (uint32_t c = first; c < first + 16; ++c) {
      double exact = 0;
      for (uint32_t t = 0; t < 64; ++t)
        exact += s.k[0][(size_t{t} * g.kv_heads + 1) * g.head_dim + c] / 64.0;
      largest = std::max(largest, static_cast<float>(std::abs(exact)));
      off = std::max(off, static_cast<float>(std::abs(exact - mean[c])));
    }
    EXPECT_LT(off, 0.5f * largest) << first;
    EXPECT_GT(largest, 0.1f);
  }
  const Result<SummarySegment> back = SummarySegment::Decode(segment.Encode());
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  EXPECT_EQ(*back, segment);
}

TEST(Summaries, OfALostOrOverflowedBlockAreZero) {
  const KvGeometry g = TestGeometry();
  const RopeTables ropes(g, kBlockTokens);
  KvBlock block = BlocksOf(g, RandomSequence(g, 64, kSeed))[0];
  block.Keys(1)[5] = 0x7c00;  // infinity
  SummarySegment segment = SummarySegment::Of(DocumentId{1}, 0, g);
  segment.AppendLost();
  segment.Append(block, 64, ropes);
  ASSERT_EQ(segment.block_count, 2u);
  std::vector<float> mean(g.head_dim);
  for (uint32_t b = 0; b < 2; ++b) {
    segment.Mean(b, 1, 0, mean.data());
    EXPECT_EQ(mean, std::vector<float>(g.head_dim, 0.0f)) << b;
  }
  segment.Mean(1, 0, 0, mean.data());
  EXPECT_NE(mean, std::vector<float>(g.head_dim, 0.0f));
  EXPECT_TRUE(SummarySegment::Decode(segment.Encode()).ok());
}

TEST(Summaries, RoundTrip) {
  const KvGeometry g = TestGeometry();
  const SummarySegment segment = Build(g, RandomSequence(g, 150, kSeed));
  const std::string bytes = segment.Encode();
  EXPECT_EQ(bytes.size(), 32 + SummarySegment::Bytes(g, 3) + 8);
  const Result<SummarySegment> back = SummarySegment::Decode(bytes);
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  EXPECT_EQ(*back, segment);
}

// The format of docs/formats/index.md: a change of these bytes needs a new version.
TEST(Summaries, EncodeToTheDocumentedBytes) {
  KvGeometry g = TestGeometry();
  SummarySegment segment = SummarySegment::Of(DocumentId{7}, 128, g);
  for (uint32_t i = 0; i < 2 * 3 * 2; ++i) {
    segment.scales.push_back(static_cast<uint16_t>(0x3000 + 77 * i));
    for (uint32_t c = 0; c < 4; ++c)
      segment.codes.push_back(
          static_cast<uint8_t>((1 + (i + c) % 15) | (1 + (3 * i + c) % 15) << 4));
  }
  segment.block_count = 2;
  const std::string bytes = segment.Encode();
  EXPECT_EQ(bytes.size(), 32u + 12 * 2 + 48 + 8);
  EXPECT_TRUE(SummarySegment::Decode(bytes).ok());
  EXPECT_EQ(Hash64(bytes), 9082508896190997136u);
}

TEST(Summaries, DamageIsDataLoss) {
  const KvGeometry g = TestGeometry();
  const std::string bytes = Build(g, RandomSequence(g, 70, kSeed)).Encode();
  for (size_t i = 0; i < bytes.size(); ++i) {
    std::string bad = bytes;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    EXPECT_EQ(SummarySegment::Decode(bad).status().code(), StatusCode::kDataLoss) << "byte " << i;
    EXPECT_EQ(SummarySegment::Decode(std::string_view(bytes).substr(0, i)).status().code(),
              StatusCode::kDataLoss)
        << "cut at " << i;
  }
  // Sizes that a forger wrote under a right checksum.
  const auto sign = [](std::string body) {
    const uint64_t hash = Hash64(body);
    return body.append(reinterpret_cast<const char*>(&hash), sizeof hash);
  };
  const std::string body = bytes.substr(0, bytes.size() - 8);
  ASSERT_TRUE(SummarySegment::Decode(sign(body)).ok());
  for (const size_t field : {16, 20, 24, 28}) {
    for (const uint32_t value : {0u, 1u, 3u, 0x7fffffffu, 0xffffffffu}) {
      std::string bad = body;
      if (std::memcmp(bad.data() + field, &value, sizeof value) == 0) continue;
      std::memcpy(bad.data() + field, &value, sizeof value);
      EXPECT_EQ(SummarySegment::Decode(sign(bad)).status().code(), StatusCode::kDataLoss)
          << field << " " << value;
    }
  }
  // minus 0, minus 1, infinities, not a number
  for (const uint16_t scale : {0x8000, 0xbc00, 0x7c00, 0xfc00, 0x7e01}) {
    std::string bad = body;
    std::memcpy(bad.data() + 32, &scale, sizeof scale);
    EXPECT_EQ(SummarySegment::Decode(sign(bad)).status().code(), StatusCode::kDataLoss);
  }
  std::string no_code = body;
  no_code.back() = 0x01;
  EXPECT_EQ(SummarySegment::Decode(sign(no_code)).status().code(), StatusCode::kDataLoss);
  std::string later = body;
  later[4] = 2;
  EXPECT_EQ(SummarySegment::Decode(sign(later)).status().code(), StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace longhold
