// The inverted lists of one head of one document, ready to search. Internal to the IVF index.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "attention/geometry.h"
#include "attention/kernels.h"
#include "memory/index/document_keys.h"
#include "memory/index/ivf_index.h"

namespace longhold {

// Keys in blocks of 64 in the layout of KernelTable::scan. As in a ScanSegment, unused slots hold
// 128 and have scale 0.
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
  // Group g of a slot's key is at Groups(slot)[g * 64].
  const uint32_t* Groups(size_t slot) const {
    return reinterpret_cast<const uint32_t*>(keys.data() +
                                             slot / kBlockTokens * kBlockTokens * head_dim) +
           slot % kBlockTokens;
  }
  // Fills the next free slot of a block. Group g of the key is at groups[g * stride].
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

struct IvfIndex::HeadLists {
  KeyBlocks blocks;                  // all lists in order; each begins a new block
  std::vector<uint32_t> list_block;  // [lists + 1] first block of each list
  std::vector<uint32_t> list_size;   // [lists] number of keys
  std::vector<uint32_t> token;       // [blocks, 64] token within the document
  // The stratified sample: keys at even distances in list order, so every list has its share.
  KeyBlocks sample;
  std::vector<uint32_t> sample_list;  // [samples], ascending
  double sample_weight = 0;           // number of keys that each sample represents
  std::vector<float> mean;            // [lists, head_dim]
  std::vector<float> variance;        // [lists, head_dim]

  HeadLists(const IvfSegment& segment, const DocumentKeys& keys, uint32_t samples);
  uint32_t lists() const { return static_cast<uint32_t>(list_size.size()); }
  // Estimates the largest logits of each list for rows [row, row + count): mean + 2 standard
  // deviations. [count, lists].
  std::vector<float> LikelyLargest(const ScanQuery& query, uint32_t row, uint32_t count) const;
  // Copies the sample's keys whose list is not in `seen` [lists], but only from sample blocks that
  // also hold keys of seen lists. Sets `clean` [sample blocks]: true if a block holds no key of a
  // seen list.
  KeyBlocks Unseen(const std::vector<bool>& seen, std::vector<bool>* clean) const;
};

}  // namespace longhold
