// The transforming codec: its stated error, recomputed here; that it shrinks correlated data;
// elements that no basis represents (infinities, NaNs, directions that were not learned); damaged
// bases and payloads, and hostile ones under a right checksum.
#include "store/transform_codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>

#include "base/half.h"
#include "base/hash.h"

namespace longhold {
namespace {

void Multiply(const float* a, const float* b, float* out, uint32_t rows, uint32_t depth,
              uint32_t columns) {
  for (uint32_t r = 0; r < rows; ++r) {
    for (uint32_t k = 0; k < depth; ++k) {
      for (uint32_t n = 0; n < columns; ++n)
        out[size_t{r} * columns + n] += a[size_t{r} * depth + k] * b[size_t{k} * columns + n];
    }
  }
}

// Like keys and values: linear images of a few hidden variables plus noise, each channel with its
// own mean. `mixing` selects the images.
std::vector<KvBlock> MakeBlocks(const BlockShape& shape, size_t count, uint32_t mixing,
                                uint32_t seed, uint32_t last_tokens = 64) {
  constexpr uint32_t kHidden = 5;
  std::mt19937 images(mixing), random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> image(size_t{shape.layers} * 2 * shape.kv_width * kHidden),
      mean(size_t{shape.layers} * 2 * shape.kv_width);
  for (float& x : image) x = normal(images);
  for (float& x : mean) x = 3 * normal(images);
  std::vector<KvBlock> blocks(count, KvBlock::Empty(shape));
  for (size_t b = 0; b < count; ++b) {
    blocks[b].tokens = b + 1 == count ? last_tokens : kBlockTokens;
    for (uint32_t layer = 0; layer < shape.layers; ++layer) {
      for (uint32_t t = 0; t < blocks[b].tokens; ++t) {
        float hidden[kHidden];
        for (float& x : hidden) x = normal(random) * (t % 29 == 7 ? 10.0f : 1.0f);
        for (const bool keys : {true, false}) {
          uint16_t* row =
              (keys ? blocks[b].Keys(layer) : blocks[b].Values(layer)) + size_t{t} * shape.kv_width;
          for (uint32_t c = 0; c < shape.kv_width; ++c) {
            const size_t channel = (size_t{layer} * 2 + (keys ? 0 : 1)) * shape.kv_width + c;
            float x = mean[channel] + 0.05f * normal(random);
            for (uint32_t h = 0; h < kHidden; ++h) x += image[channel * kHidden + h] * hidden[h];
            row[c] = ToHalf(x);
          }
        }
      }
    }
  }
  return blocks;
}

std::shared_ptr<const TransformBasis> Fitted(const std::vector<KvBlock>& blocks,
                                             float share = 0.5f) {
  Result<TransformBasis> basis = TransformBasis::Fit(blocks, share, Multiply);
  EXPECT_TRUE(basis.ok()) << basis.status().message();
  return std::make_shared<const TransformBasis>(std::move(*basis));
}

std::unique_ptr<const BlockCodec> CodecOf(std::shared_ptr<const TransformBasis> basis) {
  return NewTransformCodec("archive", std::move(basis), Multiply);
}

// Errors of the block's tokens in steps, as the root mean square over the group: [groups * tokens].
std::vector<double> Errors(const TransformBasis& basis, const KvBlock& a, const KvBlock& b) {
  std::vector<double> errors;
  for (const TransformBasis::Group& g : basis.groups()) {
    for (uint32_t t = 0; t < a.tokens; ++t) {
      double squares = 0;
      for (uint32_t c = 0; c < 2 * g.channels; ++c) {
        const size_t at = size_t{t} * a.shape.kv_width + g.begin + c % g.channels;
        const bool keys = c < g.channels;
        const float x = FromHalf((keys ? a.Keys(g.layer) : a.Values(g.layer))[at]),
                    y = FromHalf((keys ? b.Keys(g.layer) : b.Values(g.layer))[at]);
        // Half a unit in the last place of fp16 is added.
        const double off =
            std::max(0.0, std::abs(double{x} - y) - std::abs(x) * 0x1p-11 - 0x1p-25) / g.step[c];
        squares += off * off;
      }
      errors.push_back(std::sqrt(squares / (2 * g.channels)));
    }
  }
  return errors;
}

constexpr BlockShape kShape{3, 48};

TEST(TransformCodec, KeepsTheStatedErrorAndIsSmall) {
  const std::vector<KvBlock> blocks = MakeBlocks(kShape, 12, 1, 2),
                             others = MakeBlocks(kShape, 3, 1, 99, 17);
  const auto basis = Fitted(blocks);
  const auto codec = CodecOf(basis);
  for (const KvBlock& block : others) {
    const std::string bytes = codec->Encode(block);
    const Result<KvBlock> back = codec->Decode(bytes, kShape);
    ASSERT_TRUE(back.ok()) << back.status().message();
    EXPECT_EQ(back->tokens, block.tokens);
    double sum = 0;
    const std::vector<double> errors = Errors(*basis, block, *back);
    for (const double e : errors) {
      EXPECT_LE(e, 0.5);
      sum += e;
    }
    EXPECT_LT(sum / static_cast<double>(errors.size()), 0.3);
    // Five variables determine all 96 elements, and each of the five needs less than a byte.
    if (block.tokens == 64) {
      EXPECT_LT(bytes.size(), ExactCodec().Encode(block).size() / 12);
    }
  }
}

TEST(TransformCodec, WideLayersAreSplitIntoGroups) {
  const BlockShape wide{2, 300};
  const auto basis = Fitted(MakeBlocks(wide, 8, 3, 4));
  ASSERT_EQ(basis->groups().size(), 4u);
  EXPECT_EQ(basis->groups()[0].channels, 150u);
  EXPECT_EQ(basis->groups()[3].begin, 150u);
  EXPECT_EQ(basis->groups()[3].layer, 1u);
  const std::vector<KvBlock> blocks = MakeBlocks(wide, 1, 3, 5);
  const auto codec = CodecOf(basis);
  const Result<KvBlock> back = codec->Decode(codec->Encode(blocks[0]), wide);
  ASSERT_TRUE(back.ok()) << back.status().message();
  for (const double e : Errors(*basis, blocks[0], *back)) EXPECT_LE(e, 0.5);
}

TEST(TransformCodec, ElementsThatTheBasisCannotRepresentAreStoredVerbatim) {
  const auto basis = Fitted(MakeBlocks(kShape, 12, 1, 2));
  const auto codec = CodecOf(basis);
  KvBlock block = MakeBlocks(kShape, 1, 1, 7)[0];
  const float infinity = std::numeric_limits<float>::infinity();
  block.Keys(0)[0] = ToHalf(infinity);
  block.Values(1)[48 * 63 + 47] = ToHalf(std::nanf(""));
  block.Keys(2)[48 * 5] = ToHalf(60000.0f);
  const Result<KvBlock> back = codec->Decode(codec->Encode(block), kShape);
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(0, std::memcmp(back->Keys(0), block.Keys(0), 48 * 2));
  EXPECT_EQ(0, std::memcmp(back->Values(0), block.Values(0), 48 * 2));
  EXPECT_EQ(0, std::memcmp(back->Values(1) + 48 * 63, block.Values(1) + 48 * 63, 48 * 2));
  EXPECT_LE(std::abs(FromHalf(back->Keys(2)[48 * 5]) - 60000.0f), 60.0f);
  // The tokens next to them are coded.
  EXPECT_NE(0, std::memcmp(back->Keys(0) + 48, block.Keys(0) + 48, 48 * 2));
}

TEST(TransformCodec, TextOfAnotherKindCostsBytesButNotPrecision) {
  const auto basis = Fitted(MakeBlocks(kShape, 12, 1, 2));
  const auto codec = CodecOf(basis);
  const KvBlock known = MakeBlocks(kShape, 1, 1, 7)[0], strange = MakeBlocks(kShape, 1, 1000, 7)[0];
  const std::string bytes = codec->Encode(strange);
  EXPECT_GT(bytes.size(), 2 * codec->Encode(known).size());
  const Result<KvBlock> back = codec->Decode(bytes, kShape);
  ASSERT_TRUE(back.ok()) << back.status().message();
  for (const double e : Errors(*basis, strange, *back)) EXPECT_LE(e, 0.5);
}

TEST(TransformCodec, RecodingADecodedBlockGivesTheSameBytes) {
  const auto codec = CodecOf(Fitted(MakeBlocks(kShape, 12, 1, 2)));
  const KvBlock block = MakeBlocks(kShape, 1, 1, 7)[0];
  const std::string once = codec->Encode(block);
  EXPECT_EQ(codec->Encode(block), once);
  const std::string again = codec->Encode(*codec->Decode(once, kShape));
  EXPECT_LT(std::abs(static_cast<double>(again.size()) / static_cast<double>(once.size()) - 1),
            0.02);
}

TEST(TransformCodec, BlocksNameTheirBasis) {
  const auto codec = CodecOf(Fitted(MakeBlocks(kShape, 12, 1, 2))),
             other = CodecOf(Fitted(MakeBlocks(kShape, 12, 5, 2)));
  const KvBlock block = MakeBlocks(kShape, 1, 1, 7)[0];
  const std::string bytes = codec->Encode(block);
  EXPECT_TRUE(DecodeBlock(bytes, kShape, codec.get()).ok());
  EXPECT_TRUE(DecodeBlock(ExactCodec().Encode(block), kShape, codec.get()).ok());
  EXPECT_EQ(DecodeBlock(bytes, kShape, other.get()).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(DecodeBlock(bytes, kShape).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(FindCodec(kArchiveCodec), nullptr);
  EXPECT_TRUE(IsCodecName(kArchiveCodec));
}

TEST(TransformBasis, RoundTripsThroughTheStore) {
  const auto basis = Fitted(MakeBlocks(kShape, 12, 1, 2));
  const std::string bytes = basis->Encode();
  const Result<TransformBasis> back = TransformBasis::Decode(bytes, kShape);
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(back->id(), basis->id());
  EXPECT_EQ(back->Encode(), bytes);
  const KvBlock block = MakeBlocks(kShape, 1, 1, 7)[0];
  EXPECT_EQ(CodecOf(std::make_shared<const TransformBasis>(*back))->Encode(block),
            CodecOf(basis)->Encode(block));
}

TEST(TransformBasis, LearnsFromFiniteElementsOnly) {
  std::vector<KvBlock> blocks = MakeBlocks(kShape, 12, 1, 2);
  for (uint32_t t = 0; t < 64; t += 2)
    blocks[0].Keys(0)[size_t{t} * 48] = ToHalf(std::numeric_limits<float>::infinity());
  EXPECT_TRUE(TransformBasis::Fit(blocks, 0.5f, Multiply).ok());
  for (KvBlock& b : blocks) std::fill_n(b.Values(2), 64 * 48, ToHalf(std::nanf("")));
  EXPECT_EQ(TransformBasis::Fit(blocks, 0.5f, Multiply).status().code(),
            StatusCode::kInvalidArgument);
  // Data without any variance.
  std::vector<KvBlock> zeros(2, KvBlock::Empty(kShape));
  zeros[0].tokens = zeros[1].tokens = 64;
  const auto basis = Fitted(zeros);
  const auto codec = CodecOf(basis);
  EXPECT_TRUE(codec->Decode(codec->Encode(zeros[0]), kShape)->data == zeros[0].data);
  const KvBlock block = MakeBlocks(kShape, 1, 1, 7)[0];
  EXPECT_TRUE(codec->Decode(codec->Encode(block), kShape)->data == block.data);
}

// `bytes` with a right checksum over the changed content.
std::string Resealed(std::string bytes) {
  const uint64_t checksum = Hash64(std::string_view(bytes).substr(0, bytes.size() - 8));
  std::memcpy(bytes.data() + bytes.size() - 8, &checksum, 8);
  return bytes;
}

TEST(TransformBasis, DamageIsDetected) {
  const std::string bytes = Fitted(MakeBlocks({1, 8}, 4, 1, 2))->Encode();
  const BlockShape shape{1, 8};
  ASSERT_TRUE(TransformBasis::Decode(bytes, shape).ok());
  for (size_t size = 0; size < bytes.size(); ++size) {
    ASSERT_EQ(TransformBasis::Decode(bytes.substr(0, size), shape).status().code(),
              StatusCode::kDataLoss)
        << size;
    if (size > 8) {
      ASSERT_EQ(TransformBasis::Decode(Resealed(bytes.substr(0, size)), shape).status().code(),
                StatusCode::kDataLoss)
          << size;
    }
    std::string damaged = bytes;
    damaged[size] = static_cast<char>(damaged[size] ^ 4);
    ASSERT_EQ(TransformBasis::Decode(damaged, shape).status().code(), StatusCode::kDataLoss)
        << size;
  }
  EXPECT_EQ(TransformBasis::Decode(bytes, {1, 9}).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(TransformBasis::Decode(Resealed(bytes + "more"), shape).status().code(),
            StatusCode::kDataLoss);
  std::string evil = bytes;
  const uint32_t components = 0xFFFFFFFFu;
  std::memcpy(evil.data() + 16, &components, 4);
  EXPECT_EQ(TransformBasis::Decode(Resealed(evil), shape).status().code(), StatusCode::kDataLoss);
}

TEST(TransformCodec, HostilePayloadsAreRefused) {
  const BlockShape shape{1, 8};
  const auto basis = Fitted(MakeBlocks(shape, 4, 1, 2));
  const auto codec = CodecOf(basis);
  KvBlock block = MakeBlocks(shape, 1, 1, 3, 9)[0];
  // so that one token is stored verbatim
  block.Keys(0)[3] = ToHalf(std::numeric_limits<float>::infinity());
  const std::string bytes = codec->Encode(block);
  size_t refused = 0;
  for (size_t size = 0; size < bytes.size(); ++size) {
    ASSERT_EQ(codec->Decode(bytes.substr(0, size), shape).status().code(), StatusCode::kDataLoss)
        << size;
  }
  for (size_t i = 0; i < bytes.size() - 8; ++i) {
    for (const int change : {1, 0x80, 0xFF}) {
      std::string evil = bytes;
      evil[i] = static_cast<char>(evil[i] ^ change);
      // whatever the result, it neither crashes nor reads out of bounds
      const Result<KvBlock> decoded = codec->Decode(Resealed(evil), shape);
      refused += !decoded.ok();
      if (decoded.ok()) {
        EXPECT_EQ(decoded->data.size(), shape.Elements());
      }
    }
  }
  EXPECT_GT(refused, (bytes.size() - 8) * 3 / 2);
}

std::string ReadGolden(const char* name) {
  std::ifstream file(std::string(LONGHOLD_SOURCE_DIR "/tests/golden/") + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(TransformCodec, GoldenBlockAndBasisAreDecoded) {
  const BlockShape shape{1, 8};
  const Result<TransformBasis> basis = TransformBasis::Decode(ReadGolden("basis_v1.bin"), shape);
  ASSERT_TRUE(basis.ok()) << basis.status().message();
  const auto codec = CodecOf(std::make_shared<const TransformBasis>(*basis));
  const Result<KvBlock> block =
      DecodeBlock(ReadGolden("block_v1_transformed.bin"), shape, codec.get());
  ASSERT_TRUE(block.ok()) << block.status().message();
  ASSERT_EQ(block->tokens, 9u);
  // Token 0 holds an infinity and is stored verbatim. The sum and one element of the other tokens
  // stand for all of them.
  EXPECT_TRUE(std::isinf(FromHalf(block->Keys(0)[3])));
  double sum = 0;
  for (size_t i = 8; i < 9 * 8; ++i)
    sum += FromHalf(block->Keys(0)[i]) + 2.0 * FromHalf(block->Values(0)[i]);
  EXPECT_NEAR(sum, 752.220, 0.05);
  EXPECT_NEAR(FromHalf(block->Values(0)[8 * 8 + 7]), -0.4756, 0.01);
}

}  // namespace
}  // namespace longhold
