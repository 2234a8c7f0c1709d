#include "memory/attend/working_set.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "memory/attend/attend_tiles.h"

namespace longhold {

// One worker's buffers. They are allocated separately (unique_ptr), so that workers share no cache
// lines.
struct WorkingSet::Scratch {
  TileScratch tile;
  std::vector<std::vector<KeyBlockView>> blocks;
  std::vector<float> own_mass;  // mass of the set's own keys, when there are picked blocks
};

WorkingSet::WorkingSet(const KvGeometry& geometry, uint32_t capacity_tokens, uint32_t shift_max)
    : geometry_(geometry),
      capacity_(capacity_tokens),
      rope_(geometry, capacity_tokens + shift_max),
      shift_max_(shift_max),
      parts_(geometry.kv_heads) {
  bias_.assign((size_t{capacity_} + kBlockTokens - 1) / kBlockTokens * kBlockTokens, 0.0f);
  scratch_.resize(kWorkersMax);
  for (auto& s : scratch_) s = std::make_unique<Scratch>();
}

WorkingSet::~WorkingSet() = default;

// A slab stores blocks that are read in sequence next to each other in memory, per layer and head.
// The alternative, all layers of a block together, makes a token of the answer wait three times as
// long for memory: the processor's prefetcher restarts with each block.
class WorkingSet::Slab {
 public:
  Slab(const KvGeometry& geometry, uint32_t blocks, bool fp16)
      : per_block_(size_t{kBlockTokens} * geometry.head_dim),
        kv_heads_(geometry.kv_heads),
        blocks_(blocks),
        fp16_(fp16) {
    bytes_ = BlockElements(geometry) * blocks * (fp16 ? sizeof(uint16_t) : sizeof(float));
    floats_ = memory_.Ensure((bytes_ + sizeof(float) - 1) / sizeof(float));
    std::memset(floats_, 0, bytes_);  // unused keys must be finite
  }

  bool fp16() const { return fp16_; }
  uint64_t bytes() const { return bytes_; }
  float* Floats() { return floats_; }
  uint16_t* Fp16() { return static_cast<uint16_t*>(static_cast<void*>(floats_)); }
  // The offset of a block's keys (or values) of one layer and KV head.
  size_t Keys(uint32_t slot, uint32_t kv_head, uint32_t index) const {
    return ((size_t{slot} * kv_heads_ + kv_head) * 2 * blocks_ + index) * per_block_;
  }
  size_t Values(uint32_t slot, uint32_t kv_head, uint32_t index) const {
    return Keys(slot, kv_head, index) + blocks_ * per_block_;
  }

  // Copies block `index` of `other`, which has the same format, into block 0.
  void CopyBlock(Slab& other, uint32_t index, uint32_t layers) {
    const size_t size = fp16_ ? sizeof(uint16_t) : sizeof(float);
    const auto copy = [&](size_t to, size_t from) {
      std::memcpy(reinterpret_cast<char*>(floats_) + to * size,
                  reinterpret_cast<const char*>(other.floats_) + from * size, per_block_ * size);
    };
    for (uint32_t slot = 0; slot < layers; ++slot) {
      for (uint32_t h = 0; h < kv_heads_; ++h) {
        copy(Keys(slot, h, 0), other.Keys(slot, h, index));
        copy(Values(slot, h, 0), other.Values(slot, h, index));
      }
    }
  }

