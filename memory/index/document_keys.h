// The scan keys of one document, across its segments: read by token when inverted lists are built
// and loaded. Internal to the IVF index.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <span>
#include <string>

#include "attention/geometry.h"
#include "base/hash.h"
#include "base/status.h"
#include "memory/index/ivf_index.h"

namespace longhold {

using SharedSegment = std::shared_ptr<const ScanSegment>;

// The scan keys of one head over one document, addressed by token. A view: `segments` must outlive
// it. Immutable.
class DocumentKeys {
 public:
  // Must hold: `segments` is not empty and holds one document's segments, ascending, without gaps,
  // from block 0.
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
  // The bytes of a token's key in groups of four: group g is at Groups(t)[g * 64].
  const uint32_t* Groups(uint32_t token, float* scale) const {
    const ScanSegment& s = Of(token / kBlockTokens);
    const uint32_t at = token - s.block_begin * kBlockTokens;
    *scale = s.scales[head_][at];
    // The groups are aligned: `keys` is a vector's own buffer, and every block is a multiple of 256
    // bytes long.
    return reinterpret_cast<const uint32_t*>(s.keys[head_].data() + size_t{at / kBlockTokens} *
                                                                        kBlockTokens * s.head_dim) +
           at % kBlockTokens;
  }
  // Writes the dequantised key, [head_dim].
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
    // Memory's segments all have the same size except the last, so the first guess is right.
    // Segments of other sizes are found by search.
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

}  // namespace longhold
