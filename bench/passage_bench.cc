// Times a search of the passage index by its size: flat, and with a first pass over signs. Counts
// how much of the flat search's result the other one finds.
//
//   passage_bench                            random vectors
//   passage_bench VECTORS QUESTIONS [SIZE]   files of float32, [n, 384]; SIZE million tokens at
//   most
//
// Vectors have 384 components, as those of all-MiniLM-L6-v2. There are 90 for 2,048 tokens, as in
// the texts of docs/figures.md. Where the file has fewer than a size asks for, the others are made
// of them: a vector, plus 0.6 times another one, plus noise of length 0.3, at length 1 (so the
// cosine with the first is 0.85). Each search is for the 256 nearest, which is what recall asks
// for. It runs on one thread, and on as many as there are processors. Prints medians, the range of
// the middle half, and the share of the flat search's first 1, 10, 100 and 256 matches that are
// found. A vector costs the same whatever it holds. But random vectors have no near neighbours, so
// only the share for real ones says something about recall.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "memory/index/passage_index.h"

using namespace longhold;

namespace {

constexpr uint32_t kDim = 384, kSentences = 90, kSegmentTokens = 2048;
constexpr size_t kQueries = 61;
constexpr size_t kNearest = 256;
constexpr size_t kRanks[] = {1, 10, 100, kNearest};

using Vector = std::vector<float>;

// `v` at length 1.
Vector Unit(Vector v) {
  double square = 0;
  for (const float x : v) square += double{x} * x;
  for (float& x : v) x = static_cast<float>(x / std::sqrt(square));
  return v;
}

// Vectors of a file, or random ones.
class Source {
 public:
  explicit Source(const char* path) {
    if (path == nullptr) return;
    std::ifstream file(path, std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), {});
    Vector v(kDim);
    for (size_t at = 0; at + kDim * sizeof(float) <= bytes.size(); at += kDim * sizeof(float)) {
      std::copy_n(bytes.data() + at, kDim * sizeof(float), reinterpret_cast<char*>(v.data()));
      vectors_.push_back(Unit(v));
    }
    if (!vectors_.empty()) return;
    std::fprintf(stderr, "passage_bench: no vectors in %s\n", path);
    std::exit(1);
  }
  Vector Next() {
    if (vectors_.empty()) return Unit(Noise(1));
    const size_t at = next_++;
    if (at < vectors_.size()) return vectors_[at];
    Vector v = Noise(0.3f);
    const Vector &a = vectors_[at % vectors_.size()], &b = vectors_[rng_() % vectors_.size()];
    for (size_t i = 0; i < kDim; ++i) v[i] += a[i] + 0.6f * b[i];
    return Unit(std::move(v));
  }
  // One of `count` that are spread over the file.
  Vector Question(size_t at, size_t count) {
    return vectors_.empty() ? Unit(Noise(1)) : vectors_[at * vectors_.size() / count];
  }

 private:
  // Normally distributed components; the expected length is `length`.
  Vector Noise(float length) {
    std::normal_distribution<float> normal(0, length / std::sqrt(float{kDim}));
    Vector v(kDim);
    for (float& x : v) x = normal(rng_);
    return v;
  }

  std::mt19937 rng_{1};
  std::vector<Vector> vectors_;
  size_t next_ = 0;
};

PassageSegment NextSegment(uint32_t number, Source& source) {
  PassageSegment segment;
  segment.document = DocumentId{1};
  segment.token_begin = uint64_t{number} * kSegmentTokens;
  segment.token_count = kSegmentTokens;
  segment.embedder = 1;
  segment.dim = kDim;
  for (uint16_t s = 0; s < kSentences; ++s) {
    segment.sentences.push_back(static_cast<uint16_t>(s * (kSegmentTokens / kSentences)));
    if (s % 3 == 0) segment.passages.push_back(s);
    const Vector v = source.Next();
    segment.codes.resize(segment.codes.size() + kDim);
    EncodeComponents(v, segment.codes.data() + segment.codes.size() - kDim);
  }
  return segment;
}

