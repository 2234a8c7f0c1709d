// Compares ScanIndex with a softmax over all tokens in double precision.
//
// Two comparisons, so that quantisation cannot hide an error:
//   - Keys and queries that int8 holds exactly (integers, each row with a 127). Only float rounding
//     is left. Logits stay below 60, so a float logit is off by at most about 60 * 2^-23 * few =
//     3e-5, and a share by that factor: 1e-4 is allowed.
//   - Normal keys and queries. The logit error bound in the header of Query() limits the error of a
//     share.
// Sizes: several documents, segments with a last block of 1, 63 and 64 tokens, head sizes around
// the vector widths.
#include "memory/index/scan_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "base/hash.h"
#include "tests/support/two_threads.h"

namespace longhold {
namespace {

using testing::Each;
using testing::IsEmpty;
using testing::SizeIs;

// The keys of a memory as floats, and the index built from them.
class Fixture {
 public:
  Fixture(uint32_t heads, uint32_t head_dim) : heads_(heads), head_dim_(head_dim) {}

  // Adds a segment of `tokens` keys drawn by `draw(rng)`.
  template <typename Draw>
  void Add(std::mt19937& rng, DocumentId document, uint32_t block_begin, uint64_t tokens,
           Draw draw) {
    std::vector<std::vector<std::vector<float>>> keys(heads_);  // [heads, tokens, head_dim]
    for (uint32_t h = 0; h < heads_; ++h) {
      for (uint64_t t = 0; t < tokens; ++t) keys[h].push_back(draw(rng));
    }
    auto segment = std::make_shared<const ScanSegment>(
        ScanSegment::Build(document, block_begin, tokens, heads_, head_dim_,
                           [&](uint32_t h, uint64_t t) { return keys[h][t].data(); }));
    const Status status = index_.Add(segment);
    ASSERT_TRUE(status.ok()) << status.ToString();
    for (uint32_t h = 0; h < heads_; ++h) {
      for (uint64_t t = 0; t < tokens; ++t) {
        const BlockKey block{.document = document,
                             .block = block_begin + static_cast<uint32_t>(t / kBlockTokens)};
        keys_[{block, h}].push_back(keys[h][t]);
      }
    }
  }
  void Remove(DocumentId document) {
    index_.Remove(document);
    std::erase_if(keys_, [&](const auto& entry) { return entry.first.first.document == document; });
  }

  // Weighted softmax mass of every token, by the plain formula in double. The first tokens of the
  // documents are sinks. They get no mass, and together they weigh as much as one of them does on
  // average.
  std::map<BlockKey, std::vector<double>> TokenMass(const ScanQuery& query) const {
    std::map<BlockKey, std::vector<double>> mass;
    for (uint32_t r = 0; r < query.rows; ++r) {
      std::map<BlockKey, std::vector<double>> logits;
      double max = -1e300;
      double sum = 0;
      for (const auto& [key, block] : keys_) {
        if (key.second != query.head) continue;
        for (const std::vector<float>& k : block) {
          double dot = 0;
          for (uint32_t c = 0; c < head_dim_; ++c)
            dot += double{query.q[size_t{r} * head_dim_ + c]} * k[c];
          logits[key.first].push_back(query.scale * dot);
          max = std::max(max, query.scale * dot);
        }
      }
      double sinks = 0, sink_sum = 0;
      for (const auto& [key, of_block] : logits) {
        for (size_t t = 0; t < of_block.size(); ++t) {
          const bool sink = key.block == 0 && t == 0;
          (sink ? sink_sum : sum) += std::exp(of_block[t] - max);
          sinks += sink;
        }
      }
      if (sinks > 0) sum += sink_sum / sinks;
      for (const auto& [key, of_block] : logits) {
        mass[key].resize(of_block.size());
        for (size_t t = key.block == 0 ? 1 : 0; t < of_block.size(); ++t) {
          mass[key][t] += query.row_weight[r] * std::exp(of_block[t] - max) / sum;
        }
      }
    }
    return mass;
  }

