// Compares PassageIndex::Search with brute force over the decoded codes.
//
// Sizes: 1 vector to three shards of 16,384 (kShardVectors in passage_index.cc), and one vector
// less and more than a full shard; 4 dimensions keep this fast, and with 256 levels per dimension
// most vectors differ. Components are multiples of 1 / 255 below 1, so that a product of four
// differs by at most 1e-6 between float and double: places may be swapped only where their
// similarities are closer than that. Ties use few distinct vectors: equal codes give equal floats,
// so their order must be exact.
//
// Searches that read signs are compared with the flat one, for vectors of 384 dimensions in
// clusters. Where 32 times the count is all there is, or all vectors are equal, both must be the
// same.
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
  explicit World(uint64_t signs_from = kPassageSignsFrom) : index(signs_from) {}

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
  for (const uint64_t signs_from : {kPassageSignsFrom, uint64_t{0}}) {
    const PassageIndex index(signs_from);
    EXPECT_EQ(index.vectors(), 0u);
    EXPECT_THAT(*index.Search(std::vector<float>(kDim, 0.5f), 10, SerialFor), IsEmpty());
    EXPECT_THAT(*index.Search({}, 10, SerialFor), IsEmpty());
  }
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

// ---- Ties

TEST(PassageIndex, OfEqualOnesTheFirstAreReturned) {
  for (const uint64_t signs_from : {kPassageSignsFrom, uint64_t{0}}) {
    World w(signs_from);
    // The later document is added first, and fills more than a shard.
    w.Add(2, std::vector<Code>(kShard + 50, Code(kDim, 200)));
    w.Add(1, std::vector<Code>(20, Code(kDim, 200)));
    const std::vector<PassageMatch> found = w.Search({0.5f, 0.5f, 0.5f, 0.5f}, 30);
    ASSERT_THAT(found, SizeIs(30));
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_EQ(found[i].document, DocumentId{i < 20 ? 1u : 2u});
      EXPECT_EQ(found[i].sentence.begin, i < 20 ? i : i - 20);
    }
  }
}

// ---- Signs

// Vectors around `centres` random ones, with a cosine of about 0.8 to them.
std::vector<Code> Clustered(std::mt19937_64& rng, size_t count, size_t centres) {
  constexpr uint32_t kWide = 384;
  std::vector<std::vector<float>> centre;
  for (size_t c = 0; c < centres; ++c) centre.push_back(RandomQuery(rng, kWide));
  std::vector<Code> codes(count, Code(kWide));
  for (Code& code : codes) {
    const std::vector<float>& near = centre[rng() % centres];
    std::vector<float> v = RandomQuery(rng, kWide);
    for (uint32_t i = 0; i < kWide; ++i) v[i] = 0.8f * near[i] + 0.6f * v[i];
    EncodeComponents(v, code.data());
  }
  return codes;
}

// A question near a random one of the vectors.
std::vector<float> QuestionNear(std::mt19937_64& rng, const std::vector<Code>& codes) {
  const Code& code = codes[rng() % codes.size()];
  std::vector<float> query = RandomQuery(rng, static_cast<uint32_t>(code.size()));
  double square = 0;
  for (size_t i = 0; i < query.size(); ++i) {
    query[i] = 0.6f * query[i] + 0.8f * (2.0f * code[i] - 254) / 255 * kPassageRange;
    square += double{query[i]} * query[i];
  }
  for (float& q : query) q = static_cast<float>(q / std::sqrt(square));
  return query;
}

constexpr size_t kMany = kSanitized ? 6000 : 40000;

TEST(PassageIndex, SignsFindNearlyAllThatTheFlatSearchFinds) {
  std::mt19937_64 rng(12);
  const std::vector<Code> codes = Clustered(rng, kMany, 100);
  World flat, signs(0);
  for (World* w : {&flat, &signs}) {
    w->Add(1, {codes.begin(), codes.begin() + 5000});
    w->Add(2, {codes.begin() + 5000, codes.end()});
  }
  size_t found = 0, all = 0;
  for (int q = 0; q < 20; ++q) {
    const std::vector<float> query = QuestionNear(rng, codes);
    const std::vector<PassageMatch> expected = flat.Search(query, 100);
    const std::vector<PassageMatch> got = signs.Search(query, 100);
    ASSERT_THAT(got, SizeIs(100));
    std::map<std::pair<DocumentId, TokenSpan>, PassageMatch> known;
    for (const PassageMatch& match : got) known[{match.document, match.sentence}] = match;
    ASSERT_THAT(known, SizeIs(100)) << "nothing twice";
    for (size_t i = 0; i < expected.size(); ++i, ++all) {
      const auto same = known.find({expected[i].document, expected[i].sentence});
      if (same == known.end()) {
        EXPECT_GE(i, 10u) << "the first ten are all found";
        continue;
      }
      ++found;
      EXPECT_EQ(same->second.cosine, expected[i].cosine);
      EXPECT_EQ(same->second.passage_cosine, expected[i].passage_cosine);
      EXPECT_EQ(same->second.passage, expected[i].passage);
      if (i > 0) {
        EXPECT_GE(got[i - 1].cosine, got[i].cosine);
      }
    }
  }
  EXPECT_GE(found, all * 99 / 100) << "of " << all;
}

