// Compares IvfIndex with ScanIndex, which is exact and has its own tests.
//
// Keys are clustered as real ones are: 24 centres in 16 dimensions (normal, length about 8) with a
// spread of 1 around each, drawn per stretch of text. Queries are near centres that have keys, so a
// row's mass is in few inverted lists. 6,000 tokens make 93 lists of some 64 keys. That builds in
// milliseconds, and a fifth of the keys leaves most lists out.
//
// Tolerances. With a sample of every key nothing is estimated; only float rounding is left (logits
// below 60: 1e-5). With a sample of 1,024, the mass outside the probed lists is estimated with a
// sampling error. A sampled key stands for six, so one that holds 1 % of a row's mass moves the sum
// by 5 %. That happens (0.12 in the worst of 300 rows here), but not on average and not to one
// side. So an error of 0.01 in the mean is allowed, and half of that as a bias.
#include "memory/index/ivf_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <set>

#include "base/hash.h"
#include "tests/support/two_threads.h"

namespace longhold {
namespace {

using testing::IsEmpty;
using testing::SizeIs;

constexpr uint32_t kDim = 16;
constexpr uint32_t kTokens = 6000;

using Keys = std::vector<std::vector<float>>;  // [tokens] of [kDim]

class Clusters {
 public:
  explicit Clusters(uint32_t seed) : rng_(seed) {
    for (int i = 0; i < 24; ++i) centres_.push_back(Normal(2));
  }
  std::vector<float> Near(size_t centre) {
    std::vector<float> v = Normal(1);
    for (uint32_t c = 0; c < kDim; ++c) v[c] += centres_[centre % centres_.size()][c];
    return v;
  }
  Keys Text(uint32_t tokens) {
    Keys keys;
    size_t centre = 0;
    for (uint32_t t = 0; t < tokens; ++t) {
      if (t % 7 == 0) centre = rng_();
      keys.push_back(Near(centre));
    }
    return keys;
  }
  // Logits have a standard deviation of some 4 over the keys, as in real recall heads.
  ScanQuery Query(uint32_t rows) {
    ScanQuery query{.head = 0, .rows = rows, .head_dim = kDim, .scale = 0.25f};
    for (uint32_t r = 0; r < rows; ++r) {
      const std::vector<float> q = Near(rng_());
      query.q.insert(query.q.end(), q.begin(), q.end());
      query.row_weight.push_back(0.25f * static_cast<float>(1 + rng_() % 8));
    }
    return query;
  }