  // Block scores and token masses must be within a factor of 1 +- `error`. The scores must sum to
  // the row weights.
  void ExpectAgrees(const ScanQuery& query, const ParallelFor& parallel, double error) const {
    const std::map<BlockKey, std::vector<double>> expected = TokenMass(query);
    const ScanResult result = index_.Query(query, 1 << 20, parallel);
    ASSERT_EQ(result.blocks.size(), expected.size());
    double total = 0;
    double last = 1e300;
    for (const auto& [block, score] : result.blocks) {
      ASSERT_TRUE(expected.contains(block));
      double sum = 0;
      const std::vector<float> tokens = index_.TokenMass(query, result, block);
      ASSERT_EQ(tokens.size(), expected.at(block).size());
      for (size_t t = 0; t < tokens.size(); ++t) {
        ASSERT_NEAR(tokens[t], expected.at(block)[t], error * expected.at(block)[t] + 1e-9)
            << "b " << block.block << " t " << t;
        sum += expected.at(block)[t];
      }
      ASSERT_NEAR(score, sum, error * sum + 1e-9) << "b " << block.block;
      ASSERT_LE(score, last);
      last = score;
      total += score;
    }
    EXPECT_NEAR(total + result.sink_score, result.weight_sum, 1e-4 * result.weight_sum);
  }

  const ScanIndex& index() const { return index_; }