struct Run {
  std::vector<std::vector<PassageMatch>> found;  // [questions]
  std::vector<double> clock_ms, processor_ms;    // [questions], sorted
};

Run SearchAll(const PassageIndex& index, const std::vector<Vector>& questions,
              const ParallelFor& parallel) {
  Run run;
  for (const Vector& question : questions) {
    const auto begin = std::chrono::steady_clock::now();
    const std::clock_t processor_begin = std::clock();
    Result<std::vector<PassageMatch>> found = index.Search(question, kNearest, parallel);
    const std::clock_t processor_end = std::clock();
    const auto end = std::chrono::steady_clock::now();
    if (!found.ok()) std::exit(1);
    run.clock_ms.push_back(std::chrono::duration<double, std::milli>(end - begin).count());
    run.processor_ms.push_back(1e3 * static_cast<double>(processor_end - processor_begin) /
                               CLOCKS_PER_SEC);
    run.found.push_back(std::move(*found));
  }
  for (std::vector<double>* ms : {&run.clock_ms, &run.processor_ms})
    std::sort(ms->begin(), ms->end());
  return run;
}

double ShareFound(const Run& flat, const Run& other, size_t rank) {
  size_t found = 0, all = 0;
  for (size_t q = 0; q < flat.found.size(); ++q) {
    std::set<TokenSpan> known;
    for (const PassageMatch& match : other.found[q]) known.insert(match.sentence);
    for (size_t i = 0; i < std::min(rank, flat.found[q].size()); ++i, ++all)
      found += known.count(flat.found[q][i].sentence);
  }
  return 100.0 * static_cast<double>(found) / static_cast<double>(std::max<size_t>(all, 1));
}

void Print(const char* name, const std::vector<double>& ms) {
  std::printf("  %s %6.2f (%.2f to %.2f) ms", name, ms[ms.size() / 2], ms[ms.size() / 4],
              ms[ms.size() * 3 / 4]);
}

}  // namespace

int main(int argc, char** argv) {
  Source source(argc > 1 ? argv[1] : nullptr), asked(argc > 2 ? argv[2] : nullptr);
  uint32_t size_max = 16;
  if (argc > 3) std::from_chars(argv[3], argv[3] + std::strlen(argv[3]), size_max);
  std::vector<Vector> questions;
  for (size_t q = 0; q < kQueries; ++q) questions.push_back(asked.Question(q, kQueries));
  PassageIndex flat(UINT64_MAX), with_signs(0);
  uint32_t segments = 0;
  for (const uint32_t tokens_million : {1u, 4u, 16u, 24u, 32u, 64u}) {
    if (tokens_million > size_max) break;
    for (; uint64_t{segments} * kSegmentTokens < tokens_million * 1'000'000ull; ++segments) {
      const PassageSegment segment = NextSegment(segments, source);
      if (!flat.Add(segment).ok() || !with_signs.Add(segment).ok()) return 1;
    }
    std::printf("%llu sentences, about %u million tokens\n",
                static_cast<unsigned long long>(flat.vectors()), tokens_million);
    Run exact;
    for (const bool signs : {false, true}) {
      std::printf("  %-6s", signs ? "signs:" : "flat:");
      const PassageIndex& index = signs ? with_signs : flat;
      const Run one = SearchAll(index, questions, SerialFor);
      Print("one thread", one.processor_ms);
      Print("all processors", SearchAll(index, questions, ThreadsFor).clock_ms);
      if (!signs) exact = one;
      for (const size_t rank : kRanks) {
        if (signs)
          std::printf("%s%zu: %.2f", rank == 1 ? "  found % of first " : ", ", rank,
                      ShareFound(exact, one, rank));
      }
      std::printf("\n");
      std::fflush(stdout);
    }
  }
}
