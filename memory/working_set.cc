#include "memory/working_set.h"

#include <algorithm>
#include <cstring>

#include "base/status.h"
#include "memory/attend_tiles.h"

namespace longhold {

// One worker's buffers. Padded apart by unique_ptr, so workers do not share cache lines.
struct WorkingSet::Scratch {
  TileScratch tile;
  std::vector<std::vector<KeyBlockView>> blocks;
};

WorkingSet::WorkingSet(const KvGeometry& geometry, uint32_t capacity_tokens)
    : geometry_(geometry), capacity_(capacity_tokens), rope_(geometry, capacity_tokens) {
  bias_.assign((size_t{capacity_} + kBlockTokens - 1) / kBlockTokens * kBlockTokens, 0.0f);
  scratch_.resize(kWorkersMax);
  for (auto& s : scratch_) s = std::make_unique<Scratch>();
}

WorkingSet::~WorkingSet() = default;

float* WorkingSet::KeysT(uint32_t slot, uint32_t kv_head, uint32_t block) {
  const size_t panel = size_t{2} * kBlockTokens * geometry_.head_dim;
  return panels_[block]->Ensure(0) + (size_t{slot} * geometry_.kv_heads + kv_head) * panel;
}

float* WorkingSet::Values(uint32_t slot, uint32_t kv_head, uint32_t block) {
  return KeysT(slot, kv_head, block) + size_t{kBlockTokens} * geometry_.head_dim;
}

size_t WorkingSet::PanelFloats(const KvGeometry& geometry) {
  return geometry.layers.size() * geometry.kv_heads * 2 * kBlockTokens * geometry.head_dim;
}

uint64_t WorkingSet::Bytes(const KvGeometry& geometry, uint64_t tokens) {
  const uint64_t blocks = (tokens + kBlockTokens - 1) / kBlockTokens;
  return blocks * PanelFloats(geometry) * sizeof(float);
}

void WorkingSet::Grow(uint32_t tokens) {
  LH_CHECK(tokens <= capacity_);
  const size_t floats = PanelFloats(geometry_);
  while (panels_.size() * kBlockTokens < tokens) {
    panels_.push_back(std::make_unique<AlignedFloats>());
    std::memset(panels_.back()->Ensure(floats), 0, floats * sizeof(float));  // unused keys must be finite
  }
}

void WorkingSet::Truncate(uint32_t size) {
  LH_CHECK(size <= size_);
  std::fill(bias_.begin() + size, bias_.begin() + size_, 0.0f);
  size_ = size;
}

void WorkingSet::PutKey(uint32_t slot, uint32_t kv_head, uint32_t index, const float* key) {
  float rotated[kMaxHeadDim];
  rope_.Of(slot).Rotate(key, rotated, geometry_.head_dim, index);
  float* column = KeysT(slot, kv_head, index / kBlockTokens) + index % kBlockTokens;
  for (uint32_t c = 0; c < geometry_.head_dim; ++c) column[size_t{c} * kBlockTokens] = rotated[c];
}

void WorkingSet::PutValue(uint32_t slot, uint32_t kv_head, uint32_t index, const float* value) {
  std::memcpy(Values(slot, kv_head, index / kBlockTokens) + size_t{index % kBlockTokens} * geometry_.head_dim, value,
              geometry_.head_dim * sizeof(float));
}

void WorkingSet::AppendBlock(const KvBlock& block, uint32_t row_begin, uint32_t row_end, float bias) {
  LH_CHECK(row_begin <= row_end && row_end <= block.tokens);
  LH_CHECK(block.shape.kv_width == geometry_.kv_width() && block.shape.layers == geometry_.layers.size());
  Reserve(row_end - row_begin);
  for (uint32_t slot = 0; slot < block.shape.layers; ++slot) PlaceRows(block, row_begin, row_end, size_, slot);
  CommitRows(row_end - row_begin, bias);
}

void WorkingSet::AppendHead(const WorkingSet& other, uint32_t tokens) {
  LH_CHECK(size_ == 0 && tokens <= other.size_ && geometry_ == other.geometry_);
  Grow(tokens);
  const size_t floats = PanelFloats(geometry_);
  for (uint32_t b = 0; b * kBlockTokens < tokens; ++b) {
    std::memcpy(panels_[b]->Ensure(floats), other.panels_[b]->Ensure(floats), floats * sizeof(float));
  }
  std::copy_n(other.bias_.begin(), tokens, bias_.begin());
  any_bias_ = other.any_bias_;
  size_ = tokens;
}

void WorkingSet::Reserve(uint32_t tokens) { Grow(size_ + tokens); }

void WorkingSet::PlaceRows(const KvBlock& block, uint32_t row_begin, uint32_t row_end, uint32_t index, uint32_t slot) {
  const uint32_t width = geometry_.kv_width();
  std::vector<float> row(width);
  for (uint32_t r = row_begin; r < row_end; ++r, ++index) {
    Kernels().half_to_float(block.Keys(slot) + size_t{r} * width, row.data(), width);
    for (uint32_t h = 0; h < geometry_.kv_heads; ++h) PutKey(slot, h, index, row.data() + size_t{h} * geometry_.head_dim);
    Kernels().half_to_float(block.Values(slot) + size_t{r} * width, row.data(), width);
    for (uint32_t h = 0; h < geometry_.kv_heads; ++h) PutValue(slot, h, index, row.data() + size_t{h} * geometry_.head_dim);
  }
}

void WorkingSet::CommitRows(uint32_t tokens, float bias) {
  std::fill(bias_.begin() + size_, bias_.begin() + size_ + tokens, bias);
  any_bias_ |= bias != 0;
  size_ += tokens;
}

void WorkingSet::BeginPass(uint32_t tokens) {
  Grow(size_ + tokens);
  pass_begin_ = size_;
  size_ += tokens;
  visible_.resize(tokens);
  for (uint32_t t = 0; t < tokens; ++t) visible_[t] = {0, pass_begin_ + t + 1};
}

void WorkingSet::StoreKeys(uint32_t slot, LayerRows keys, uint32_t tokens, uint32_t worker, uint32_t workers) {
  LH_CHECK(pass_begin_ + tokens == size_ && workers <= kWorkersMax);
  for (uint32_t t = worker; t < tokens; t += workers) {
    for (uint32_t h = 0; h < geometry_.kv_heads; ++h) {
      PutKey(slot, h, pass_begin_ + t, keys.data + t * keys.token_stride + size_t{h} * geometry_.head_dim);
    }
  }
}

void WorkingSet::StoreValues(uint32_t slot, LayerRows values, uint32_t tokens, uint32_t worker, uint32_t workers) {
  for (uint32_t t = worker; t < tokens; t += workers) {
    for (uint32_t h = 0; h < geometry_.kv_heads; ++h) {
      PutValue(slot, h, pass_begin_ + t, values.data + t * values.token_stride + size_t{h} * geometry_.head_dim);
    }
  }
}

void WorkingSet::Attend(uint32_t slot, LayerRows queries, uint32_t tokens, float* out, uint32_t worker, uint32_t workers) {
  if (capture_ != nullptr && worker == 0) {
    const uint32_t width = geometry_.q_heads * geometry_.head_dim;
    for (size_t i = 0; i < capture_->slots.size(); ++i) {
      if (capture_->slots[i] != slot) continue;
      for (uint32_t t = 0; t < tokens; ++t) {
        const float* row = queries.data + t * queries.token_stride;
        capture_->queries[i].insert(capture_->queries[i].end(), row, row + width);
      }
    }
  }
  Scratch& scratch = *scratch_[worker];
  const uint32_t blocks = (size_ + kBlockTokens - 1) / kBlockTokens;
  scratch.blocks.resize(geometry_.kv_heads);
  for (uint32_t h = 0; h < geometry_.kv_heads; ++h) {
    scratch.blocks[h].resize(blocks);
    for (uint32_t b = 0; b < blocks; ++b) {
      scratch.blocks[h][b] = {KeysT(slot, h, b), Values(slot, h, b), any_bias_ ? bias_.data() + size_t{b} * kBlockTokens : nullptr};
    }
  }
  LayerCall call;
  call.geometry = &geometry_;
  call.rope = &rope_.Of(slot);
  call.queries = queries;
  call.tokens = tokens;
  call.first_position = pass_begin_;
  call.blocks = scratch.blocks;
  call.visible = visible_.data();
  call.out = out;
  call.count_mass = count_mass_;
  AttendTiles(call, &scratch.tile, worker, workers);
}

void WorkingSet::CountMass() {
  for (const auto& s : scratch_) std::fill(s->tile.mass.begin(), s->tile.mass.end(), 0.0f);
  count_mass_ = true;
}

std::vector<double> WorkingSet::Mass() const {
  std::vector<double> mass(size_, 0.0);
  for (const auto& s : scratch_) {
    for (size_t i = 0; i < std::min<size_t>(size_, s->tile.mass.size()); ++i) mass[i] += s->tile.mass[i];
  }
  return mass;
}

}  // namespace longhold
