#include "memory/index/segment_keys.h"

#include <algorithm>
#include <cstring>

#include "attention/kernels.h"

namespace longhold {

SegmentKeys::SegmentKeys(const Manifest& manifest)
    : head_dim_(manifest.head_dim), kv_heads_(manifest.scan_kv_heads) {
  for (const uint32_t layer : manifest.scan_layers) {
    const auto at = std::find(manifest.layers.begin(), manifest.layers.end(), layer);
    LH_CHECK(at != manifest.layers.end());
    slots_.push_back(static_cast<uint32_t>(at - manifest.layers.begin()));
  }
  keys_.resize(slots_.size());
}

void SegmentKeys::Append(const KvBlock& block, uint32_t rows) {
  LH_CHECK(rows <= block.tokens);
  const uint32_t d = head_dim_, width = block.shape.kv_width;
  for (size_t h = 0; h < slots_.size(); ++h) {
    const uint16_t* keys = block.Keys(slots_[h]) + size_t{kv_heads_[h]} * d;
    keys_[h].resize((tokens_ + rows) * d);
    for (uint32_t r = 0; r < rows; ++r) {
      Kernels().half_to_float(keys + size_t{r} * width, keys_[h].data() + (tokens_ + r) * d, d);
    }
  }
  tokens_ += rows;
}

void SegmentKeys::AppendLost(uint32_t rows) {
  for (auto& keys : keys_) keys.resize((tokens_ + rows) * head_dim_, 0.0f);
  lost_.push_back({tokens_, tokens_ + rows});
  tokens_ += rows;
}

void SegmentKeys::Clear() {
  for (auto& keys : keys_) keys.clear();
  lost_.clear();
  tokens_ = 0;
}

std::string SegmentKeys::Save() const {
  LH_CHECK(lost_.empty());
  std::string bytes;
  for (const auto& keys : keys_)
    bytes.append(reinterpret_cast<const char*>(keys.data()), keys.size() * sizeof(float));
  return bytes;
}

Status SegmentKeys::Restore(std::string_view bytes, uint64_t tokens) {
  const size_t head_bytes = tokens * head_dim_ * sizeof(float);
  if (tokens > kCommitTokens || bytes.size() != head_bytes * keys_.size())
    return DataLoss("keys of an open segment: wrong size");
  Clear();
  for (size_t h = 0; h < keys_.size() && tokens > 0; ++h) {
    keys_[h].resize(tokens * head_dim_);
    std::memcpy(keys_[h].data(), bytes.data() + h * head_bytes, head_bytes);
  }
  tokens_ = tokens;
  return OkStatus();
}

std::shared_ptr<const ScanSegment> SegmentKeys::Build(DocumentId document, uint64_t begin) const {
  if (slots_.empty()) return nullptr;
  const uint32_t d = head_dim_;
  uint64_t known = tokens_;
  for (const TokenSpan& span : lost_) known -= span.size();
  std::vector<std::vector<float>> mean(lost_.empty() ? 0 : slots_.size(),
                                       std::vector<float>(d, 0.0f));
  for (size_t h = 0; h < mean.size(); ++h) {  // lost rows are zeros and do not change the sum
    for (size_t i = 0; i < keys_[h].size(); ++i)
      mean[h][i % d] += keys_[h][i] / static_cast<float>(std::max<uint64_t>(known, 1));
  }
  const auto lost = [&](uint64_t token) {
    return std::any_of(lost_.begin(), lost_.end(),
                       [&](const TokenSpan& span) { return span.Contains(token); });
  };
  return std::make_shared<const ScanSegment>(ScanSegment::Build(
      document, static_cast<uint32_t>(begin / kBlockTokens), tokens_,
      static_cast<uint32_t>(slots_.size()), d, [&](uint32_t head, uint64_t token) -> const float* {
        return !lost_.empty() && lost(token) ? mean[head].data() : keys_[head].data() + token * d;
      }));
}

}  // namespace longhold