 private:
  size_t per_block_;
  uint32_t kv_heads_;
  uint32_t blocks_;
  bool fp16_;
  uint64_t bytes_;
  AlignedFloats memory_;
  float* floats_;
};

size_t WorkingSet::BlockElements(const KvGeometry& geometry) {
  return geometry.layers.size() * geometry.kv_heads * 2 * kBlockTokens * geometry.head_dim;
}

KeyBlockView WorkingSet::View(uint32_t slot, uint32_t kv_head, uint32_t block) const {
  const Place& place = places_[block];
  const size_t keys = place.slab->Keys(slot, kv_head, place.index),
               values = place.slab->Values(slot, kv_head, place.index);
  KeyBlockView view;
  if (place.slab->fp16()) {
    view.half_keys_t = place.slab->Fp16() + keys;
    view.half_values = place.slab->Fp16() + values;
  } else {
    view.keys_t = place.slab->Floats() + keys;
    view.values = place.slab->Floats() + values;
  }
  if (any_bias_) view.bias = bias_.data() + size_t{block} * kBlockTokens;
  return view;
}

uint64_t WorkingSet::Bytes(const KvGeometry& geometry, uint64_t passed, uint64_t stored) {
  const uint64_t blocks = (passed + stored + kBlockTokens - 1) / kBlockTokens;
  // `stored` consecutive rows fill at least this many whole blocks, wherever they begin.
  const uint64_t fp16 = stored / kBlockTokens - std::min<uint64_t>(stored / kBlockTokens, 1);
  return BlockElements(geometry) *
         (blocks * sizeof(float) - fp16 * (sizeof(float) - sizeof(uint16_t)));
}

uint64_t WorkingSet::BytesWith(uint64_t tokens) const {
  const uint64_t blocks = (size_ + tokens + kBlockTokens - 1) / kBlockTokens;
  uint64_t bytes = (blocks - std::min<uint64_t>(blocks, places_.size())) *
                   BlockElements(geometry_) * sizeof(float);
  for (const auto& slab : slabs_) bytes += slab->bytes();
  return bytes;
}

const std::shared_ptr<WorkingSet::Slab>& WorkingSet::Held(const Slab* slab) const {
  return *std::find_if(slabs_.begin(), slabs_.end(),
                       [&](const auto& held) { return held.get() == slab; });
}

void WorkingSet::Provide(uint32_t begin, uint32_t end, bool fp16) {
  if (begin == end) return;
  slabs_.push_back(std::make_shared<Slab>(geometry_, end - begin, fp16));
  places_.resize(std::max<size_t>(places_.size(), end));
  for (uint32_t b = begin; b < end; ++b) places_[b] = {slabs_.back().get(), b - begin};
}

void WorkingSet::Grow(uint32_t tokens, bool fp16) {
  const uint32_t end = size_ + tokens;
  LH_CHECK(end <= capacity_);
  if (tokens == 0) return;
  // New rows first fill the rest of the last block.
  const uint32_t first = (size_ + kBlockTokens - 1) / kBlockTokens,
                 last = (end + kBlockTokens - 1) / kBlockTokens;
  if (first * kBlockTokens > size_ && Shared(places_[first - 1].slab)) {
    const Place old = places_[first - 1];
    Provide(first - 1, first, old.slab->fp16());
    places_[first - 1].slab->CopyBlock(*old.slab, old.index,
                                       static_cast<uint32_t>(geometry_.layers.size()));
  }
  // Adds the new blocks, in runs of fp16 and of float blocks. Blocks that are already reserved are
  // used again, and so is the room of truncated keys. But float blocks are not used again where
  // fp16 blocks are wanted: their slab would be kept for its other blocks.
  const uint32_t whole_end = fp16 ? std::max(first, end / kBlockTokens) : first;
  const auto fits = [&](uint32_t b) {
    return b < places_.size() && !Shared(places_[b].slab) &&
           (places_[b].slab->fp16() ? fp16 : whole_end == first);
  };
  for (uint32_t b = first; b < last;) {
    uint32_t run = b;
    while (run < last && !fits(run) && (run < whole_end) == (b < whole_end)) ++run;
    Provide(b, run, b < whole_end);
    b = std::max(run, b + (run == b));
  }
  std::erase_if(slabs_, [&](const auto& slab) {
    return std::none_of(places_.begin(), places_.end(),
                        [&](const Place& place) { return place.slab == slab.get(); });
  });
}

void WorkingSet::Truncate(uint32_t size) {
  LH_CHECK(size <= size_);
  std::fill(bias_.begin() + size, bias_.begin() + size_, 0.0f);
  size_ = size;
}

void WorkingSet::PutKey(uint32_t slot, uint32_t kv_head, uint32_t index, const float* key) {
  const uint32_t d = geometry_.head_dim;
  float rotated[kMaxHeadDim];
  rope_.Of(slot).Rotate(key, rotated, d, index + shift_);
  const Place& place = places_[index / kBlockTokens];
  const size_t column = place.slab->Keys(slot, kv_head, place.index) + index % kBlockTokens;
  if (place.slab->fp16()) {
    uint16_t rounded[kMaxHeadDim];
    Kernels().float_to_half(rotated, rounded, d);
    uint16_t* at = place.slab->Fp16() + column;
    for (uint32_t c = 0; c < d; ++c) at[size_t{c} * kBlockTokens] = rounded[c];
  } else {
    float* at = place.slab->Floats() + column;
    for (uint32_t c = 0; c < d; ++c) at[size_t{c} * kBlockTokens] = rotated[c];
  }
}

void WorkingSet::PutValue(uint32_t slot, uint32_t kv_head, uint32_t index, const float* value) {
  const uint32_t d = geometry_.head_dim;
  const Place& place = places_[index / kBlockTokens];
  const size_t row =
      place.slab->Values(slot, kv_head, place.index) + size_t{index % kBlockTokens} * d;
  if (place.slab->fp16()) {
    Kernels().float_to_half(value, place.slab->Fp16() + row, d);
  } else {
    std::memcpy(place.slab->Floats() + row, value, d * sizeof(float));
  }
}

void WorkingSet::AppendBlock(const KvBlock& block, uint32_t row_begin, uint32_t row_end,
                             float bias) {
  LH_CHECK(row_begin <= row_end && row_end <= block.tokens);
  LH_CHECK(block.shape.kv_width == geometry_.kv_width() &&
           block.shape.layers == geometry_.layers.size());
  Reserve(row_end - row_begin);
  for (uint32_t slot = 0; slot < block.shape.layers; ++slot)
    PlaceRows(block, row_begin, row_end, size_, slot);
  CommitRows(row_end - row_begin, bias);
}

void WorkingSet::AppendHead(const WorkingSet& other, uint32_t tokens) {
  LH_CHECK(size_ == 0 && places_.empty() && tokens <= other.size_ && tokens <= capacity_ &&
           geometry_ == other.geometry_);
  const uint32_t whole = tokens / kBlockTokens;
  places_.assign(other.places_.begin(), other.places_.begin() + whole);
  for (const auto& slab : other.slabs_) {
    const bool needed = std::any_of(places_.begin(), places_.end(),
                                    [&](const Place& place) { return place.slab == slab.get(); });
    if (needed) slabs_.push_back(slab);
  }
  if (tokens % kBlockTokens > 0) {
    const Place& last = other.places_[whole];
    Provide(whole, whole + 1, last.slab->fp16());
    places_[whole].slab->CopyBlock(*last.slab, last.index,
                                   static_cast<uint32_t>(geometry_.layers.size()));
  }
  std::copy_n(other.bias_.begin(), tokens, bias_.begin());
  any_bias_ = other.any_bias_;
  size_ = tokens;
}

void WorkingSet::Reserve(uint32_t tokens) { Grow(tokens, true); }

void WorkingSet::PlaceRows(const KvBlock& block, uint32_t row_begin, uint32_t row_end,
                           uint32_t index, uint32_t slot) {
  const uint32_t width = geometry_.kv_width(), d = geometry_.head_dim;
  std::vector<float> row(width);
  for (uint32_t r = row_begin; r < row_end; ++r, ++index) {
    Kernels().half_to_float(block.Keys(slot) + size_t{r} * width, row.data(), width);
    for (uint32_t h = 0; h < geometry_.kv_heads; ++h)
      PutKey(slot, h, index, row.data() + size_t{h} * d);
    Kernels().half_to_float(block.Values(slot) + size_t{r} * width, row.data(), width);
    for (uint32_t h = 0; h < geometry_.kv_heads; ++h)
      PutValue(slot, h, index, row.data() + size_t{h} * d);
  }
}

void WorkingSet::CommitRows(uint32_t tokens, float bias) {
  std::fill(bias_.begin() + size_, bias_.begin() + size_ + tokens, bias);
  any_bias_ |= bias != 0;
  size_ += tokens;
}

void WorkingSet::CopyRows(uint32_t slot, uint32_t begin, uint32_t end, uint16_t* keys,
                          uint16_t* values) const {
  LH_CHECK(begin <= end && end <= size_);
  const uint32_t d = geometry_.head_dim;
  for (uint32_t index = begin; index < end; ++index) {
    const Place& place = places_[index / kBlockTokens];
    const uint32_t row = index % kBlockTokens;
    for (uint32_t h = 0; h < geometry_.kv_heads; ++h, keys += d, values += d) {
      const size_t column = place.slab->Keys(slot, h, place.index) + row,
                   value = place.slab->Values(slot, h, place.index) + size_t{row} * d;
      if (place.slab->fp16()) {
        const uint16_t* at = place.slab->Fp16();
        for (uint32_t c = 0; c < d; ++c) keys[c] = at[column + size_t{c} * kBlockTokens];
        std::copy_n(at + value, d, values);
      } else {
        const float* at = place.slab->Floats();
        float key[kMaxHeadDim];
        for (uint32_t c = 0; c < d; ++c) key[c] = at[column + size_t{c} * kBlockTokens];
        Kernels().float_to_half(key, keys, d);
        Kernels().float_to_half(at + value, values, d);
      }
    }
  }
}

void WorkingSet::AttendAlso(PickedBlocks* picked, uint32_t shift) {
  LH_CHECK(shift <= shift_max_);
  picked_ = picked;
  shift_ = shift;
}

void WorkingSet::BeginPass(uint32_t tokens) {
  Grow(tokens, false);
  pass_begin_ = size_;
  size_ += tokens;
  const uint32_t picked = picked_ == nullptr ? 0 : picked_->count();
  parts_.Prepare(tokens * geometry_.group(), picked + (size_ + kBlockTokens - 1) / kBlockTokens,
                 geometry_.head_dim, count_mass_);
  visible_.resize(tokens);
  for (uint32_t t = 0; t < tokens; ++t)
    visible_[t] = {0, picked * kBlockTokens + pass_begin_ + t + 1};
}

void WorkingSet::StoreKeys(uint32_t slot, LayerRows keys, uint32_t tokens, uint32_t worker,
                           uint32_t workers) {
  LH_CHECK(pass_begin_ + tokens == size_ && workers <= kWorkersMax);
  for (uint32_t t = worker; t < tokens; t += workers) {
    for (uint32_t h = 0; h < geometry_.kv_heads; ++h) {
      PutKey(slot, h, pass_begin_ + t,
             keys.data + t * keys.token_stride + size_t{h} * geometry_.head_dim);
    }
  }
}

void WorkingSet::StoreValues(uint32_t slot, LayerRows values, uint32_t tokens, uint32_t worker,
                             uint32_t workers) {
  for (uint32_t t = worker; t < tokens; t += workers) {
    for (uint32_t h = 0; h < geometry_.kv_heads; ++h) {
      PutValue(slot, h, pass_begin_ + t,
               values.data + t * values.token_stride + size_t{h} * geometry_.head_dim);
    }
  }
}

void WorkingSet::Attend(uint32_t slot, LayerRows queries, uint32_t tokens, float* out,
                        uint32_t worker, uint32_t workers) {
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
    scratch.blocks[h].clear();
    if (picked_ != nullptr) picked_->AppendViews(slot, h, &scratch.blocks[h]);
    for (uint32_t b = 0; b < blocks; ++b) scratch.blocks[h].push_back(View(slot, h, b));
  }
  LayerCall call;
  call.geometry = &geometry_;
  call.rope = &rope_.Of(slot);
  call.queries = queries;
  call.tokens = tokens;
  call.first_position = pass_begin_ + shift_;
  call.blocks = scratch.blocks;
  call.visible = visible_.data();
  call.out = out;
  call.count_mass = count_mass_;
  call.heads_apart = picked_ != nullptr;
  call.parts = &parts_;
  AttendTiles(call, &scratch.tile, worker, workers);
  if (picked_ == nullptr || !count_mass_) return;
  // Masses must be taken now, because the next layer's heads have other picked blocks at the same
  // places.
  const size_t keys = scratch.blocks[0].size() * kBlockTokens,
               of_picked = size_t{picked_->count()} * kBlockTokens;
  // This worker had no share of the call.
  if (scratch.tile.mass.size() < geometry_.kv_heads * keys) return;
  scratch.own_mass.resize(std::max(scratch.own_mass.size(), keys - of_picked), 0.0f);
  for (uint32_t h = 0; h < geometry_.kv_heads; ++h) {
    float* mass = scratch.tile.mass.data() + h * keys;
    picked_->AddMass(slot, h, mass, worker);
    for (size_t i = of_picked; i < keys; ++i)
      scratch.own_mass[i - of_picked] += std::exchange(mass[i], 0.0f);
  }
}

void WorkingSet::CountMass() {
  for (const auto& s : scratch_) {
    std::fill(s->tile.mass.begin(), s->tile.mass.end(), 0.0f);
    std::fill(s->own_mass.begin(), s->own_mass.end(), 0.0f);
  }
  if (picked_ != nullptr) picked_->ForgetMass();
  count_mass_ = true;
}

std::vector<double> WorkingSet::Mass() const {
  std::vector<double> mass(size_, 0.0);
  for (const auto& s : scratch_) {
    const std::vector<float>& own = picked_ == nullptr ? s->tile.mass : s->own_mass;
    for (size_t i = 0; i < std::min<size_t>(size_, own.size()); ++i) mass[i] += own[i];
  }
  return mass;
}

}  // namespace longhold
