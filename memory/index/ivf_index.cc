#include "memory/index/ivf_index.h"

#include <faiss/Clustering.h>
#include <faiss/IndexFlat.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <new>
#include <utility>

#include "attention/geometry.h"
#include "attention/kernels.h"
#include "base/hash.h"

// Of libgomp, which comes with FAISS. Declared here because clang has no <omp.h> of its own.
extern "C" void omp_set_num_threads(int);
extern "C" int omp_get_max_threads(void);
// Of the BLAS, which comes with FAISS too: c [m, n] = alpha * op(a) op(b) + beta * c, all column by
// column.
extern "C" int sgemm_(const char* op_a, const char* op_b, const int* m, const int* n, const int* k,
                      const float* alpha, const float* a, const int* lda, const float* b,
                      const int* ldb, const float* beta, float* c, const int* ldc);

namespace longhold {
namespace {

using SharedSegment = std::shared_ptr<const ScanSegment>;

// FAISS runs on the calling thread alone while one of these lives: it would otherwise start OpenMP
// threads beside the workers.
class OneOmpThread {
 public:
  OneOmpThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneOmpThread() { omp_set_num_threads(before_); }
  OneOmpThread(const OneOmpThread&) = delete;
  OneOmpThread& operator=(const OneOmpThread&) = delete;

 private:
  int before_;
};

// Held while a BLAS runs, in FAISS or for us. OpenBLAS's serial build is not to be entered twice:
// two threads that multiplied 128 x 64 by 64 x 96 got wrong results in one call of twenty (Debian's
// 0.3.21). Which BLAS a machine has is its administrator's choice, made at run time, so no build of
// ours can rely on a better one.
std::mutex& BlasMutex() {
  static std::mutex mutex;
  return mutex;
}

// Runs fn, which may call FAISS, and turns what it throws into a Status. One at a time.
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

// The scan keys of one head over one document, by token.
class DocumentKeys {
 public:
  // Must hold: not empty; one document, ascending, without gaps, from block 0.
  DocumentKeys(std::span<const SharedSegment> segments, uint32_t head)
      : segments_(segments), head_(head) {
    LH_CHECK(!segments.empty() && head < segments[0]->heads);
    uint64_t blocks = 0;
    for (const SharedSegment& s : segments) {
      LH_CHECK(s->document == segments[0]->document && s->block_begin == blocks &&
               s->head_dim == segments[0]->head_dim);
      blocks += s->block_count;
    }
    const uint64_t tokens =
        uint64_t{segments.back()->block_begin} * kBlockTokens + segments.back()->token_count();
    LH_CHECK(tokens <= kIvfTokensMax);
    tokens_ = static_cast<uint32_t>(tokens);
  }

  uint32_t tokens() const { return tokens_; }
  uint32_t head_dim() const { return segments_[0]->head_dim; }
  // The bytes of a token's key, four by four: group g stands at Groups(t)[g * 64].
  const uint32_t* Groups(uint32_t token, float* scale) const {
    const ScanSegment& s = Of(token / kBlockTokens);
    const uint32_t at = token - s.block_begin * kBlockTokens;
    *scale = s.scales[head_][at];
    // keys is a vector's own bytes and every block a multiple of 256 bytes long, so the groups are
    // aligned.
    return reinterpret_cast<const uint32_t*>(s.keys[head_].data() + size_t{at / kBlockTokens} *
                                                                        kBlockTokens * s.head_dim) +
           at % kBlockTokens;
  }
  // The key itself, [head_dim].
  void Key(uint32_t token, float* out) const {
    float scale = 0;
    const uint32_t* groups = Groups(token, &scale);
    for (uint32_t g = 0; g < head_dim() / 4; ++g) {
      uint8_t bytes[4];
      std::memcpy(bytes, groups + size_t{g} * kBlockTokens, 4);
      for (uint32_t c = 0; c < 4; ++c)
        out[4 * g + c] = scale * static_cast<float>(int{bytes[c]} - 128);
    }
  }
  uint64_t Hash() const {
    std::string hashes;
    const auto add = [&](const void* data, size_t size) {
      const uint64_t hash = Hash64({static_cast<const char*>(data), size});
      hashes.append(reinterpret_cast<const char*>(&hash), sizeof hash);
    };
    for (const SharedSegment& s : segments_) {
      add(s->keys[head_].data(), s->keys[head_].size());
      add(s->scales[head_].data(), s->scales[head_].size() * sizeof(float));
    }
    return Hash64(hashes);
  }

 private:
  const ScanSegment& Of(uint32_t block) const {
    // Memory's segments are all of one size but the last, so the first guess is right; any other
    // sizes are found too.
    const size_t guess = std::min<size_t>(block / segments_[0]->block_count, segments_.size() - 1);
    const ScanSegment& s = *segments_[guess];
    if (block >= s.block_begin && block - s.block_begin < s.block_count) return s;
    const auto after =
        std::upper_bound(segments_.begin(), segments_.end(), block,
                         [](uint32_t b, const SharedSegment& of) { return b < of->block_begin; });
    return **std::prev(after);
  }

