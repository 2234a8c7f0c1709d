#include "memory/index/ivf_lists.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "memory/index/serial_blas.h"

// From the BLAS that FAISS links: c [m, n] = alpha * op(a) op(b) + beta * c, all column-major.
extern "C" int sgemm_(const char* op_a, const char* op_b, const int* m, const int* n, const int* k,
                      const float* alpha, const float* a, const int* lda, const float* b,
                      const int* ldb, const float* beta, float* c, const int* ldc);

namespace longhold {

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
      // Sample j is the middle of the j-th of sample_count equal ranges.
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

}  // namespace longhold
