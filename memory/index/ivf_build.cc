// Building of inverted lists: FAISS clusters the keys of a document, and each key is assigned to a
// list. FAISS types and exceptions stay in this file.
#include <faiss/Clustering.h>
#include <faiss/IndexFlat.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <mutex>
#include <new>
#include <utility>

#include "attention/geometry.h"
#include "attention/kernels.h"
#include "memory/index/document_keys.h"
#include "memory/index/ivf_index.h"
#include "memory/index/serial_blas.h"

namespace longhold {
namespace {

// Runs fn, which may call FAISS, and turns its exceptions into a Status. One call at a time.
template <typename Fn>
Status AtEdge(const char* what, Fn fn) {
  try {
    const std::lock_guard lock(BlasMutex());
    const OneOmpThread one;
    fn();
    return OkStatus();
  } catch (const std::bad_alloc&) {
    return ResourceExhausted(std::string(what) + ": out of memory");
  } catch (const std::exception& e) {
    return Internal(std::string(what) + ": " + e.what());
  }
}

// Assigning keys costs keys * lists. With this many lists it takes, including training, 5 s per
// million keys and head on two cores. The model needs half an hour to read as many tokens.
constexpr uint32_t kListsBuilt = 4096;

// Twice the square root of the number of keys, rounded up to a power of two. With more lists, a
// fixed share of the keys contains more of the attention. At most one list per 64 keys.
uint32_t ListCount(uint32_t entries) {
  const auto root = static_cast<uint32_t>(std::sqrt(static_cast<double>(entries)));
  return std::clamp(std::bit_ceil(std::max(2 * root, 1u)), 1u,
                    std::clamp(entries / kBlockTokens, 1u, kListsBuilt));
}

constexpr uint32_t kTrainKeysPerList = 64;
constexpr int kTrainRounds = 8;

// Returns the centroids, [lists, head_dim]. Training keys are taken at even distances over the
// document, so training needs no random numbers.
std::vector<float> TrainCentroids(const DocumentKeys& keys, uint32_t entries, uint32_t lists) {
  const uint32_t d = keys.head_dim();
  const auto count =
      static_cast<uint32_t>(std::min<uint64_t>(entries, uint64_t{lists} * kTrainKeysPerList));
  std::vector<float> sample(size_t{count} * d);
  for (uint32_t i = 0; i < count; ++i) {
    keys.Key(1 + static_cast<uint32_t>(uint64_t{i} * entries / count),
             sample.data() + size_t{i} * d);
  }
  faiss::ClusteringParameters parameters;
  parameters.niter = kTrainRounds;
  parameters.min_points_per_centroid = 1;  // smaller values make FAISS warn on stderr
  parameters.max_points_per_centroid = kTrainKeysPerList;
  faiss::Clustering clustering(static_cast<int>(d), static_cast<int>(lists), parameters);
  faiss::IndexFlatL2 assign(d);
  clustering.train(count, sample.data(), assign);
  return std::move(clustering.centroids);
}

// The index of the largest values[i] - less[i]. If that is not larger than *largest, returns
// `otherwise`; else sets *largest to it.
uint32_t ArgMax(const float* values, const float* less, uint32_t count, float* largest,
                uint32_t otherwise) {
  constexpr uint32_t kLanes = 16;  // independent maxima, for instruction-level parallelism
  float max[kLanes];
  std::fill_n(max, kLanes, *largest);
  uint32_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (uint32_t k = 0; k < kLanes; ++k) {
      const float v = values[i + k] - less[i + k];
      max[k] = v > max[k] ? v : max[k];
    }
  }
  for (; i < count; ++i) max[0] = std::max(max[0], values[i] - less[i]);
  const float best = *std::max_element(max, max + kLanes);
  if (!(best > *largest)) return otherwise;
  *largest = best;
  for (i = 0; i + 1 < count && values[i] - less[i] != best;) ++i;
  return i;
}

// Assigns every token except token 0 to a list, [tokens - 1]: that of the nearest centroid c, which
// has the largest k.c - |c|^2 / 2 for key k. The scan kernels compute the products, with the
// centroids as int8 rows. They read the segments directly and run on all workers at once. (FAISS's
// search would need a BLAS, which only one worker may call at a time.)
std::vector<uint32_t> AssignLists(std::span<const SharedSegment> segments, uint32_t head,
                                  uint32_t entries, const std::vector<float>& centroids,
                                  const ParallelFor& parallel) {
  constexpr uint32_t kTile = 128;  // 32 KiB of products
  const uint32_t d = segments[0]->head_dim, lists = static_cast<uint32_t>(centroids.size() / d);
  const QuantisedRows rows({.rows = lists,
                            .head_dim = d,
                            .scale = 1,
                            .q = centroids,
                            .row_weight = std::vector<float>(lists, 1.0f)});
  std::vector<float> half(lists, 0.0f);  // |c|^2 / 2 of the quantised centroid
  for (size_t i = 0; i < centroids.size(); ++i) {
    const float x = rows.scales[i / d] * static_cast<float>(rows.codes[i]);
    half[i / d] += x * x / 2;
  }
  std::vector<uint32_t> list_of(entries, 0);
  parallel(segments.size(), [&](size_t i) {
    const ScanSegment& s = *segments[i];
    std::vector<float> products(size_t{kBlockTokens} * kTile);
    for (uint32_t b = 0; b < s.block_count; ++b) {
      float largest[kBlockTokens];
      uint32_t nearest[kBlockTokens] = {};
      std::fill_n(largest, kBlockTokens, -std::numeric_limits<float>::infinity());
      for (uint32_t row = 0; row < lists; row += kTile) {
        const uint32_t count = std::min(kTile, lists - row);
        Kernels().scan_logits({.keys = s.keys[head].data() + size_t{b} * kBlockTokens * d,
                               .key_scale = s.scales[head].data() + size_t{b} * kBlockTokens,
                               .counts = s.counts.data() + b,
                               .block_count = 1,
                               .head_dim = d,
                               .q = rows.codes.data() + size_t{row} * d,
                               .q_scale = rows.scales.data() + row,
                               .rows = count},
                              products.data());
        for (uint32_t t = 0; t < s.counts[b]; ++t) {
          const uint32_t at = ArgMax(products.data() + size_t{t} * count, half.data() + row, count,
                                     &largest[t], UINT32_MAX);
          if (at != UINT32_MAX) nearest[t] = row + at;
        }
      }
      for (uint32_t t = 0; t < s.counts[b]; ++t) {
        const uint64_t token = (uint64_t{s.block_begin} + b) * kBlockTokens + t;
        if (token > 0) list_of[token - 1] = nearest[t];
      }
    }
  });
  return list_of;
}

// Sets list_begin and order from the list of each token.
void SortByList(const std::vector<uint32_t>& list_of, uint32_t lists, IvfSegment* segment) {
  segment->list_begin.assign(lists + 1, 0);
  for (const uint32_t list : list_of) ++segment->list_begin[list + 1];
  for (uint32_t l = 0; l < lists; ++l) segment->list_begin[l + 1] += segment->list_begin[l];
  std::vector<uint32_t> next(segment->list_begin.begin(), segment->list_begin.end() - 1);
  segment->order.resize(list_of.size());
  for (uint32_t i = 0; i < list_of.size(); ++i) segment->order[next[list_of[i]]++] = i + 1;
}

void SetMoments(const DocumentKeys& keys, const ParallelFor& parallel, IvfSegment* segment) {
  const uint32_t d = keys.head_dim();
  segment->mean.assign(size_t{segment->lists()} * d, 0.0f);
  segment->variance.assign(size_t{segment->lists()} * d, 0.0f);
  parallel(segment->lists(), [&](size_t list) {
    std::vector<double> sum(d), square(d);
    std::vector<float> key(d);
    const uint32_t begin = segment->list_begin[list], end = segment->list_begin[list + 1];
    for (uint32_t i = begin; i < end; ++i) {
      keys.Key(segment->order[i], key.data());
      for (uint32_t c = 0; c < d; ++c) {
        sum[c] += key[c];
        square[c] += double{key[c]} * key[c];
      }
    }
    for (uint32_t c = 0; c < d && begin < end; ++c) {
      const double n = end - begin, mean = sum[c] / n;
      segment->mean[list * d + c] = static_cast<float>(mean);
      segment->variance[list * d + c] =
          static_cast<float>(std::max(0.0, square[c] / n - mean * mean));
    }
  });
}

}  // namespace

Result<IvfSegment> BuildIvfSegment(std::span<const SharedSegment> segments, uint32_t head,
                                   const ParallelFor& parallel) {
  const DocumentKeys keys(segments, head);
  IvfSegment segment;
  segment.document = segments[0]->document;
  segment.head = head;
  segment.head_dim = keys.head_dim();
  segment.tokens = keys.tokens();
  segment.keys_hash = keys.Hash();
  const uint32_t entries = keys.tokens() - 1;
  const uint32_t lists = ListCount(entries);
  std::vector<uint32_t> list_of(entries, 0);
  if (lists > 1) {
    std::vector<float> centroids;
    LH_RETURN_IF_ERROR(
        AtEdge("train lists", [&] { centroids = TrainCentroids(keys, entries, lists); }));
    list_of = AssignLists(segments, head, entries, centroids, parallel);
  }
  SortByList(list_of, lists, &segment);
  SetMoments(keys, parallel, &segment);
  return segment;
}

}  // namespace longhold
