#include "memory/index/passage_index.h"

#include <faiss/IndexScalarQuantizer.h>

#include <algorithm>
#include <cmath>
#include <new>
#include <string>
#include <utility>

#include "memory/index/serial_blas.h"

namespace longhold {
namespace {

// Vectors of a shard: 6 MB with 384 dimensions. A third of a million tokens fills one, so that the
// workers share the work from there on.
constexpr size_t kShardVectors = 16384;

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
  std::vector<Place> places;  // [vectors]
};

PassageIndex::PassageIndex() = default;
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
  if (shards_.empty()) dim_ = 0;
}

uint64_t PassageIndex::vectors() const {
  uint64_t count = 0;
  for (const auto& shard : shards_) count += shard->places.size();
  return count;
}

Result<std::vector<PassageMatch>> PassageIndex::Search(std::span<const float> query, size_t count,
                                                       const ParallelFor& parallel) const {
  if (shards_.empty() || count == 0) return std::vector<PassageMatch>();
  if (query.size() != dim_) {
    return InvalidArgument("search passages: the query has " + std::to_string(query.size()) +
                           " dimensions, the index " + std::to_string(dim_));
  }
  std::vector<std::vector<PassageMatch>> found(shards_.size());
  std::vector<Status> statuses(shards_.size());
  parallel(shards_.size(), [&](size_t s) {
    const Shard& shard = *shards_[s];
    const auto k = static_cast<faiss::Index::idx_t>(std::min(count, shard.places.size()));
    std::vector<float> products(static_cast<size_t>(k));
    std::vector<faiss::Index::idx_t> ids(static_cast<size_t>(k));
    try {
      const OneOmpThread one;
      shard.index.search(1, query.data(), k, products.data(), ids.data());
    } catch (const std::exception& e) {
      statuses[s] = Internal(std::string("search passages: ") + e.what());
      return;
    }
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] < 0) continue;
      const auto at = static_cast<size_t>(ids[i]);
      const Shard::Place& place = shard.places[at];
      found[s].push_back({place.document, place.sentence, place.passage,
                          std::clamp<double>(products[i], -1, 1), shard.PassageCosine(query, at)});
    }
  });
  std::vector<PassageMatch> all;
  for (size_t s = 0; s < shards_.size(); ++s) {
    LH_RETURN_IF_ERROR(statuses[s]);
    all.insert(all.end(), found[s].begin(), found[s].end());
  }
  std::sort(all.begin(), all.end(), [](const PassageMatch& a, const PassageMatch& b) {
    if (a.cosine != b.cosine) return a.cosine > b.cosine;
    return std::pair(a.document, a.sentence) < std::pair(b.document, b.sentence);
  });
  if (all.size() > count) all.resize(count);
  return all;
}

}  // namespace longhold
