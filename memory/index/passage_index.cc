#include "memory/index/passage_index.h"

#include <faiss/IndexScalarQuantizer.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>
#include <string>
#include <utility>

namespace longhold {
namespace {

// Vectors of a shard: 6 MB with 384 dimensions. A third of a million tokens fills one, so that the
// workers share the work from there on.
constexpr size_t kShardVectors = 16384;
// Vectors that are scored exactly for each that is asked for, after a pass over signs. Among 2.8
// million, 16 found 99.5 % of the 256 nearest and 32 found 99.9 %, for 4 ms more.
constexpr size_t kSignOversample = 32;

// Counts estimates in bins of equal width, to find how large the best ones are without sorting
// all. Value type.
class EstimateHistogram {
 public:
  // Estimates of `max` and above share the last bin; those of 0 and below the first.
  explicit EstimateHistogram(int32_t max) : counts_(kBins, 0) {
    while ((max >> shift_) >= static_cast<int32_t>(kBins)) ++shift_;
  }
  void Add(std::span<const int32_t> estimates) {
    for (const int32_t e : estimates) {
      ++counts_[std::min(static_cast<size_t>(std::max(e, 0) >> shift_), kBins - 1)];
    }
  }
  void Add(const EstimateHistogram& other) {
    for (size_t b = 0; b < kBins; ++b) counts_[b] += other.counts_[b];
  }
  // An estimate that at least `count` reach: the lower end of a bin.
  int32_t Reached(uint64_t count) const {
    uint64_t above = 0;
    for (size_t b = kBins; --b > 0;) {
      above += counts_[b];
      if (above >= count) return static_cast<int32_t>(b << shift_);
    }
    return std::numeric_limits<int32_t>::min();
  }

 private:
  static constexpr size_t kBins = 2048;
  std::vector<uint32_t> counts_;
  int shift_ = 0;
};

}  // namespace

struct PassageIndex::Shard {
  struct Place {
    DocumentId document{};
    TokenSpan sentence, passage;
  };

  explicit Shard(uint32_t dim)
      : index(static_cast<int>(dim), faiss::ScalarQuantizer::QT_8bit_uniform,
              faiss::METRIC_INNER_PRODUCT) {
    // FAISS decodes a code as trained[0] + trained[1] * (code + 0.5) / 255.
    index.sq.trained = {-kPassageRange, 2 * kPassageRange};
    index.is_trained = true;
  }
  void Append(const uint8_t* code, const Place& place) {
    index.codes.insert(index.codes.end(), code, code + index.d);
    ++index.ntotal;
    places.push_back(place);
  }

  // The cosine of `query` and the mean of the vectors of the passage that vector `at` belongs to. A
  // passage's vectors stand side by side; those in another shard do not count.
  double PassageCosine(std::span<const float> query, size_t at) const {
    const auto same = [&](size_t v) {
      return places[v].document == places[at].document && places[v].passage == places[at].passage;
    };
    size_t begin = at, end = at + 1;
    while (begin > 0 && same(begin - 1)) --begin;
    while (end < places.size() && same(end)) ++end;
    // Sums of components, as (2 * code - 254); the scale does not matter.
    std::vector<int32_t> sum(query.size(), 0);
    for (size_t v = begin; v < end; ++v) {
      const uint8_t* code = index.codes.data() + v * sum.size();
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += 2 * code[i] - 254;
    }
    double product = 0, square = 0;
    for (size_t i = 0; i < sum.size(); ++i) {
      product += static_cast<double>(sum[i]) * query[i];
      square += static_cast<double>(sum[i]) * sum[i];
    }
    return square > 0 ? std::clamp(product / std::sqrt(square), -1.0, 1.0) : 0;
  }

