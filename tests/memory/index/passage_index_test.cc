// Compares PassageIndex::Search with brute force over the decoded codes.
//
// Sizes: 1 vector to three shards of 16,384 (kShardVectors in passage_index.cc), and one vector
// less and more than a full shard; 4 dimensions keep this fast, and with 256 levels per dimension
// most vectors differ. Components are multiples of 1 / 255 below 1, so that a product of four
// differs by at most 1e-6 between float and double: places may be swapped only where their
// similarities are closer than that. Ties use few distinct vectors: equal codes give equal floats,
// so their order must be exact.
#include "memory/index/passage_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>

#include "tests/support/sanitized.h"
#include "tests/support/two_threads.h"

namespace longhold {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr uint32_t kDim = 4;
constexpr size_t kShard = 16384;
constexpr double kTolerance = 1e-6;

using Code = std::vector<uint8_t>;

// A segment of one-token sentences, in passages of three, from token 0 of a document.
PassageSegment Segment(uint32_t document, const std::vector<Code>& codes, uint64_t begin = 0,
                       uint64_t embedder = 1) {
  PassageSegment segment{.document = DocumentId{document}, .token_begin = begin};
  segment.token_count = static_cast<uint32_t>(codes.size());
  segment.embedder = embedder;
  segment.dim = static_cast<uint32_t>(codes[0].size());
  for (size_t s = 0; s < codes.size(); ++s) {
    segment.sentences.push_back(static_cast<uint16_t>(s));
    if (s % 3 == 0) segment.passages.push_back(static_cast<uint16_t>(s));
    segment.codes.insert(segment.codes.end(), codes[s].begin(), codes[s].end());
  }
  return segment;
}

std::vector<Code> RandomCodes(std::mt19937_64& rng, size_t count, uint32_t dim = kDim) {
  std::vector<Code> codes(count, Code(dim));
  for (Code& code : codes) {
    for (uint8_t& c : code) c = static_cast<uint8_t>(rng());
  }
  return codes;
}

double Product(const Code& code, const std::vector<float>& query) {
  double sum = 0;
  for (size_t c = 0; c < code.size(); ++c)
    sum += (2.0 * code[c] - 254) / 255 * double{kPassageRange} * double{query[c]};
  return sum;
}

std::vector<float> RandomQuery(std::mt19937_64& rng, uint32_t dim = kDim) {
  std::normal_distribution<float> normal;
  std::vector<float> query(dim);
  double squares = 0;
  for (float& q : query) {
    q = normal(rng);
    squares += double{q} * q;
  }
  for (float& q : query) q = static_cast<float>(q / std::sqrt(squares));
  return query;
}

// Documents and their vectors, next to the index that holds them.
struct World {
  std::map<uint32_t, std::vector<Code>> documents;
  PassageIndex index;