TEST(PassageIndex, SignsChangeNothingWhereEverythingIsScored) {
  std::mt19937_64 rng(13);
  const std::vector<Code> codes = Clustered(rng, 1600, 5);
  World flat, signs(0);
  for (World* w : {&flat, &signs}) w->Add(1, codes);
  for (const size_t count : {size_t{50}, size_t{1000}, size_t{1600}, size_t{SIZE_MAX}}) {
    const std::vector<float> query = QuestionNear(rng, codes);
    ExpectSame(flat.Search(query, count), signs.Search(query, count));
  }
  EXPECT_THAT(signs.Search(RandomQuery(rng, 384), 0), IsEmpty());
}

TEST(PassageIndex, SearchIsFlatBelowTheSizeForSigns) {
  std::mt19937_64 rng(14);
  const std::vector<Code> codes = Clustered(rng, kMany, 3);
  std::vector<std::vector<float>> queries;
  for (int q = 0; q < 10; ++q) queries.push_back(RandomQuery(rng, 384));
  World flat, limited(kMany + 1);
  for (World* w : {&flat, &limited}) w->Add(1, codes);
  const auto differences = [&] {
    size_t count = 0;
    for (const std::vector<float>& query : queries) {
      const std::vector<PassageMatch> a = flat.Search(query, 50), b = limited.Search(query, 50);
      for (size_t i = 0; i < 50; ++i) count += a[i].sentence == b[i].sentence ? 0 : 1;
    }
    return count;
  };
  EXPECT_EQ(differences(), 0u);
  // A question far from everything has many vectors at nearly the same distance.
  for (World* w : {&flat, &limited}) w->Add(2, {Code(384, 127)});
  EXPECT_GT(differences(), 0u) << "signs are read";
  for (World* w : {&flat, &limited}) w->index.Remove(DocumentId{2});
  EXPECT_EQ(differences(), 0u);
}

TEST(PassageIndex, WithSignsARemovedDocumentAndTheOrderOfAddLeaveNoTrace) {
  std::mt19937_64 rng(15);
  std::map<uint32_t, std::vector<Code>> documents;
  for (uint32_t document = 1; document <= 4; ++document)
    documents[document] = Clustered(rng, kMany / 8 * document + 7, 20);
  World all(0), without(0), last_first(0);
  for (const auto& [document, codes] : documents) {
    all.Add(document, codes);
    if (document != 2) without.Add(document, codes);
  }
  for (const uint32_t document : {4, 3, 1}) last_first.Add(document, documents[document]);
  all.index.Remove(DocumentId{2});
  for (int q = 0; q < 5; ++q) {
    const std::vector<float> query = QuestionNear(rng, documents[3]);
    const std::vector<PassageMatch> expected = without.Search(query, 100);
    ExpectSame(expected, all.Search(query, 100));
    ExpectSame(expected, all.Search(query, 100, TwoThreads));
    const std::vector<PassageMatch> other = last_first.Search(query, 100);
    ASSERT_THAT(other, SizeIs(100));
    for (size_t i = 0; i < other.size(); ++i) {
      EXPECT_EQ(other[i].document, expected[i].document) << "rank " << i;
      EXPECT_EQ(other[i].sentence, expected[i].sentence) << "rank " << i;
      EXPECT_EQ(other[i].cosine, expected[i].cosine) << "rank " << i;
    }
  }
  for (const uint32_t document : {1, 3, 4}) all.index.Remove(DocumentId{document});
  EXPECT_THAT(all.Search(RandomQuery(rng, 384), 10), IsEmpty());
  all.documents.clear();
  all.Add(1, RandomCodes(rng, 10));
  EXPECT_THAT(all.Search(RandomQuery(rng), 100), SizeIs(10)) << "of another dimension";
}

TEST(PassageIndex, SignsWorkForAnyDimension) {
  std::mt19937_64 rng(16);
  for (const uint32_t dim : {1u, 3u, 63u, 64u, 65u, 128u, 384u}) {
    SCOPED_TRACE(dim);
    World flat, signs(0);
    const std::vector<Code> codes = RandomCodes(rng, 1000, dim);
    for (World* w : {&flat, &signs}) w->Add(1, codes);
    for (int q = 0; q < 3; ++q) {
      // One of the vectors, so that it is the nearest by its signs too.
      const size_t at = rng() % codes.size();
      std::vector<float> query(dim);
      double square = 0;
      for (uint32_t i = 0; i < dim; ++i) {
        query[i] = 2.0f * codes[at][i] - 254;
        square += double{query[i]} * query[i];
      }
      for (float& x : query) x = static_cast<float>(x / std::sqrt(square));
      const std::vector<PassageMatch> expected = flat.Search(query, 10),
                                      got = signs.Search(query, 10);
      ASSERT_THAT(got, SizeIs(10));
      if (dim >= 63) {
        EXPECT_EQ(got[0].sentence, expected[0].sentence);
      }
      for (size_t i = 0; i < got.size(); ++i) EXPECT_LE(got[i].cosine, expected[i].cosine);
    }
  }
}

// ---- Misuse

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