  faiss::IndexScalarQuantizer index;
  std::vector<Place> places;    // [vectors]
  std::vector<uint64_t> signs;  // [vectors, SignWords(dim)], or fewer: see CompleteSigns
};

PassageIndex::PassageIndex(uint64_t signs_from) : signs_from_(signs_from) {}
PassageIndex::~PassageIndex() = default;
PassageIndex::PassageIndex(PassageIndex&&) noexcept = default;
PassageIndex& PassageIndex::operator=(PassageIndex&&) noexcept = default;

PassageIndex::Shard& PassageIndex::Open() {
  if (shards_.empty() || shards_.back()->places.size() == kShardVectors)
    shards_.push_back(std::make_unique<Shard>(dim_));
  return *shards_.back();
}

Status PassageIndex::Add(const PassageSegment& segment) {
  const auto refused = [&](const std::string& why) {
    return InvalidArgument("passage segment at token " + std::to_string(segment.token_begin) +
                           " of document " +
                           std::to_string(static_cast<uint32_t>(segment.document)) + ": " + why);
  };
  if (const char* fault = segment.Fault()) return refused(fault);
  if (dim_ == 0) {
    dim_ = segment.dim;
    embedder_ = segment.embedder;
  }
  if (embedder_ != segment.embedder || dim_ != segment.dim)
    return refused("made by another embedding model");
  try {
    for (uint32_t p = 0; p < segment.passages.size(); ++p) {
      const TokenSpan passage = segment.Passage(p);
      for (uint32_t s = segment.passages[p];
           s < segment.sentences.size() && segment.Sentence(s).begin < passage.end; ++s) {
        Open().Append(segment.codes.data() + size_t{s} * dim_,
                      {segment.document, segment.Sentence(s), passage});
      }
    }
    CompleteSigns();
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("passage index: out of memory");
  }
  return OkStatus();
}

void PassageIndex::Remove(DocumentId document) {
  const std::vector<std::unique_ptr<Shard>> before = std::exchange(shards_, {});
  for (const auto& shard : before) {
    for (size_t v = 0; v < shard->places.size(); ++v) {
      if (shard->places[v].document == document) continue;
      Open().Append(shard->index.codes.data() + v * dim_, shard->places[v]);
    }
  }
  CompleteSigns();
  if (shards_.empty()) dim_ = 0;
}

void PassageIndex::CompleteSigns() {
  if (vectors() < signs_from_) return;
  const size_t words = SignWords(dim_);
  for (const auto& shard : shards_) {
    const size_t have = shard->signs.size() / words, all = shard->places.size();
    if (have == all) continue;
    shard->signs.reserve(kShardVectors * words);
    AppendSigns(shard->index.codes.data() + have * dim_, all - have, dim_, shard->signs);
  }
}

bool PassageIndex::HasSigns() const {
  if (vectors() < signs_from_) return false;
  // They are incomplete where an Add ran out of memory.
  return std::all_of(shards_.begin(), shards_.end(), [&](const auto& shard) {
    return shard->signs.size() == shard->places.size() * SignWords(dim_);
  });
}

uint64_t PassageIndex::vectors() const {
  uint64_t count = 0;
  for (const auto& shard : shards_) count += shard->places.size();
  return count;
}

Result<std::vector<PassageIndex::Scored>> PassageIndex::Shortlist(
    std::span<const float> query, size_t count, const ParallelFor& parallel) const {
  const bool has_signs = HasSigns();
  const CodeScan codes(query);
  const SignScan signs(query);
  const EstimateHistogram none(has_signs ? signs.Max() : codes.One());
  std::vector<EstimateHistogram> histograms(shards_.size(), none);
  std::vector<std::vector<int32_t>> estimates(shards_.size());
  for (size_t s = 0; s < shards_.size(); ++s) estimates[s].resize(shards_[s]->places.size());
  parallel(shards_.size(), [&](size_t s) {
    const Shard& shard = *shards_[s];
    if (has_signs) {
      signs.Estimate(shard.signs.data(), estimates[s].size(), estimates[s].data());
    } else {
      codes.Estimate(shard.index.codes.data(), estimates[s].size(), estimates[s].data());
    }
    histograms[s].Add(estimates[s]);
  });
  EstimateHistogram sum = none;
  for (const EstimateHistogram& histogram : histograms) sum.Add(histogram);
  int64_t least = sum.Reached(has_signs ? kSignOversample * count : count);
  // At least `count` products are no smaller than `least` less the error. A vector whose estimate
  // is smaller by the error once more cannot be among the nearest.
  if (!has_signs) least -= 2 * int64_t{codes.Error()};

  std::vector<std::vector<Scored>> found(shards_.size());
  std::vector<Status> statuses(shards_.size());
  parallel(shards_.size(), [&](size_t s) {
    const Shard& shard = *shards_[s];
    try {
      const std::unique_ptr<faiss::FlatCodesDistanceComputer> products(
          shard.index.get_FlatCodesDistanceComputer());
      products->set_query(query.data());
      for (size_t v = 0; v < estimates[s].size(); ++v) {
        if (estimates[s][v] < least) continue;
        const double product = (*products)(static_cast<faiss::Index::idx_t>(v));
        found[s].push_back({&shard, v, std::clamp(product, -1.0, 1.0)});
      }
    } catch (const std::exception& e) {
      statuses[s] = Internal(std::string("search passages: ") + e.what());
    }
  });
  std::vector<Scored> all;
  for (size_t s = 0; s < shards_.size(); ++s) {
    LH_RETURN_IF_ERROR(statuses[s]);
    all.insert(all.end(), found[s].begin(), found[s].end());
  }
  return all;
}

Result<std::vector<PassageMatch>> PassageIndex::Search(std::span<const float> query, size_t count,
                                                       const ParallelFor& parallel) const {
  count = std::min<size_t>(count, vectors());
  if (count == 0) return std::vector<PassageMatch>();
  if (query.size() != dim_) {
    return InvalidArgument("search passages: the query has " + std::to_string(query.size()) +
                           " dimensions, the index " + std::to_string(dim_));
  }
  LH_ASSIGN_OR_RETURN(std::vector<Scored> scored, Shortlist(query, count, parallel));
  std::partial_sort(scored.begin(), scored.begin() + static_cast<ptrdiff_t>(count), scored.end(),
                    [](const Scored& a, const Scored& b) {
                      if (a.product != b.product) return a.product > b.product;
                      const Shard::Place &x = a.shard->places[a.at], &y = b.shard->places[b.at];
                      return std::pair(x.document, x.sentence) < std::pair(y.document, y.sentence);
                    });
  std::vector<PassageMatch> nearest(count);
  parallel(count, [&](size_t i) {
    const Scored& s = scored[i];
    const Shard::Place& place = s.shard->places[s.at];
    nearest[i] = {place.document, place.sentence, place.passage, s.product,
                  s.shard->PassageCosine(query, s.at)};
  });
  return nearest;
}

}  // namespace longhold