  void Add(uint32_t document, const std::vector<Code>& codes) {
    std::vector<Code>& all = documents[document];
    constexpr size_t kSegment = 4096;
    for (size_t begin = 0; begin < codes.size(); begin += kSegment) {
      const std::vector<Code> part(
          codes.begin() + static_cast<ptrdiff_t>(begin),
          codes.begin() + static_cast<ptrdiff_t>(std::min(codes.size(), begin + kSegment)));
      const Status status = index.Add(Segment(document, part, all.size()));
      ASSERT_TRUE(status.ok()) << status.ToString();
      all.insert(all.end(), part.begin(), part.end());
    }
  }
  uint64_t size() const {
    uint64_t count = 0;
    for (const auto& [document, codes] : documents) count += codes.size();
    return count;
  }
  // All similarities, the largest first; of equal ones the earlier.
  std::vector<PassageMatch> BruteForce(const std::vector<float>& query) const {
    std::vector<PassageMatch> all;
    for (const auto& [document, codes] : documents) {
      for (uint64_t t = 0; t < codes.size(); ++t) {
        const uint64_t segment = t / 4096 * 4096, in_segment = t - segment;
        const uint64_t passage = segment + in_segment / 3 * 3;
        const uint64_t end = std::min({passage + 3, segment + 4096, uint64_t{codes.size()}});
        all.push_back({DocumentId{document}, {t, t + 1}, {passage, end}, Product(codes[t], query)});
      }
    }
    std::stable_sort(all.begin(), all.end(), [](const PassageMatch& a, const PassageMatch& b) {
      return a.cosine > b.cosine;
    });
    return all;
  }
  std::vector<PassageMatch> Search(const std::vector<float>& query, size_t count,
                                   const ParallelFor& parallel = SerialFor) const {
    Result<std::vector<PassageMatch>> found = index.Search(query, count, parallel);
    EXPECT_TRUE(found.ok()) << found.status().ToString();
    return found.ok() ? std::move(*found) : std::vector<PassageMatch>();
  }
  void ExpectBruteForce(const std::vector<float>& query, size_t count) const {
    SCOPED_TRACE(std::to_string(count) + " of " + std::to_string(size()));
    const std::vector<PassageMatch> expected = BruteForce(query), found = Search(query, count);
    ASSERT_EQ(found.size(), std::min(count, expected.size()));
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_NEAR(found[i].cosine, expected[i].cosine, kTolerance) << "rank " << i;
      const std::vector<Code>& codes = documents.at(static_cast<uint32_t>(found[i].document));
      const uint64_t t = found[i].sentence.begin;
      ASSERT_LT(t, codes.size());
      ASSERT_NEAR(found[i].cosine, Product(codes[t], query), kTolerance) << "rank " << i;
      ASSERT_EQ(found[i].sentence.end, t + 1);
      ASSERT_TRUE(found[i].passage.Contains(t));
      if (i == 0) continue;
      ASSERT_TRUE(found[i - 1].cosine > found[i].cosine ||
                  std::pair(found[i - 1].document, found[i - 1].sentence) <
                      std::pair(found[i].document, found[i].sentence))
          << "rank " << i;
    }
  }
};

void ExpectSame(const std::vector<PassageMatch>& expected, const std::vector<PassageMatch>& got) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].document, expected[i].document) << "rank " << i;
    ASSERT_EQ(got[i].sentence, expected[i].sentence) << "rank " << i;
    ASSERT_EQ(got[i].passage, expected[i].passage) << "rank " << i;
    ASSERT_EQ(got[i].cosine, expected[i].cosine) << "rank " << i;
  }
}

TEST(PassageIndex, AnEmptyOneFindsNothing) {
  const PassageIndex index;
  EXPECT_EQ(index.vectors(), 0u);
  EXPECT_THAT(*index.Search(std::vector<float>(kDim, 0.5f), 10, SerialFor), IsEmpty());
  EXPECT_THAT(*index.Search({}, 10, SerialFor), IsEmpty());
}

TEST(PassageIndex, FindsTheNearestAsBruteForceDoes) {
  std::mt19937_64 rng(1);
  for (const size_t size : {size_t{1}, size_t{2}, size_t{100}, size_t{5000}, kShard - 1, kShard,
                            kShard + 1, 2 * kShard, 2 * kShard + 5}) {
    if (kSanitized && size > kShard + 1) continue;
    World w;
    w.Add(1, RandomCodes(rng, (size + 1) / 2));
    if (size > 1) w.Add(2, RandomCodes(rng, size / 2));
    ASSERT_EQ(w.index.vectors(), size);
    for (int q = 0; q < 3; ++q) {
      const std::vector<float> query = RandomQuery(rng);
      for (const size_t count : {size_t{1}, size_t{7}, size_t{256}})
        w.ExpectBruteForce(query, count);
    }
  }
}

// FAISS has kernels for dimensions that are a multiple of 8 or of 16.
TEST(PassageIndex, WorksForAnyDimension) {
  std::mt19937_64 rng(2);
  for (const uint32_t dim : {1u, 3u, 8u, 15u, 16u, 32u, 33u, 384u}) {
    SCOPED_TRACE(dim);
    World w;
    w.Add(1, RandomCodes(rng, 300, dim));
    const std::vector<float> query = RandomQuery(rng, dim);
    const std::vector<PassageMatch> expected = w.BruteForce(query), found = w.Search(query, 20);
    ASSERT_THAT(found, SizeIs(20));
    // The error of a float sum grows with its terms.
    for (size_t i = 0; i < found.size(); ++i)
      EXPECT_NEAR(found[i].cosine, expected[i].cosine, 1e-5);
  }
}