  std::span<const SharedSegment> segments_;
  uint32_t head_;
  uint32_t tokens_ = 0;
};

// ---- Building
// -------------------------------------------------------------------------------------------------

// Sorting keys into lists costs keys * lists: with training 5 s a million keys and head on two
// cores at this many, beside half an hour in which the model reads them.
constexpr uint32_t kListsBuilt = 4096;

// Twice the square root of the keys, up to a power of two: more lists find more within the same
// share of keys. At most one list for 64 keys.
uint32_t ListCount(uint32_t entries) {
  const auto root = static_cast<uint32_t>(std::sqrt(static_cast<double>(entries)));
  return std::clamp(std::bit_ceil(std::max(2 * root, 1u)), 1u,
                    std::clamp(entries / kBlockTokens, 1u, kListsBuilt));
}

constexpr uint32_t kTrainKeysPerList = 64;
constexpr int kTrainRounds = 8;

// [lists, head_dim]. Keys are drawn evenly over the document: no randomness to carry along.
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
  parameters.min_points_per_centroid = 1;  // else it writes to stderr
  parameters.max_points_per_centroid = kTrainKeysPerList;
  faiss::Clustering clustering(static_cast<int>(d), static_cast<int>(lists), parameters);
  faiss::IndexFlatL2 assign(d);
  clustering.train(count, sample.data(), assign);
  return std::move(clustering.centroids);
}

// The place of the largest of values[i] - less[i], if that is larger than *largest, which it then
// becomes; else `otherwise`.
uint32_t ArgMax(const float* values, const float* less, uint32_t count, float* largest,
                uint32_t otherwise) {
  constexpr uint32_t kLanes = 16;  // maxima that do not wait for each other
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

// The list of every token but token 0, [tokens - 1]: the centroid c nearest to key k, that is, with
// the largest k.c - |c|^2 / 2. The scan kernels do it, with the centroids as rows in int8: they
// read the segments as they are, on all workers at once. (FAISS's search needs a BLAS, which only
// one worker may enter.)
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
  std::vector<float> half(lists, 0.0f);  // |c|^2 / 2 of the centroid that the kernels see
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

// Fills list_begin and order from the list of each token.
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

// ---- Lists ready to search
// --------------------------------------------------------------------------------------

namespace {

// a logarithm below all others, and finite so that sums stay numbers
constexpr float kNothing = -1e30f;

// Keys in blocks of 64 as KernelTable::scan reads them; unused slots hold 128 and scale 0, as in a
// ScanSegment.
struct KeyBlocks {
  uint32_t head_dim = 0;
  std::vector<uint8_t> keys;    // [blocks, head_dim / 4, 64, 4]
  std::vector<float> scales;    // [blocks, 64]
  std::vector<uint8_t> counts;  // [blocks]

  void Resize(uint32_t dim, size_t blocks) {
    head_dim = dim;
    keys.assign(blocks * kBlockTokens * head_dim, uint8_t{128});
    scales.assign(blocks * kBlockTokens, 0.0f);
    counts.assign(blocks, 0);
  }
  // The place of group g of a slot's key is Groups(slot)[g * 64].
  const uint32_t* Groups(size_t slot) const {
    return reinterpret_cast<const uint32_t*>(keys.data() +
                                             slot / kBlockTokens * kBlockTokens * head_dim) +
           slot % kBlockTokens;
  }
  // Fills the next free slot of a block. Group g of the key stands at groups[g * stride].
  void Put(size_t slot, const uint32_t* groups, size_t stride, uint32_t group_count, float scale) {
    uint8_t* to =
        keys.data() + slot / kBlockTokens * kBlockTokens * head_dim + slot % kBlockTokens * 4;
    for (size_t g = 0; g < group_count; ++g)
      std::memcpy(to + g * kBlockTokens * 4, groups + g * stride, 4);
    scales[slot] = scale;
    ++counts[slot / kBlockTokens];
  }
  ScanCall Call(size_t block, size_t count, const QuantisedRows& rows, uint32_t row_begin,
                uint32_t row_count) const {
    return {.keys = keys.data() + block * kBlockTokens * head_dim,
            .key_scale = scales.data() + block * kBlockTokens,
            .counts = counts.data() + block,
            .block_count = count,
            .head_dim = head_dim,
            .q = rows.codes.data() + size_t{row_begin} * head_dim,
            .q_scale = rows.scales.data() + row_begin,
            .rows = row_count};
  }
};

// log of a sum of exponentials, added up piece by piece.
struct LogSum {
  double max = -std::numeric_limits<double>::infinity();
  double sum = 0;

  // Adds factor * exp(log).
  void Add(double log, double factor) {
    if (!(factor > 0) || log == -std::numeric_limits<double>::infinity()) return;
    if (log > max) {
      sum = sum * std::exp(max - log) + factor;
      max = log;
    } else {
      sum += factor * std::exp(log - max);
    }
  }
  double Log() const {
    return sum > 0 ? max + std::log(sum) : -std::numeric_limits<double>::infinity();
  }
};

}  // namespace

struct IvfIndex::HeadLists {
  KeyBlocks blocks;                  // lists one after the other, each in whole blocks
  std::vector<uint32_t> list_block;  // [lists + 1] a list's first block
  std::vector<uint32_t> list_size;   // [lists] keys
  std::vector<uint32_t> token;       // [blocks, 64] of the document
  // The sample: keys at even distances in list order, so that every list has its share.
  KeyBlocks sample;
  std::vector<uint32_t> sample_list;  // [samples], ascending
  double sample_weight = 0;           // keys that a sample stands for
  std::vector<float> mean;            // [lists, head_dim]
  std::vector<float> variance;        // [lists, head_dim]

  HeadLists(const IvfSegment& segment, const DocumentKeys& keys, uint32_t samples);
  uint32_t lists() const { return static_cast<uint32_t>(list_size.size()); }
  // Logits that are likely among the largest of each list for rows [row, row + count): mean + 2
  // standard deviations. [count, lists].
  std::vector<float> LikelyLargest(const ScanQuery& query, uint32_t row, uint32_t count) const;
  // The keys of the sample whose list is not `seen` [lists], of those blocks of the sample that
  // hold others too. clean [sample blocks] says which blocks hold no other.
  KeyBlocks Unseen(const std::vector<bool>& seen, std::vector<bool>* clean) const;
};

IvfIndex::HeadLists::HeadLists(const IvfSegment& segment, const DocumentKeys& keys,
                               uint32_t samples)
    : mean(segment.mean), variance(segment.variance) {
  const uint32_t d = segment.head_dim, groups = d / 4;
  list_block.assign(1, 0);
  for (uint32_t l = 0; l < segment.lists(); ++l) {
    list_size.push_back(segment.list_begin[l + 1] - segment.list_begin[l]);
    list_block.push_back(list_block.back() + (list_size[l] + kBlockTokens - 1) / kBlockTokens);
  }
  blocks.Resize(d, list_block.back());
  token.assign(size_t{list_block.back()} * kBlockTokens, 0);
  const uint64_t entries = segment.order.size();
  const uint64_t sample_count = std::min<uint64_t>(entries, samples);
  sample_weight =
      sample_count == 0 ? 0 : static_cast<double>(entries) / static_cast<double>(sample_count);
  sample.Resize(d, (sample_count + kBlockTokens - 1) / kBlockTokens);
  for (uint32_t l = 0; l < lists(); ++l) {
    for (uint32_t i = 0; i < list_size[l]; ++i) {
      const uint64_t entry = uint64_t{segment.list_begin[l]} + i;
      const size_t slot = size_t{list_block[l]} * kBlockTokens + i;
      token[slot] = segment.order[entry];
      float scale = 0;
      const uint32_t* key = keys.Groups(token[slot], &scale);
      blocks.Put(slot, key, kBlockTokens, groups, scale);
      // The j-th sample is the middle of the j-th of sample_count equal stretches.
      if (const uint64_t next = sample_list.size();
          next < sample_count && entry >= (2 * next + 1) * entries / (2 * sample_count)) {
        sample.Put(next, key, kBlockTokens, groups, scale);
        sample_list.push_back(l);
      }
    }
  }
}

std::vector<float> IvfIndex::HeadLists::LikelyLargest(const ScanQuery& query, uint32_t row,
                                                      uint32_t count) const {
  const uint32_t d = blocks.head_dim;
  std::vector<float> q(size_t{count} * d), square(size_t{count} * d);
  for (size_t i = 0; i < q.size(); ++i) {
    q[i] = query.scale * query.q[size_t{row} * d + i];
    square[i] = q[i] * q[i];
  }
  std::vector<float> largest(size_t{count} * lists()), spread(largest.size());
  const int m = static_cast<int>(lists()), n = static_cast<int>(count), k = static_cast<int>(d);
  const float one = 1, zero = 0;
  const std::lock_guard lock(BlasMutex());
  const OneOmpThread alone;
  sgemm_("T", "N", &m, &n, &k, &one, mean.data(), &k, q.data(), &k, &zero, largest.data(), &m);
  sgemm_("T", "N", &m, &n, &k, &one, variance.data(), &k, square.data(), &k, &zero, spread.data(),
         &m);
  for (size_t i = 0; i < largest.size(); ++i) largest[i] += 2 * std::sqrt(spread[i]);
  return largest;
}

KeyBlocks IvfIndex::HeadLists::Unseen(const std::vector<bool>& seen,
                                      std::vector<bool>* clean) const {
  const uint32_t d = blocks.head_dim;
  clean->assign(sample.counts.size(), true);
  for (size_t i = 0; i < sample_list.size(); ++i) {
    if (seen[sample_list[i]]) (*clean)[i / kBlockTokens] = false;
  }
  std::vector<uint32_t> slots;
  for (uint32_t i = 0; i < sample_list.size(); ++i) {
    if (!(*clean)[i / kBlockTokens] && !seen[sample_list[i]]) slots.push_back(i);
  }
  KeyBlocks out;
  out.Resize(d, (slots.size() + kBlockTokens - 1) / kBlockTokens);
  for (size_t i = 0; i < slots.size(); ++i) {
    out.Put(i, sample.Groups(slots[i]), kBlockTokens, d / 4, sample.scales[slots[i]]);
  }
  return out;
}

// ---- Index
// -------------------------------------------------------------------------------------------------

IvfIndex::IvfIndex(IvfSearch search) : search_(search) {}
IvfIndex::~IvfIndex() = default;
IvfIndex::IvfIndex(IvfIndex&&) noexcept = default;
IvfIndex& IvfIndex::operator=(IvfIndex&&) noexcept = default;

Status IvfIndex::Add(SharedSegment segment) {
  LH_RETURN_IF_ERROR(exact_.Add(segment));
  const DocumentId document = segment->document;
  std::vector<SharedSegment>& all = segments_[document];
  const auto at = std::lower_bound(
      all.begin(), all.end(), segment->block_begin,
      [](const SharedSegment& s, uint32_t block) { return s->block_begin < block; });
  if (at != all.end() && (*at)->block_begin == segment->block_begin) {
    *at = segment;
  } else {
    all.insert(at, segment);
  }
  if (lists_.erase(document) == 0) return rest_.Add(std::move(segment));
  for (const SharedSegment& s : all) LH_RETURN_IF_ERROR(rest_.Add(s));
  return OkStatus();
}

void IvfIndex::Remove(DocumentId document) {
  exact_.Remove(document);
  rest_.Remove(document);
  segments_.erase(document);
  lists_.erase(document);
}

std::span<const SharedSegment> IvfIndex::Segments(DocumentId document) const {
  const auto at = segments_.find(document);
  if (at == segments_.end()) return {};
  return at->second;
}

Status IvfIndex::AddLists(const std::vector<IvfSegment>& heads) {
  LH_CHECK(!heads.empty());
  const DocumentId document = heads[0].document;
  const auto refuse = [&](std::string_view why) {
    return FailedPrecondition("add lists d=" + std::to_string(static_cast<uint32_t>(document)) +
                              ": " + std::string(why));
  };
  const std::span<const SharedSegment> segments = Segments(document);
  uint64_t blocks = 0;
  for (const SharedSegment& s : segments) {
    if (s->block_begin != blocks) return refuse("the document has gaps");
    blocks += s->block_count;
  }
  if (segments.empty() || segments[0]->heads != heads.size())
    return refuse("other heads than the document's");
  if (blocks * kBlockTokens > kIvfTokensMax) return refuse("the document is too large");
  std::vector<std::unique_ptr<HeadLists>> lists;
  for (uint32_t h = 0; h < heads.size(); ++h) {
    const IvfSegment& s = heads[h];
    const DocumentKeys keys(segments, h);
    if (const char* fault = s.Fault()) return refuse(fault);
    if (s.document != document || s.head != h || s.head_dim != keys.head_dim() ||
        s.tokens != keys.tokens() || s.keys_hash != keys.Hash()) {
      return refuse("made from other keys");
    }
    lists.push_back(std::make_unique<HeadLists>(s, keys, search_.sample_tokens));
  }
  lists_[document] = std::move(lists);
  rest_.Remove(document);
  return OkStatus();
}

namespace {

constexpr uint32_t kTileRows = 96;
constexpr size_t kSampleBlocksPerPiece = 32;
// A token counts towards finding its block when it holds more than this many times the mean share
// of all tokens.
constexpr double kFindShare = 32;

// The largest logits and sums of a call over all its blocks: [rows] each.
void AddBlocks(const ScanCall& call, double factor, std::vector<LogSum>* sums) {
  for (uint32_t r = 0; r < call.rows; ++r) {
    float max = kNothing;
    for (size_t b = 0; b < call.block_count; ++b)
      max = std::max(max, call.block_max[b * call.rows + r]);
    double sum = 0;
    for (size_t b = 0; b < call.block_count; ++b) {
      sum += double{call.block_sum[b * call.rows + r]} *
             std::exp(call.block_max[b * call.rows + r] - max);
    }
    (*sums)[r].Add(max, factor * sum);
  }
}

void AddAll(const std::vector<std::vector<LogSum>>& partial, std::vector<LogSum>* sums) {
  for (const std::vector<LogSum>& part : partial) {
    for (size_t r = 0; r < part.size(); ++r) (*sums)[r].Add(part[r].max, part[r].sum);
  }
}

// One block of a scan segment.
ScanCall CallOf(const ScanSegment& s, uint32_t head, uint32_t block, const QuantisedRows& rows) {
  const size_t token = size_t{block - s.block_begin} * kBlockTokens;
  return {.keys = s.keys[head].data() + token * s.head_dim,
          .key_scale = s.scales[head].data() + token,
          .counts = s.counts.data() + (block - s.block_begin),
          .block_count = 1,
          .head_dim = s.head_dim,
          .q = rows.codes.data(),
          .q_scale = rows.scales.data(),
          .rows = static_cast<uint32_t>(rows.scales.size())};
}

const ScanSegment& SegmentOf(std::span<const SharedSegment> segments, uint32_t block) {
  const auto after =
      std::upper_bound(segments.begin(), segments.end(), block,
                       [](uint32_t b, const SharedSegment& s) { return b < s->block_begin; });
  return **std::prev(after);
}

using SegmentMap = std::map<DocumentId, std::vector<SharedSegment>>;

// log of the mean over documents of exp(logit of the document's first token), [rows]; -infinity
// where there is none.
template <typename Wanted>
std::vector<double> MeanSinks(const SegmentMap& documents, uint32_t head, const QuantisedRows& rows,
                              Wanted wanted) {
  const size_t count = rows.scales.size();
  std::vector<LogSum> sums(count);
  std::vector<float> logits(kBlockTokens * count);
  size_t sinks = 0;
  for (const auto& [document, segments] : documents) {
    if (segments.empty() || segments[0]->block_begin != 0 || !wanted(document)) continue;
    Kernels().scan_logits(CallOf(*segments[0], head, 0, rows), logits.data());
    for (size_t r = 0; r < count; ++r) sums[r].Add(logits[r], 1);
    ++sinks;
  }
  std::vector<double> mean(count);
  for (size_t r = 0; r < count; ++r)
    mean[r] = sums[r].Log() - (sinks > 0 ? std::log(static_cast<double>(sinks)) : 0);
  return mean;
}

// log(exp(all) - exp(part)) for part <= all.
double LogWithout(double all, double part) {
  if (part == -std::numeric_limits<double>::infinity()) return all;
  const double left = -std::expm1(part - all);
  return left > 0 ? all + std::log(left) : -std::numeric_limits<double>::infinity();
}

}  // namespace

// Rows [row, row + count) of a query over the lists of one document.
struct IvfIndex::Tile {
  const HeadLists& of;
  const QuantisedRows& rows;
  uint32_t row;
  uint32_t count;
  std::vector<float> sample_max, sample_sum;  // [sample blocks, count]
  std::vector<uint32_t> lists;                // looked at, ascending
  std::vector<std::vector<float>> block_max;  // [lists] of [the list's blocks, count]

  // First pass, over the sample alone: what the whole document's sum of exponentials is likely to
  // be, onto sums [count].
  void SumSample(const ParallelFor& parallel, std::vector<LogSum>* sums);
  // Chooses lists that hold a given share of the keys by how much of the rows' attention they may
  // hold: the sum over rows of weight * min(1, exp(likely largest logit - log_sum)). Rows whose
  // mass is at the sinks, or in what another row finds, then ask for little. (As many lists for
  // each row by itself had to look at twice as many keys for the same first eight blocks.) The list
  // of a sample's key that would stand for much of a row's sum is looked at in any case: the key is
  // then counted for what it is instead of for the many that it is not.
  void Choose(const ScanQuery& query, const std::vector<LogSum>& log_sums, double share,
              const ParallelFor& parallel);
  // The part of Choose that is about the sample's keys: adds to the worth [lists] of theirs.
  void AddOutliers(const ScanQuery& query, const std::vector<float>& log_sum,
                   const ParallelFor& parallel, std::vector<float>* worth) const;
  // Second pass: the sum of exponentials over what is looked at, and the sample's estimate for the
  // rest, onto sums [count].
  void Sum(const ParallelFor& parallel, std::vector<LogSum>* sums);
  // Third pass, when lse [count] is known: adds weight * share of the tokens that stand out to the
  // mass [blocks] of their blocks.
  void Find(const float* weight, const double* lse, double log_share_min,
            const ParallelFor& parallel, std::vector<double>* mass) const;
};

void IvfIndex::Tile::SumSample(const ParallelFor& parallel, std::vector<LogSum>* sums) {
  const size_t blocks = of.sample.counts.size(),
               pieces = (blocks + kSampleBlocksPerPiece - 1) / kSampleBlocksPerPiece;
  sample_max.resize(blocks * count);
  sample_sum.resize(blocks * count);
  std::vector<std::vector<LogSum>> partial(pieces);
  parallel(pieces, [&](size_t piece) {
    const size_t begin = piece * kSampleBlocksPerPiece,
                 end = std::min(begin + kSampleBlocksPerPiece, blocks);
    ScanCall call = of.sample.Call(begin, end - begin, rows, row, count);
    call.block_max = sample_max.data() + begin * count;
    call.block_sum = sample_sum.data() + begin * count;
    Kernels().scan(call);
    partial[piece].resize(count);
    AddBlocks(call, of.sample_weight, &partial[piece]);
  });
  AddAll(partial, sums);
}

void IvfIndex::Tile::AddOutliers(const ScanQuery& query, const std::vector<float>& log_sum,
                                 const ParallelFor& parallel, std::vector<float>* worth) const {
  // Of a row's sum, what a key must stand for. Without a threshold the lists that the sample
  // favours by chance were looked at too, and the estimate, which then keeps only those that it
  // disfavours, fell by 0.02 to 0.05.
  constexpr double kOutlier = 0.25;
  std::vector<float> least(count);
  for (uint32_t r = 0; r < count; ++r)
    least[r] = log_sum[r] + static_cast<float>(std::log(kOutlier / of.sample_weight));
  const size_t blocks = of.sample.counts.size(),
               pieces = (blocks + kSampleBlocksPerPiece - 1) / kSampleBlocksPerPiece;
  std::vector<std::vector<std::pair<uint32_t, float>>> found(pieces);  // list and worth
  parallel(pieces, [&](size_t piece) {
    std::vector<float> logits;
    for (size_t b = piece * kSampleBlocksPerPiece;
         b < std::min((piece + 1) * kSampleBlocksPerPiece, blocks); ++b) {
      bool any = false;
      for (uint32_t r = 0; r < count; ++r) any |= sample_max[b * count + r] > least[r];
      if (!any) continue;
      logits.resize(size_t{kBlockTokens} * count);
      Kernels().scan_logits(of.sample.Call(b, 1, rows, row, count), logits.data());
      for (uint32_t t = 0; t < of.sample.counts[b]; ++t) {
        for (uint32_t r = 0; r < count; ++r) {
          const float log = logits[size_t{t} * count + r] - log_sum[r];
          if (logits[size_t{t} * count + r] <= least[r]) continue;
          found[piece].emplace_back(
              of.sample_list[b * kBlockTokens + t],
              query.row_weight[row + r] * static_cast<float>(of.sample_weight) * std::exp(log));
        }
      }
    }
  });
  for (const auto& of_piece : found) {
    for (const auto& [list, more] : of_piece) (*worth)[list] += more;
  }
}

void IvfIndex::Tile::Choose(const ScanQuery& query, const std::vector<LogSum>& log_sums,
                            double share, const ParallelFor& parallel) {
  constexpr float kNoMatter = -16;  // exponents below this add nothing that could matter
  const std::vector<float> largest = of.LikelyLargest(query, row, count);
  std::vector<float> log_sum(count);
  for (uint32_t r = 0; r < count; ++r) log_sum[r] = static_cast<float>(log_sums[r].Log());
  std::vector<float> worth(of.lists(), 0.0f);
  constexpr uint32_t kPiece = 256;
  parallel((of.lists() + kPiece - 1) / kPiece, [&](size_t piece) {
    const auto begin = static_cast<uint32_t>(piece * kPiece),
               end = std::min(begin + kPiece, of.lists());
    for (uint32_t r = 0; r < count; ++r) {
      const float weight = query.row_weight[row + r];
      for (uint32_t l = begin; l < end; ++l) {
        const float log = largest[size_t{r} * of.lists() + l] - log_sum[r];
        if (log > kNoMatter) worth[l] += weight * std::exp(std::min(log, 0.0f));
      }
    }
  });
  AddOutliers(query, log_sum, parallel, &worth);
  for (uint32_t l = 0; l < of.lists(); ++l) {
    if (of.list_size[l] > 0) lists.push_back(l);
  }
  std::sort(lists.begin(), lists.end(), [&](uint32_t a, uint32_t b) {
    return worth[a] != worth[b] ? worth[a] > worth[b] : a < b;
  });
  const double keys_max = share * static_cast<double>(of.token.size());
  double keys = 0;
  size_t chosen = 0;
  while (chosen < lists.size() && keys < keys_max) keys += of.list_size[lists[chosen++]];
  lists.resize(chosen);
  std::sort(lists.begin(), lists.end());
}

void IvfIndex::Tile::Sum(const ParallelFor& parallel, std::vector<LogSum>* sums) {
  std::vector<bool> seen(of.lists(), false), clean;
  for (const uint32_t list : lists) seen[list] = true;
  const KeyBlocks unseen = of.Unseen(seen, &clean);
  const size_t mixed_blocks = unseen.counts.size();
  const size_t pieces =
      lists.size() + (mixed_blocks + kSampleBlocksPerPiece - 1) / kSampleBlocksPerPiece;
  std::vector<std::vector<LogSum>> partial(pieces);
  block_max.resize(lists.size());
  parallel(pieces, [&](size_t piece) {
    const bool listed = piece < lists.size();
    const size_t begin =
        listed ? of.list_block[lists[piece]] : (piece - lists.size()) * kSampleBlocksPerPiece;
    const size_t end = listed ? of.list_block[lists[piece] + 1]
                              : std::min(begin + kSampleBlocksPerPiece, mixed_blocks);
    ScanCall call = (listed ? of.blocks : unseen).Call(begin, end - begin, rows, row, count);
    std::vector<float> max(call.block_count * count), sum(call.block_count * count);
    call.block_max = max.data();
    call.block_sum = sum.data();
    Kernels().scan(call);
    partial[piece].resize(count);
    AddBlocks(call, listed ? 1 : of.sample_weight, &partial[piece]);
    if (listed) block_max[piece] = std::move(max);
  });
  AddAll(partial, sums);
  for (size_t b = 0; b < clean.size(); ++b) {
    if (!clean[b]) continue;
    ScanCall call = of.sample.Call(b, 1, rows, row, count);
    call.block_max = sample_max.data() + b * count;
    call.block_sum = sample_sum.data() + b * count;
    AddBlocks(call, of.sample_weight, sums);
  }
}

void IvfIndex::Tile::Find(const float* weight, const double* lse, double log_share_min,
                          const ParallelFor& parallel, std::vector<double>* mass) const {
  std::vector<float> least(count), base(count);
  for (uint32_t r = 0; r < count; ++r) {
    base[r] = static_cast<float>(lse[r]);
    least[r] = weight[r] > 0 ? static_cast<float>(lse[r] + log_share_min)
                             : std::numeric_limits<float>::infinity();
  }
  std::vector<std::vector<std::pair<uint32_t, double>>> found(lists.size());  // block and mass
  parallel(lists.size(), [&](size_t l) {
    std::vector<float> logits(size_t{kBlockTokens} * count);
    const uint32_t begin = of.list_block[lists[l]], end = of.list_block[lists[l] + 1];
    for (uint32_t b = begin; b < end; ++b) {
      const float* max = block_max[l].data() + size_t{b - begin} * count;
      bool any = false;
      for (uint32_t r = 0; r < count; ++r) any |= max[r] > least[r];
      if (!any) continue;
      Kernels().scan_logits(of.blocks.Call(b, 1, rows, row, count), logits.data());
      for (uint32_t t = 0; t < of.blocks.counts[b]; ++t) {
        float sum = 0;
        for (uint32_t r = 0; r < count; ++r) {
          const float logit = logits[size_t{t} * count + r];
          if (logit > least[r]) sum += weight[r] * std::exp(logit - base[r]);
        }
        if (sum > 0)
          found[l].emplace_back(of.token[size_t{b} * kBlockTokens + t] / kBlockTokens, sum);
      }
    }
  });
  for (const auto& of_list : found) {
    for (const auto& [block, sum] : of_list) (*mass)[block] += sum;
  }
}

namespace {

bool Better(const ScanResult::BlockScore& a, const ScanResult::BlockScore& b) {
  return a.score != b.score ? a.score > b.score : a.block < b.block;
}

// The best of the blocks by mass ([blocks] of each document), at most max_blocks, in any order, and
// every document's first.
std::vector<ScanResult::BlockScore> BlocksThatStoodOut(
    const std::map<DocumentId, std::vector<double>>& mass, size_t max_blocks) {
  std::vector<ScanResult::BlockScore> found;
  for (const auto& [document, blocks] : mass) {
    for (uint32_t b = 1; b < blocks.size(); ++b) {
      if (blocks[b] > 0)
        found.push_back({.block = {.document = document, .block = b}, .score = blocks[b]});
    }
  }
  if (found.size() > max_blocks) {
    std::nth_element(found.begin(), found.begin() + static_cast<ptrdiff_t>(max_blocks), found.end(),
                     Better);
    found.resize(max_blocks);
  }
  // What follows a sink is a little of one, and like no other keys: lists that a question chooses
  // may pass it over, and it was the first block of 3 of 58 plans on Genesis.
  for (const auto& [document, blocks] : mass) {
    found.push_back({.block = {.document = document, .block = 0}, .score = 0});
  }
  return found;
}

// log sum exp of each row over a block, [rows], without the document's sink.
std::vector<float> BlockLogs(const ScanSegment& segment, uint32_t head, uint32_t block,
                             const QuantisedRows& rows) {
  ScanCall call = CallOf(segment, head, block, rows);
  std::vector<float> logs(call.rows);
  // the sink may be nearly all of it: taking it out of a sum would leave rounding errors
  if (block == 0) {
    std::vector<float> logits(size_t{kBlockTokens} * call.rows);
    Kernels().scan_logits(call, logits.data());
    for (uint32_t r = 0; r < call.rows; ++r) {
      LogSum others;
      for (uint32_t t = 1; t < segment.counts[0]; ++t)
        others.Add(logits[size_t{t} * call.rows + r], 1);
      logs[r] = static_cast<float>(others.Log());
    }
    return logs;
  }
  std::vector<float> max(call.rows), sum(call.rows);
  call.block_max = max.data();
  call.block_sum = sum.data();
  Kernels().scan(call);
  for (uint32_t r = 0; r < call.rows; ++r) logs[r] = max[r] + std::log(sum[r]);
  return logs;
}

// Scores the result's blocks from all of their tokens and keeps the best. row_lse rises to what
// these blocks and the sinks [rows] hold, whatever the sample said: shares never add up to more
// than 1.
void ScoreAnew(const SegmentMap& documents, const ScanQuery& query, const QuantisedRows& rows,
               const std::vector<double>& sinks, size_t max_blocks, const ParallelFor& parallel,
               ScanResult* result) {
  std::vector<ScanResult::BlockScore>& blocks = result->blocks;
  std::vector<std::vector<float>> logs(blocks.size());  // [blocks, rows]
  parallel(blocks.size(), [&](size_t i) {
    const BlockKey& block = blocks[i].block;
    logs[i] = BlockLogs(SegmentOf(documents.at(block.document), block.block), query.head,
                        block.block, rows);
  });
  for (uint32_t r = 0; r < query.rows; ++r) {
    LogSum sum;
    sum.Add(sinks[r], 1);
    for (const std::vector<float>& log : logs) sum.Add(log[r], 1);
    result->row_lse[r] = std::max(result->row_lse[r], sum.Log());
    result->sink_score += query.row_weight[r] * std::exp(sinks[r] - result->row_lse[r]);
  }
  parallel(blocks.size(), [&](size_t i) {
    blocks[i].score = 0;
    for (uint32_t r = 0; r < query.rows; ++r) {
      blocks[i].score +=
          double{query.row_weight[r]} * std::exp(double{logs[i][r]} - result->row_lse[r]);
    }
  });
  const size_t kept = std::min(max_blocks, blocks.size());
  std::partial_sort(blocks.begin(), blocks.begin() + static_cast<ptrdiff_t>(kept), blocks.end(),
                    Better);
  blocks.resize(kept);
}

}  // namespace

ScanResult IvfIndex::Query(const ScanQuery& query, size_t max_blocks,
                           const ParallelFor& parallel) const {
  if (lists_.empty() || query.rows == 0) return exact_.Query(query, max_blocks, parallel);
  const QuantisedRows rows(query);
  const auto with_lists = [&](DocumentId d) { return lists_.contains(d); };
  const size_t candidates_max = 2 * std::min(max_blocks, SIZE_MAX / 4) + 32;

  // What has no lists is scanned; its sinks are taken out again, to be averaged with all others.
  const ScanResult rest = rest_.Query(query, candidates_max, parallel);
  const std::vector<double> sinks =
      MeanSinks(segments_, query.head, rows, [](DocumentId) { return true; });
  const std::vector<double> rest_sinks =
      MeanSinks(segments_, query.head, rows, [&](DocumentId d) { return !with_lists(d); });

  ScanResult result;
  result.weight_sum = rest.weight_sum;
  result.row_lse.assign(query.rows, -std::numeric_limits<double>::infinity());
  // [blocks] of each document with lists, of what stood out
  std::map<DocumentId, std::vector<double>> mass;
  for (const auto& [document, heads] : lists_) {
    const ScanSegment& last = *segments_.at(document).back();
    mass[document].resize(size_t{last.block_begin} + last.block_count);
  }
  const double log_share_min = std::log(kFindShare / static_cast<double>(token_count()));
  for (uint32_t row = 0; row < query.rows; row += kTileRows) {
    const uint32_t count = std::min(kTileRows, query.rows - row);
    std::vector<LogSum> sums(count);
    for (uint32_t r = 0; r < count; ++r) {
      sums[r].Add(sinks[row + r], 1);
      if (rest_.token_count() > 0)
        sums[r].Add(LogWithout(rest.row_lse[row + r], rest_sinks[row + r]), 1);
    }
    std::vector<std::pair<DocumentId, Tile>> tiles;
    std::vector<LogSum> likely = sums;
    for (const auto& [document, heads] : lists_) {
      LH_CHECK(query.head < heads.size() && query.head_dim == heads[0]->blocks.head_dim);
      tiles.emplace_back(document, Tile{*heads[query.head], rows, row, count, {}, {}, {}, {}});
      tiles.back().second.SumSample(parallel, &likely);
    }
    for (auto& [document, tile] : tiles) {
      tile.Choose(query, likely, search_.share, parallel);
      tile.Sum(parallel, &sums);
    }
    for (uint32_t r = 0; r < count; ++r) result.row_lse[row + r] = sums[r].Log();
    for (const auto& [document, tile] : tiles) {
      tile.Find(query.row_weight.data() + row, result.row_lse.data() + row, log_share_min, parallel,
                &mass.at(document));
    }
  }

  result.blocks = BlocksThatStoodOut(mass, candidates_max);
  // Their scores are shares of the rest alone, so they all stay in until they are scored anew.
  result.blocks.insert(result.blocks.end(), rest.blocks.begin(), rest.blocks.end());
  ScoreAnew(segments_, query, rows, sinks, max_blocks, parallel, &result);
  return result;
}

std::vector<float> IvfIndex::TokenMass(const ScanQuery& query, const ScanResult& result,
                                       const BlockKey& block) const {
  return exact_.TokenMass(query, result, block);
}

}  // namespace longhold