 private:
  std::vector<float> Normal(float size) {
    std::normal_distribution<float> normal;
    std::vector<float> v(kDim);
    for (float& x : v) x = size * normal(rng_);
    return v;
  }
  std::mt19937 rng_;
  std::vector<std::vector<float>> centres_;
};

constexpr uint32_t kHeads = 2;

// Adds a document in segments of 1,024 tokens. Head 1 has the keys of head 0 in reverse order, so
// that a test notices swapped heads.
void Add(IvfIndex* index, DocumentId document, const Keys& keys) {
  for (uint32_t begin = 0; begin < keys.size(); begin += 1024) {
    const auto count = std::min<uint64_t>(1024, keys.size() - begin);
    const Status status = index->Add(std::make_shared<const ScanSegment>(ScanSegment::Build(
        document, begin / kBlockTokens, count, kHeads, kDim, [&](uint32_t head, uint64_t t) {
          return keys[head == 0 ? begin + t : keys.size() - 1 - begin - t].data();
        })));
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
}

std::vector<IvfSegment> Build(const IvfIndex& index, DocumentId document,
                              const ParallelFor& parallel = SerialFor) {
  std::vector<IvfSegment> lists;
  for (uint32_t h = 0; h < kHeads; ++h) {
    Result<IvfSegment> segment = BuildIvfSegment(index.Segments(document), h, parallel);
    EXPECT_TRUE(segment.ok()) << segment.status().ToString();
    lists.push_back(std::move(*segment));
  }
  return lists;
}

void BuildInto(IvfIndex* index, DocumentId document) {
  const Status status = index->AddLists(Build(*index, document));
  ASSERT_TRUE(status.ok()) << status.ToString();
}

// A block's score equals the mass of its tokens, scores do not rise, and no score exceeds the
// total.
void ExpectSound(const IvfIndex& index, const ScanQuery& query, const ScanResult& result) {
  double total = result.sink_score;
  for (size_t i = 0; i < result.blocks.size(); ++i) {
    double mass = 0;
    for (const float m : index.TokenMass(query, result, result.blocks[i].block)) mass += m;
    EXPECT_NEAR(result.blocks[i].score, mass, 1e-4 * mass + 1e-9);
    EXPECT_GE(result.blocks[i == 0 ? 0 : i - 1].score, result.blocks[i].score);
    total += result.blocks[i].score;
  }
  EXPECT_LE(total, result.weight_sum * (1 + 1e-5));
}

// The number of the exact scan's first eight blocks that are among the first eight here.
int SharedOfEight(const ScanResult& exact, const ScanResult& result) {
  std::set<BlockKey> first;
  for (size_t i = 0; i < 8; ++i) first.insert(exact.blocks[i].block);
  int shared = 0;
  for (size_t i = 0; i < 8; ++i) shared += first.contains(result.blocks[i].block);
  return shared;
}

TEST(IvfIndex, EqualsTheExactScanWhenItProbesEveryList) {
  IvfIndex index({.share = 1, .sample_tokens = 16});
  Clusters text(1);
  Add(&index, DocumentId{3}, text.Text(kTokens));
  BuildInto(&index, DocumentId{3});
  for (const uint32_t rows : {1u, 7u, 90u, 200u}) {
    for (const uint32_t head : {0u, 1u}) {
      ScanQuery query = text.Query(rows);
      query.head = head;
      const ScanResult exact = index.exact().Query(query, 8, SerialFor),
                       result = index.Query(query, 8, SerialFor);
      ASSERT_EQ(result.blocks.size(), exact.blocks.size());
      for (size_t i = 0; i < result.blocks.size(); ++i) {
        EXPECT_NEAR(result.blocks[i].score, exact.blocks[i].score, 1e-4 * exact.blocks[i].score)
            << rows << " " << i;
      }
      for (uint32_t r = 0; r < rows; ++r) EXPECT_NEAR(result.row_lse[r], exact.row_lse[r], 1e-4);
      EXPECT_NEAR(result.sink_score, exact.sink_score, 1e-4 * exact.sink_score + 1e-9);
      EXPECT_EQ(result.weight_sum, exact.weight_sum);
      ExpectSound(index, query, result);
    }
  }
}

TEST(IvfIndex, EstimatesTheMassOfUnprobedLists) {
  IvfIndex index({.share = 0.02, .sample_tokens = kTokens});
  Clusters text(2);
  Add(&index, DocumentId{1}, text.Text(kTokens));
  BuildInto(&index, DocumentId{1});
  for (int i = 0; i < 5; ++i) {
    const ScanQuery query = text.Query(2);
    const ScanResult exact = index.exact().Query(query, 8, SerialFor),
                     result = index.Query(query, 8, SerialFor);
    for (uint32_t r = 0; r < query.rows; ++r)
      EXPECT_NEAR(result.row_lse[r], exact.row_lse[r], 1e-4);
  }
}

TEST(IvfIndex, AgreesWithTheExactScanOnClusteredKeys) {
  IvfIndex index({.share = 0.2, .sample_tokens = 1024});
  Clusters text(3);
  Add(&index, DocumentId{1}, text.Text(kTokens));
  BuildInto(&index, DocumentId{1});
  int shared = 0, rows = 0;
  double error = 0, bias = 0;
  for (int i = 0; i < 50; ++i) {
    const ScanQuery query = text.Query(6);
    const ScanResult exact = index.exact().Query(query, 128, SerialFor),
                     result = index.Query(query, 128, SerialFor);
    ASSERT_GE(result.blocks.size(), 8u);
    shared += SharedOfEight(exact, result);
    for (uint32_t r = 0; r < query.rows; ++r, ++rows) {
      error += std::abs(result.row_lse[r] - exact.row_lse[r]);
      bias += result.row_lse[r] - exact.row_lse[r];
    }
    ExpectSound(index, query, result);
  }
  EXPECT_GE(shared, 50 * 8 * 99 / 100);
  EXPECT_LT(error / rows, 0.01);
  EXPECT_LT(std::abs(bias) / rows, 0.005);
  EXPECT_GT(error / rows, 1e-5) << "nothing was left out, so the test does not cover estimates";
}

TEST(IvfIndex, FindsPlantedNeedles) {
  IvfIndex index({.share = 0.2, .sample_tokens = 1024});
  Clusters text(4);
  Keys keys = text.Text(kTokens);
  std::vector<ScanQuery> queries;
  for (uint32_t i = 0; i < 10; ++i) {
    queries.push_back(text.Query(3));
    // The key that the second row queries, at its own place, with a logit 12 nats above a key near
    // the same centre. That row's weight exceeds the sum of the other two (2 each).
    queries[i].row_weight[1] = 5;
    std::vector<float>& needle = keys[100 + 590 * i];
    const float* q = queries[i].q.data() + kDim;
    float length = 0;
    for (uint32_t c = 0; c < kDim; ++c) length += q[c] * q[c];
    for (uint32_t c = 0; c < kDim; ++c) needle[c] = q[c] * (1 + 48 / length);
  }
  Add(&index, DocumentId{1}, keys);
  BuildInto(&index, DocumentId{1});
  for (uint32_t i = 0; i < 10; ++i) {
    const ScanResult result = index.Query(queries[i], 4, SerialFor);
    ASSERT_THAT(result.blocks, testing::Not(IsEmpty()));
    EXPECT_EQ(result.blocks[0].block.block, (100 + 590 * i) / kBlockTokens);
  }
}

TEST(IvfIndex, ScansDocumentsWithoutInvertedLists) {
  IvfIndex index({.share = 1, .sample_tokens = 16});
  Clusters text(5);
  Add(&index, DocumentId{1}, text.Text(2000));
  Add(&index, DocumentId{2}, text.Text(2500));
  Add(&index, DocumentId{7}, text.Text(3));
  const ScanQuery query = text.Query(9);
  const ScanResult exact = index.exact().Query(query, 16, SerialFor);
  const auto expect_same = [&] {
    const ScanResult result = index.Query(query, 16, SerialFor);
    ASSERT_THAT(result.blocks, SizeIs(16));
    for (size_t i = 0; i < 16; ++i) {
      EXPECT_EQ(result.blocks[i].block, exact.blocks[i].block);
      EXPECT_NEAR(result.blocks[i].score, exact.blocks[i].score, 1e-4 * exact.blocks[i].score);
    }
    EXPECT_NEAR(result.sink_score, exact.sink_score, 1e-4 * exact.sink_score);
  };
  expect_same();  // no inverted lists at all
  BuildInto(&index, DocumentId{2});
  EXPECT_TRUE(index.HasLists(DocumentId{2}));
  expect_same();
  BuildInto(&index, DocumentId{1});
  BuildInto(&index, DocumentId{7});
  expect_same();
}

TEST(IvfIndex, ForgetsRemovedDocumentsAndTheListsOfChangedOnes) {
  IvfIndex index({.share = 1, .sample_tokens = 16});
  Clusters text(6);
  Add(&index, DocumentId{1}, text.Text(2000));
  Add(&index, DocumentId{2}, text.Text(2500));
  BuildInto(&index, DocumentId{1});
  BuildInto(&index, DocumentId{2});
  index.Remove(DocumentId{2});
  index.Remove(DocumentId{9});
  EXPECT_EQ(index.token_count(), 2000u);
  const ScanQuery query = text.Query(5);
  const ScanResult result = index.Query(query, 1000, SerialFor);
  for (const auto& b : result.blocks) EXPECT_EQ(b.block.document, DocumentId{1});
  EXPECT_NEAR(result.row_lse[0], index.exact().Query(query, 8, SerialFor).row_lse[0], 1e-4);

  Add(&index, DocumentId{1}, text.Text(2000));  // replaces the former keys
  EXPECT_FALSE(index.HasLists(DocumentId{1}));
  EXPECT_EQ(index.Query(query, 8, SerialFor).row_lse,
            index.exact().Query(query, 8, SerialFor).row_lse);
  index.Remove(DocumentId{1});
  EXPECT_THAT(index.Query(query, 8, SerialFor).blocks, IsEmpty());
}

TEST(IvfIndex, RefusesListsMadeFromOtherKeys) {
  IvfIndex index;
  Clusters text(7);
  Add(&index, DocumentId{1}, text.Text(500));
  Add(&index, DocumentId{2}, text.Text(500));
  const std::vector<IvfSegment> good = Build(index, DocumentId{1});
  const auto refused = [&](auto change) {
    std::vector<IvfSegment> bad = good;
    change(bad);
    return index.AddLists(bad).code() == StatusCode::kFailedPrecondition && !index.has_lists();
  };
  EXPECT_TRUE(
      refused([](auto& l) { l[0].document = DocumentId{2}, l[1].document = DocumentId{2}; }));
  EXPECT_TRUE(refused([](auto& l) { l[0].document = DocumentId{8}; }));
  EXPECT_TRUE(refused([](auto& l) { l.pop_back(); }));
  EXPECT_TRUE(refused([](auto& l) { std::swap(l[0], l[1]); }));
  EXPECT_TRUE(refused([](auto& l) { ++l[1].keys_hash; }));
  EXPECT_TRUE(refused([](auto& l) { l[1].order[3] = l[1].order[4]; }));
  EXPECT_TRUE(index.AddLists(good).ok());
}

TEST(IvfIndex, AnswersForAnEmptyMemoryAndForOneToken) {
  IvfIndex index;
  Clusters text(8);
  const ScanQuery query = text.Query(2);
  EXPECT_THAT(index.Query(query, 8, SerialFor).blocks, IsEmpty());
  EXPECT_THAT(index.Segments(DocumentId{1}), IsEmpty());
  Add(&index, DocumentId{1}, text.Text(1));
  BuildInto(&index, DocumentId{1});
  const ScanResult result = index.Query(query, 8, SerialFor);
  EXPECT_NEAR(result.sink_score, result.weight_sum, 1e-6);
  for (const auto& b : result.blocks) EXPECT_NEAR(b.score, 0, 1e-6);
  EXPECT_THAT(index.Query({.rows = 0, .head_dim = kDim}, 8, SerialFor).blocks, IsEmpty());
}

TEST(IvfIndex, GivesTheSameResultOnSeveralThreads) {
  IvfIndex index({.share = 0.1, .sample_tokens = 512});
  Clusters text(9);
  Add(&index, DocumentId{1}, text.Text(kTokens));
  const std::vector<IvfSegment> serial = Build(index, DocumentId{1}, SerialFor);
  EXPECT_EQ(serial, Build(index, DocumentId{1}, TwoThreads));
  ASSERT_TRUE(index.AddLists(serial).ok());
  const ScanQuery query = text.Query(100);
  const ScanResult one = index.Query(query, 20, SerialFor);
  // Two concurrent queries, each on two threads.
  std::vector<ScanResult> two(2);
  TwoThreads(2, [&](size_t i) { two[i] = index.Query(query, 20, TwoThreads); });
  for (const ScanResult& result : two) {
    EXPECT_EQ(result.row_lse, one.row_lse);
    ASSERT_EQ(result.blocks.size(), one.blocks.size());
    for (size_t i = 0; i < one.blocks.size(); ++i)
      EXPECT_EQ(result.blocks[i].block, one.blocks[i].block);
  }
}

TEST(IvfSegment, ContainsEveryTokenButTheSinkOnce) {
  IvfIndex index;
  Clusters text(10);
  Add(&index, DocumentId{1}, text.Text(kTokens));
  const IvfSegment lists = Build(index, DocumentId{1})[0];
  EXPECT_EQ(lists.lists(), 93u);  // at most one for 64 keys
  std::vector<uint32_t> tokens = lists.order;
  std::sort(tokens.begin(), tokens.end());
  ASSERT_THAT(tokens, SizeIs(kTokens - 1));
  for (uint32_t t = 1; t < kTokens; ++t) ASSERT_EQ(tokens[t - 1], t);
}

IvfSegment Sample() {
  IvfIndex index;
  Clusters text(11);
  Add(&index, DocumentId{5}, text.Text(300));
  return Build(index, DocumentId{5})[1];
}

TEST(IvfSegment, RoundTrips) {
  const IvfSegment segment = Sample();
  const Result<IvfSegment> back = IvfSegment::Decode(segment.Encode());
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  EXPECT_EQ(*back, segment);
}

// docs/formats/index.md, version 1: a change here changes the format.
TEST(IvfSegment, EncodesToTheDocumentedBytes) {
  IvfSegment segment{.document = DocumentId{7},
                     .head = 1,
                     .head_dim = 4,
                     .tokens = 4,
                     .keys_hash = 0x0123456789ABCDEF};
  segment.list_begin = {0, 1, 3};
  segment.order = {2, 1, 3};
  segment.mean = {1, -2, 0.5f, 0, 3, 4, 5, 6};
  segment.variance = {0, 0, 0, 0, 1, 2, 0.25f, 0};
  const std::string bytes = segment.Encode();
  EXPECT_EQ(bytes.size(), 40u + 12 + 12 + 64 + 8);
  EXPECT_EQ(Hash64(bytes), 18342637295107864133ull);
  EXPECT_TRUE(IvfSegment::Decode(bytes).ok());
}

TEST(IvfSegment, DamageIsDataLoss) {
  const std::string bytes = Sample().Encode();
  for (size_t i = 0; i < bytes.size(); i += i < 64 ? 1 : 13) {
    for (const int bit : {0, 7}) {
      std::string bad = bytes;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      ASSERT_EQ(IvfSegment::Decode(bad).status().code(), StatusCode::kDataLoss) << i;
    }
    ASSERT_EQ(IvfSegment::Decode(std::string_view(bytes).substr(0, i)).status().code(),
              StatusCode::kDataLoss)
        << i;
  }
  EXPECT_EQ(IvfSegment::Decode(bytes + '\0').status().code(), StatusCode::kDataLoss);
}

// A forger who writes a wrong value under a right checksum must not get further either.
TEST(IvfSegment, RefusesWrongContentsUnderRightChecksums) {
  const IvfSegment good = Sample();
  const auto code = [](std::string bytes, size_t at, uint32_t value) {
    std::memcpy(bytes.data() + at, &value, 4);
    const uint64_t checksum = Hash64(std::string_view(bytes).substr(0, bytes.size() - 8));
    std::memcpy(bytes.data() + bytes.size() - 8, &checksum, 8);
    return IvfSegment::Decode(bytes).status().code();
  };
  const std::string bytes = good.Encode();
  EXPECT_EQ(code(bytes, 4, 2), StatusCode::kFailedPrecondition);
  for (const size_t field :
       {12, 16, 20, 24, 28}) {  // header fields: head, head_dim, tokens, lists, reserved
    for (const uint32_t value : {0xFFFFFFFFu, 0x80000000u, 66u}) {
      EXPECT_EQ(code(bytes, field, value), StatusCode::kDataLoss) << field << " " << value;
    }
  }
  for (const size_t field : {16, 20, 24})
    EXPECT_EQ(code(bytes, field, 0), StatusCode::kDataLoss) << field;
  const size_t begins = 40, order = begins + 4 * good.list_begin.size(),
               moments = order + 4 * good.order.size();
  EXPECT_EQ(code(bytes, begins, 1), StatusCode::kDataLoss);
  EXPECT_EQ(code(bytes, begins + 4, 0xFFFFFFFF), StatusCode::kDataLoss);
  EXPECT_EQ(code(bytes, order, 0), StatusCode::kDataLoss);
  EXPECT_EQ(code(bytes, order, 300), StatusCode::kDataLoss);
  EXPECT_EQ(code(bytes, order, good.order[1]), StatusCode::kDataLoss);
  // an infinite mean
  EXPECT_EQ(code(bytes, moments, 0x7F800000), StatusCode::kDataLoss);
  // a variance of -1
  EXPECT_EQ(code(bytes, moments + 4 * good.mean.size(), 0xBF800000), StatusCode::kDataLoss);
}

}  // namespace
}  // namespace longhold