TEST(PassageIndex, NothingIsFoundTwice) {
  std::mt19937_64 rng(3);
  World w;
  w.Add(1, RandomCodes(rng, kShard + 100));
  std::set<TokenSpan> found;
  for (const PassageMatch& match : w.Search(RandomQuery(rng), 2 * kShard))
    EXPECT_TRUE(found.insert(match.sentence).second);
  EXPECT_THAT(found, SizeIs(kShard + 100));
}

TEST(PassageIndex, MoreThanThereIsReturnsAll) {
  std::mt19937_64 rng(4);
  World w;
  w.Add(1, RandomCodes(rng, 50));
  const std::vector<float> query = RandomQuery(rng);
  w.ExpectBruteForce(query, 50);
  w.ExpectBruteForce(query, 51);
  w.ExpectBruteForce(query, SIZE_MAX);
  EXPECT_THAT(w.Search(query, 0), IsEmpty());
}

TEST(PassageIndex, OneThreadAndSeveralFindTheSame) {
  std::mt19937_64 rng(7);
  World w;
  w.Add(1, RandomCodes(rng, 2 * kShard + 100));
  for (int q = 0; q < 5; ++q) {
    const std::vector<float> query = RandomQuery(rng);
    ExpectSame(w.Search(query, 200), w.Search(query, 200, TwoThreads));
  }
}

TEST(PassageIndex, RemovingADocumentIsAsIfItHadNeverBeenThere) {
  std::mt19937_64 rng(8);
  World all, without;
  for (uint32_t document = 1; document <= 5; ++document) {
    const std::vector<Code> codes = RandomCodes(rng, document == 3 ? 7 : 4100);
    all.Add(document, codes);
    if (document != 2 && document != 5) without.Add(document, codes);
  }
  const auto remove = [&](uint32_t document) {
    all.index.Remove(DocumentId{document});
    all.documents.erase(document);
  };
  remove(2);
  remove(5);
  remove(2);  // once more: nothing
  remove(77);
  EXPECT_EQ(all.index.vectors(), without.index.vectors());
  for (int q = 0; q < 5; ++q) {
    const std::vector<float> query = RandomQuery(rng);
    ExpectSame(without.Search(query, 100), all.Search(query, 100));
    all.ExpectBruteForce(query, 100);
  }
  // The removed tokens may come again.
  all.Add(2, RandomCodes(rng, 500));
  all.ExpectBruteForce(RandomQuery(rng), 100);
  for (const uint32_t document : {1, 2, 3, 4}) remove(document);
  EXPECT_EQ(all.index.vectors(), 0u);
  EXPECT_THAT(all.Search(RandomQuery(rng), 100), IsEmpty());
}

TEST(PassageIndex, RefusesOtherEmbeddersAndStaysAsItIs) {
  std::mt19937_64 rng(9);
  World w;
  w.Add(1, RandomCodes(rng, 10));
  for (const PassageSegment& other :
       {Segment(2, RandomCodes(rng, 10), 0, 2), Segment(2, RandomCodes(rng, 10, kDim + 1))}) {
    const Status status = w.index.Add(other);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("document 2: made by another embedding model"));
  }
  PassageSegment malformed = Segment(2, RandomCodes(rng, 10));
  malformed.sentences[3] = 9;
  EXPECT_EQ(w.index.Add(malformed).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(w.index.vectors(), 10u);
  w.ExpectBruteForce(RandomQuery(rng), 100);
  w.Add(2, RandomCodes(rng, 10));
  w.ExpectBruteForce(RandomQuery(rng), 100);
}

TEST(PassageIndex, RefusesAQueryOfAnotherDimension) {
  std::mt19937_64 rng(10);
  World w;
  w.Add(1, RandomCodes(rng, 10));
  for (const uint32_t dim : {kDim - 1, kDim + 1}) {
    const Status status = w.index.Search(RandomQuery(rng, dim), 5, SerialFor).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("the query has " + std::to_string(dim)));
  }
  EXPECT_EQ(w.index.Search({}, 5, SerialFor).status().code(), StatusCode::kInvalidArgument);
}

TEST(PassageIndex, AMovedOneTakesItsVectorsAlong) {
  std::mt19937_64 rng(11);
  World w;
  w.Add(1, RandomCodes(rng, 10));
  PassageIndex moved = std::move(w.index);
  EXPECT_EQ(moved.vectors(), 10u);
  w.index = std::move(moved);
  w.ExpectBruteForce(RandomQuery(rng), 100);
}

}  // namespace
}  // namespace longhold
