#include "memory/answer/faithful_plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "attention/kernels.h"
#include "base/status.h"

namespace longhold {
namespace {

// Block means that are rotated at a time. They fit the second-level cache.
constexpr size_t kBlocksAtATime = 256;

struct HeadPicks {
  std::vector<uint32_t> blocks;
  double coverage = 0;
};

// `queries` [tokens, q_heads, head_dim] are those of the layer.
HeadPicks PickForHead(const KvGeometry& g, const RopeTable& rope,
                      std::span<const SummarisedBlock> blocks, uint32_t slot, uint32_t kv_head,
                      std::span<const float> queries, uint64_t first_position, uint32_t count) {
  const uint32_t d = g.head_dim, group = g.group();
  const size_t width = size_t{g.q_heads} * d, tokens = queries.size() / width,
               rows = tokens * group, n = blocks.size();
  // All positions move back by this amount, but not below 0.
  const uint64_t last = first_position + tokens, limit = rope.positions(),
                 back = last > limit ? last - limit : 0;
  std::vector<float> q(rows * d);
  for (size_t t = 0; t < tokens; ++t) {
    for (uint32_t h = 0; h < group; ++h) {
      rope.Rotate(queries.data() + t * width + (size_t{kv_head} * group + h) * d,
                  q.data() + (t * group + h) * d, d,
                  static_cast<uint32_t>(first_position + t - back));
    }
  }
  std::vector<float> logits(rows * n);
  std::vector<float> means, part;
  float mean[kMaxHeadDim];
  for (size_t first = 0; first < n; first += kBlocksAtATime) {
    const size_t columns = std::min(kBlocksAtATime, n - first);
    means.assign(d * columns, 0.0f);
    part.assign(rows * columns, 0.0f);
    for (size_t b = 0; b < columns; ++b) {
      const SummarisedBlock& block = blocks[first + b];
      block.segment->Mean(block.index, slot, kv_head, mean);
      rope.Rotate(mean, mean, d,
                  static_cast<uint32_t>(block.block.position -
                                        std::min<uint64_t>(block.block.position, back)));
      for (uint32_t c = 0; c < d; ++c) means[c * columns + b] = mean[c];
    }
    Kernels().multiply_add({.a = q.data(),
                            .b = means.data(),
                            .out = part.data(),
                            .rows = static_cast<uint32_t>(rows),
                            .depth = d,
                            .columns = static_cast<uint32_t>(columns)});
    for (size_t r = 0; r < rows; ++r)
      std::copy_n(part.data() + r * columns, columns, logits.data() + r * n + first);
  }
  std::vector<double> share(n, 0);
  for (size_t r = 0; r < rows; ++r) {
    float* row = logits.data() + r * n;
    for (size_t b = 0; b < n; ++b) {
      row[b] = g.scale * row[b];
      if (g.softcap != 0) row[b] = g.softcap * std::tanh(row[b] / g.softcap);
      row[b] += std::log(static_cast<float>(blocks[b].block.tokens));
    }
    const float top = *std::max_element(row, row + n);
    float sum = 0;
    for (size_t b = 0; b < n; ++b) sum += row[b] = std::exp(row[b] - top);
    for (size_t b = 0; b < n; ++b) share[b] += row[b] / sum / static_cast<float>(rows);
  }
  HeadPicks picks;
  picks.blocks.resize(n);
  std::iota(picks.blocks.begin(), picks.blocks.end(), 0u);
  std::partial_sort(picks.blocks.begin(), picks.blocks.begin() + count, picks.blocks.end(),
                    [&](uint32_t a, uint32_t b) {
                      if (blocks[a].fixed != blocks[b].fixed) return blocks[a].fixed;
                      return share[a] != share[b] ? share[a] > share[b] : a < b;
                    });
  picks.blocks.resize(count);
  std::sort(picks.blocks.begin(), picks.blocks.end());
  for (const uint32_t b : picks.blocks) picks.coverage += share[b];
  return picks;
}

}  // namespace

FaithfulPicks PickBlocks(const KvGeometry& geometry, const RopeTables& ropes,
                         std::span<const SummarisedBlock> blocks, const QueryCapture& queries,
                         uint64_t first_position, uint32_t count, const ParallelFor& parallel) {
  const size_t lists = geometry.layers.size() * geometry.kv_heads;
  FaithfulPicks picks;
  picks.blocks.resize(lists);
  if (count == 0) return picks;
  LH_CHECK(count <= blocks.size() && queries.slots.size() == geometry.layers.size());
  std::vector<double> coverage(lists, 0);
  parallel(lists, [&](size_t i) {
    const auto slot = static_cast<uint32_t>(i / geometry.kv_heads),
               kv_head = static_cast<uint32_t>(i % geometry.kv_heads);
    HeadPicks own = PickForHead(geometry, ropes.Of(slot), blocks, slot, kv_head,
                                queries.queries[slot], first_position, count);
    picks.blocks[i] = std::move(own.blocks);
    coverage[i] = own.coverage;
  });
  picks.coverage =
      std::accumulate(coverage.begin(), coverage.end(), 0.0) / static_cast<double>(lists);
  return picks;
}

uint64_t PickBlocksBytes(const KvGeometry& geometry, uint64_t blocks, uint64_t tokens,
                         uint32_t workers) {
  return workers * blocks *
             (tokens * geometry.group() * sizeof(float) + sizeof(double) + sizeof(uint32_t)) +
         blocks * (sizeof(SummarisedBlock) +
                   geometry.layers.size() * geometry.kv_heads * sizeof(uint32_t));
}

}  // namespace longhold