 private:
  uint32_t heads_;
  uint32_t head_dim_;
  ScanIndex index_;
  std::map<std::pair<BlockKey, uint32_t>, std::vector<std::vector<float>>> keys_;
};

// A vector that int8 holds exactly: small integers, and one 127 that sets the scale to 1.
auto Integers(uint32_t head_dim) {
  return [head_dim](std::mt19937& rng) {
    std::vector<float> v(head_dim);
    for (float& x : v) x = static_cast<float>(static_cast<int>(rng() % 21)) - 10;
    v[rng() % head_dim] = rng() % 2 == 0 ? 127.0f : -127.0f;
    return v;
  };
}

auto Normal(uint32_t head_dim) {
  return [head_dim](std::mt19937& rng) {
    std::normal_distribution<float> normal;
    std::vector<float> v(head_dim);
    for (float& x : v) x = normal(rng);
    return v;
  };
}

template <typename Draw>
ScanQuery RandomQuery(std::mt19937& rng, uint32_t head, uint32_t rows, uint32_t head_dim,
                      float scale, Draw draw) {
  ScanQuery query{.head = head, .rows = rows, .head_dim = head_dim, .scale = scale};
  for (uint32_t r = 0; r < rows; ++r) {
    for (const float x : draw(rng)) query.q.push_back(x);
    query.row_weight.push_back(0.25f * static_cast<float>(1 + rng() % 8));
  }
  return query;
}

// Three documents, one of them in two segments with a gap between.
template <typename Draw>
void AddDocuments(Fixture& memory, std::mt19937& rng, Draw draw) {
  memory.Add(rng, DocumentId{4}, 0, 64 * 3, draw);
  memory.Add(rng, DocumentId{2}, 0, 1, draw);
  memory.Add(rng, DocumentId{9}, 7, 64 * 5 + 63, draw);
  memory.Add(rng, DocumentId{4}, 4, 64 + 17, draw);
}

TEST(ScanIndex, EqualsTheSoftmaxOverAllTokensWhenInt8IsExact) {
  for (const uint32_t head_dim : {4u, 12u, 64u, 128u, 256u}) {
    for (uint32_t seed = 1; seed <= 3; ++seed) {
      SCOPED_TRACE("head_dim " + std::to_string(head_dim) + " seed " + std::to_string(seed));
      std::mt19937 rng(seed);
      Fixture memory(2, head_dim);
      AddDocuments(memory, rng, Integers(head_dim));
      // The largest logit is 127 * 127 * scale (plus 100 * 254 of the small integers) <= 60.
      const ScanQuery query =
          RandomQuery(rng, seed % 2, 1 + rng() % 40, head_dim, 60.0f / 41529, Integers(head_dim));
      memory.ExpectAgrees(query, SerialFor, 1e-4);
      memory.ExpectAgrees(query, TwoThreads, 1e-4);
    }
  }
}

TEST(ScanIndex, StaysWithinTheInt8ErrorBound) {
  for (uint32_t seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    constexpr uint32_t kHeadDim = 64;
    std::mt19937 rng(seed);
    Fixture memory(1, kHeadDim);
    AddDocuments(memory, rng, Normal(kHeadDim));
    const ScanQuery query = RandomQuery(rng, 0, 30, kHeadDim, 0.125f, Normal(kHeadDim));
    // |q|_1 and |k|_1 are about 0.8 * 64 with maxima below 4.5, so a logit is off by at most (51 *
    // 4.5 + 51 * 4.5) * 0.125 / 254 = 0.23. A share moves by twice that (its own logit and the
    // sum). Typical errors are a tenth.
    memory.ExpectAgrees(query, SerialFor, std::expm1(2 * 0.23));
  }
}

TEST(ScanIndex, KeepsSharesRightWhenLogitsAreHuge) {
  constexpr uint32_t kHeadDim = 16;
  std::mt19937 rng(5);
  Fixture memory(1, kHeadDim);
  AddDocuments(memory, rng, Integers(kHeadDim));
  const ScanQuery query = RandomQuery(rng, 0, 8, kHeadDim, 1.0f, Integers(kHeadDim));
  // Logits reach 16,000, where a float is off by up to 2^-11. Multiplying by the scales adds
  // another unit or two.
  memory.ExpectAgrees(query, SerialFor, 2e-3);
}

TEST(ScanIndex, TreatsZeroQueriesAndKeysAsUniformAttention) {
  Fixture memory(1, 8);
  std::mt19937 rng(1);
  memory.Add(rng, DocumentId{1}, 0, 96, [](std::mt19937&) { return std::vector<float>(8, 0.0f); });
  const ScanQuery query{
      .rows = 1, .head_dim = 8, .q = std::vector<float>(8, 0.0f), .row_weight = {3.0f}};
  const ScanResult result = memory.index().Query(query, 9, SerialFor);
  ASSERT_THAT(result.blocks, SizeIs(2));
  EXPECT_NEAR(result.blocks[0].score, 3.0 * 63 / 96, 1e-5);  // without the sink
  EXPECT_NEAR(result.blocks[1].score, 1.0, 1e-5);
  EXPECT_NEAR(result.row_lse[0], std::log(96.0), 1e-5);
  EXPECT_THAT(memory.index().TokenMass(query, result, {.document = DocumentId{1}, .block = 1}),
              Each(testing::FloatNear(3.0f / 96, 1e-6f)));
}

// 1,100 blocks x 4,000 rows exceed the 4 M masses that a query holds at a time.
TEST(ScanIndex, ScoresTheSameWhenRowsAreTiled) {
  constexpr uint32_t kHeadDim = 4;
  constexpr uint32_t kRows = 4000;
  std::mt19937 rng(6);
  Fixture memory(1, kHeadDim);
  memory.Add(rng, DocumentId{1}, 0, 64 * 1000, Integers(kHeadDim));
  memory.Add(rng, DocumentId{1}, 1000, 64 * 100, Integers(kHeadDim));
  const ScanQuery one = RandomQuery(rng, 0, 1, kHeadDim, 0.001f, Integers(kHeadDim));
  ScanQuery many{.rows = kRows, .head_dim = kHeadDim, .scale = one.scale};
  for (uint32_t r = 0; r < kRows; ++r) {
    many.q.insert(many.q.end(), one.q.begin(), one.q.end());
    many.row_weight.push_back(one.row_weight[0]);
  }
  const ScanResult expected = memory.index().Query(one, 50, SerialFor);
  const ScanResult actual = memory.index().Query(many, 50, SerialFor);
  ASSERT_EQ(actual.blocks.size(), expected.blocks.size());
  for (size_t i = 0; i < actual.blocks.size(); ++i) {
    EXPECT_NEAR(actual.blocks[i].score, kRows * expected.blocks[i].score,
                1e-5 * actual.blocks[i].score);
  }
  EXPECT_EQ(actual.row_lse, std::vector<double>(kRows, expected.row_lse[0]));
}

TEST(ScanIndex, ForgetsRemovedDocumentsAndReplacesSegments) {
  constexpr uint32_t kHeadDim = 8;
  std::mt19937 rng(2);
  Fixture memory(1, kHeadDim);
  AddDocuments(memory, rng, Integers(kHeadDim));
  EXPECT_EQ(memory.index().token_count(), 64u * 3 + 1 + 64 * 5 + 63 + 64 + 17);
  EXPECT_EQ(memory.index().block_count(), 3u + 1 + 6 + 2);
  memory.Remove(DocumentId{4});
  memory.Remove(DocumentId{77});
  EXPECT_EQ(memory.index().token_count(), 1u + 64 * 5 + 63);
  EXPECT_EQ(memory.index().block_count(), 7u);
  memory.Remove(DocumentId{2});
  memory.Add(rng, DocumentId{2}, 0, 5, Integers(kHeadDim));
  const ScanQuery query = RandomQuery(rng, 0, 6, kHeadDim, 0.001f, Integers(kHeadDim));
  memory.ExpectAgrees(query, SerialFor, 1e-4);
  ScanIndex index;
  const auto segment = [&](float key) {
    const std::vector<float> row(kHeadDim, key);
    return std::make_shared<const ScanSegment>(ScanSegment::Build(
        DocumentId{1}, 0, 64, 1, kHeadDim, [&](uint32_t, uint64_t) { return row.data(); }));
  };
  ASSERT_TRUE(index.Add(segment(1)).ok());
  const float before = index.Query(query, 1, SerialFor).row_lse[0];
  ASSERT_TRUE(index.Add(segment(-1)).ok());
  EXPECT_EQ(index.token_count(), 64u);
  EXPECT_NE(index.Query(query, 1, SerialFor).row_lse[0], before);
}

TEST(ScanIndex, AnswersForAnEmptyMemoryAndUnknownBlocks) {
  const ScanIndex empty;
  const ScanQuery query{
      .rows = 2, .head_dim = 4, .q = std::vector<float>(8, 1.0f), .row_weight = {1, 2}};
  const ScanResult result = empty.Query(query, 8, SerialFor);
  EXPECT_THAT(result.blocks, IsEmpty());
  EXPECT_EQ(result.weight_sum, 3);
  EXPECT_THAT(result.row_lse, Each(-std::numeric_limits<double>::infinity()));
  EXPECT_THAT(empty.TokenMass(query, result, {}), IsEmpty());

  Fixture memory(1, 4);
  std::mt19937 rng(3);
  AddDocuments(memory, rng, Integers(4));
  const ScanResult some = memory.index().Query(query, 2, SerialFor);
  EXPECT_THAT(some.blocks, SizeIs(2));
  for (const BlockKey block :
       {BlockKey{DocumentId{0}, 0}, BlockKey{DocumentId{4}, 3}, BlockKey{DocumentId{4}, 6},
        BlockKey{DocumentId{9}, 6}, BlockKey{DocumentId{10}, 0}}) {
    EXPECT_THAT(memory.index().TokenMass(query, some, block), IsEmpty()) << block.block;
  }
}

ScanSegment Sample(uint32_t heads = 2, uint32_t head_dim = 4, uint64_t tokens = 65,
                   uint32_t block_begin = 3) {
  std::mt19937 rng(11);
  std::vector<float> row(head_dim);
  return ScanSegment::Build(DocumentId{7}, block_begin, tokens, heads, head_dim,
                            [&](uint32_t h, uint64_t t) {
                              for (uint32_t c = 0; c < head_dim; ++c)
                                row[c] = static_cast<float>((h + 1) * (t % 7) + c) - 4.5f;
                              return row.data();
                            });
}

TEST(ScanIndex, RefusesOverlapsAndOtherHeadSizes) {
  ScanIndex index;
  const auto add = [&](ScanSegment s) {
    return index.Add(std::make_shared<const ScanSegment>(std::move(s))).code();
  };
  EXPECT_EQ(add(Sample()), StatusCode::kOk);
  EXPECT_EQ(add(Sample(2, 4, 65, 4)), StatusCode::kInvalidArgument);
  EXPECT_EQ(add(Sample(2, 4, 65, 2)), StatusCode::kInvalidArgument);
  EXPECT_EQ(add(Sample(2, 4, 64, 3)), StatusCode::kInvalidArgument);
  EXPECT_EQ(add(Sample(1, 4, 64, 9)), StatusCode::kInvalidArgument);
  EXPECT_EQ(add(Sample(2, 8, 64, 9)), StatusCode::kInvalidArgument);
  ScanSegment crooked = Sample(2, 4, 64, 9);
  crooked.counts[0] = 65;
  EXPECT_EQ(add(crooked), StatusCode::kInvalidArgument);
  EXPECT_EQ(add(Sample(2, 4, 64, 9)), StatusCode::kOk);
  EXPECT_EQ(index.token_count(), 129u);
}

TEST(ScanSegment, QuantisesEveryKeyToHalfAStepOfItsLargestElement) {
  constexpr uint32_t kHeadDim = 12;
  std::mt19937 rng(12);
  std::vector<std::vector<float>> keys;
  for (int t = 0; t < 100; ++t) keys.push_back(Normal(kHeadDim)(rng));
  keys[5].assign(kHeadDim, 0.0f);
  keys[6].assign(kHeadDim, 1e-42f);  // denormal: 127 / max would be infinite
  const ScanSegment s = ScanSegment::Build(DocumentId{1}, 0, 100, 1, kHeadDim,
                                           [&](uint32_t, uint64_t t) { return keys[t].data(); });
  EXPECT_EQ(s.token_count(), 100u);
  for (uint32_t t = 0; t < 128; ++t) {
    const float scale = s.scales[0][t];
    for (uint32_t c = 0; c < kHeadDim; ++c) {
      const size_t at =
          (size_t{t / 64} * kHeadDim / 4 * 64 + size_t{c / 4} * 64 + t % 64) * 4 + c % 4;
      const float value = scale * (static_cast<float>(s.keys[0][at]) - 128);
      const float expected = t < 100 ? keys[t][c] : 0;
      EXPECT_NEAR(value, expected, 0.5001f * scale + 1e-40f) << t << " " << c;
    }
  }
}

// Blocks from a hostile source hold any fp16 values. A segment built from them must be one that an
// index accepts.
TEST(ScanSegment, NonFiniteOrTooLargeKeysCountAsZero) {
  constexpr uint32_t kHeadDim = 8;
  std::mt19937 rng(7);
  std::vector<std::vector<float>> keys;
  for (int t = 0; t < 4; ++t) keys.push_back(Normal(kHeadDim)(rng));
  keys[1][3] = std::numeric_limits<float>::infinity();
  keys[2][5] = std::numeric_limits<float>::quiet_NaN();
  auto zero = keys;
  zero[1].assign(kHeadDim, 0.0f);
  zero[2].assign(kHeadDim, 0.0f);
  zero[3].assign(kHeadDim, 0.0f);
  keys[3][0] = 1e30f;  // finite, but its square overflows
  const auto build = [&](const std::vector<std::vector<float>>& from) {
    return ScanSegment::Build(DocumentId{1}, 0, from.size(), 1, kHeadDim,
                              [&](uint32_t, uint64_t t) { return from[t].data(); });
  };
  const ScanSegment segment = build(keys);
  EXPECT_EQ(segment, build(zero));
  EXPECT_TRUE(ScanSegment::Decode(segment.Encode()).ok());
  EXPECT_TRUE(ScanIndex().Add(std::make_shared<const ScanSegment>(segment)).ok());
}

// With keys whose squares overflow, FAISS once hit one of its own assertions while it trained the
// inverted lists.
TEST(ScanSegment, RefusesScalesThatNoRealKeyHas) {
  ScanSegment segment = Sample(1, 8, 64);
  segment.scales[0][3] = kScanScaleMax;
  EXPECT_TRUE(ScanSegment::Decode(segment.Encode()).ok());
  for (const float scale : {std::nextafter(kScanScaleMax, 1e30f), 1e30f,
                            std::numeric_limits<float>::infinity(), -1.0f}) {
    segment.scales[0][3] = scale;
    EXPECT_EQ(ScanSegment::Decode(segment.Encode()).status().code(), StatusCode::kDataLoss)
        << scale;
  }
}

TEST(ScanSegment, RoundTrips) {
  for (const uint64_t tokens : {1u, 64u, 65u, 200u}) {
    const ScanSegment segment = Sample(3, 8, tokens);
    const Result<ScanSegment> decoded = ScanSegment::Decode(segment.Encode());
    ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
    EXPECT_EQ(*decoded, segment);
  }
}

// The format is a contract: these bytes stay version 1 (docs/formats/index.md).
TEST(ScanSegment, EncodesToTheDocumentedBytes) {
  const std::string bytes = Sample().Encode();
  ASSERT_EQ(bytes.size(), 32u + 2 + 2 * 128 * (4 + 4) + 8);
  EXPECT_EQ(bytes.substr(0, 4), "LHSC");
  EXPECT_EQ(Hash64(bytes), 0x794a642406992815u) << std::hex << Hash64(bytes);
}

TEST(ScanSegment, DetectsEveryTruncationAndFlippedBit) {
  const std::string bytes = Sample().Encode();
  for (size_t size = 0; size < bytes.size(); ++size) {
    const Result<ScanSegment> decoded =
        ScanSegment::Decode(std::string_view(bytes).substr(0, size));
    ASSERT_FALSE(decoded.ok()) << size;
    EXPECT_EQ(decoded.status().code(), StatusCode::kDataLoss);
  }
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string broken = bytes;
    broken[bit / 8] = static_cast<char>(broken[bit / 8] ^ (1 << (bit % 8)));
    ASSERT_FALSE(ScanSegment::Decode(broken).ok()) << bit;
  }
  EXPECT_FALSE(ScanSegment::Decode(bytes + '\0').ok());
}

// A forger, or a bug of ours, can write a valid checksum over garbage. Decode must still keep every
// promise.
TEST(ScanSegment, HandlesDamageUnderAValidChecksum) {
  const std::string bytes = Sample().Encode();
  for (size_t bit = 0; bit < (bytes.size() - 8) * 8; ++bit) {
    std::string broken = bytes.substr(0, bytes.size() - 8);
    broken[bit / 8] = static_cast<char>(broken[bit / 8] ^ (1 << (bit % 8)));
    const uint64_t checksum = Hash64(broken);
    broken.append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
    Result<ScanSegment> decoded = ScanSegment::Decode(broken);
    if (!decoded.ok()) continue;
    ScanIndex index;
    const ScanQuery query{.rows = 1,
                          .head_dim = decoded->head_dim,
                          .q = std::vector<float>(decoded->head_dim, 1.0f),
                          .row_weight = {1}};
    ASSERT_TRUE(index.Add(std::make_shared<const ScanSegment>(std::move(*decoded))).ok());
    index.Query(query, 4, SerialFor);
  }
}

}  // namespace
}  // namespace longhold
