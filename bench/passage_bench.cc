// Times the flat search of the passage index by its size.
//
//   passage_bench
//
// Vectors have 384 components, as those of all-MiniLM-L6-v2. For each number of sentences it adds
// random unit vectors, 90 for 2,048 tokens as in the texts of docs/figures.md, and searches for the
// 256 nearest to 31 random vectors: on one thread, and on as many as there are processors. A vector
// costs the same whatever it holds, so random ones do. Prints medians, and the range of the middle
// half.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "memory/index/passage_index.h"

using namespace longhold;

namespace {

constexpr uint32_t kDim = 384, kSentences = 90, kSegmentTokens = 2048;
constexpr int kQueries = 31;
constexpr size_t kNearest = 256;

std::vector<float> RandomUnit(std::mt19937& rng) {
  std::normal_distribution<float> normal;
  std::vector<float> v(kDim);
  float square = 0;
  for (float& x : v) {
    x = normal(rng);
    square += x * x;
  }
  for (float& x : v) x /= std::sqrt(square);
  return v;
}

PassageSegment RandomSegment(uint32_t number, std::mt19937& rng) {
  PassageSegment segment;
  segment.document = DocumentId{1};
  segment.token_begin = uint64_t{number} * kSegmentTokens;
  segment.token_count = kSegmentTokens;
  segment.embedder = 1;
  segment.dim = kDim;
  for (uint16_t s = 0; s < kSentences; ++s) {
    segment.sentences.push_back(static_cast<uint16_t>(s * (kSegmentTokens / kSentences)));
    if (s % 3 == 0) segment.passages.push_back(s);
    const std::vector<float> v = RandomUnit(rng);
    segment.codes.resize(segment.codes.size() + kDim);
    EncodeComponents(v, segment.codes.data() + segment.codes.size() - kDim);
  }
  return segment;
}

void Print(const char* name, std::vector<double> ms) {
  std::sort(ms.begin(), ms.end());
  std::printf("  %s %8.2f (%.2f to %.2f) ms", name, ms[ms.size() / 2], ms[ms.size() / 4],
              ms[ms.size() * 3 / 4]);
}

}  // namespace

int main() {
  std::mt19937 rng(1);
  PassageIndex index;
  uint32_t segments = 0;
  for (const uint32_t tokens_million : {1u, 4u, 16u}) {
    for (; uint64_t{segments} * kSegmentTokens < tokens_million * 1'000'000ull; ++segments) {
      if (!index.Add(RandomSegment(segments, rng)).ok()) return 1;
    }
    std::printf("%9llu sentences, about %u million tokens:",
                static_cast<unsigned long long>(index.vectors()), tokens_million);
    for (const bool parallel : {false, true}) {
      std::vector<double> ms;
      for (int q = 0; q < kQueries; ++q) {
        const std::vector<float> query = RandomUnit(rng);
        const auto begin = std::chrono::steady_clock::now();
        if (!index.Search(query, kNearest, parallel ? ParallelFor(ThreadsFor) : SerialFor).ok())
          return 1;
        ms.push_back(
            std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
                .count());
      }
      Print(parallel ? "all processors" : "one thread", std::move(ms));
    }
    std::printf("\n");
  }
}
