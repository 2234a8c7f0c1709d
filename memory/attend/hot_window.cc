#include "memory/attend/hot_window.h"

#include <algorithm>
#include <cstring>

#include "base/status.h"

namespace longhold {
// fp16, un-rotated: [sinks][window before the pass][pass].
struct HotWindow::Layer {
  std::vector<uint16_t> sink_keys, sink_values;      // [sink_tokens, kv_width]
  std::vector<uint16_t> recent_keys, recent_values;  // [window_tokens, kv_width]
  std::vector<uint16_t> pass_keys, pass_values;      // [pass_tokens, kv_width]
};

struct HotWindow::Scratch {
  TileScratch tile;
  std::vector<std::vector<KeyBlockView>> blocks;
};

HotWindow::HotWindow(const KvGeometry& geometry, const HotWindowOptions& options)
    : geometry_(geometry),
      options_(options),
      rope_(geometry, options.sink_tokens + options.window_tokens + options.pass_tokens) {
  LH_CHECK(options.sink_tokens % kBlockTokens == 0 && options.window_tokens % kBlockTokens == 0 &&
           options.pass_tokens % kBlockTokens == 0 && options.window_tokens > 0 &&
           options.pass_tokens >= options.sink_tokens);
  const uint32_t keys = options.sink_tokens + options.window_tokens + options.pass_tokens;
  const size_t width = geometry_.kv_width();
  layers_.resize(geometry_.layers.size());
  for (Layer& l : layers_) {
    l.sink_keys.resize(options.sink_tokens * width);
    l.sink_values.resize(options.sink_tokens * width);
    l.recent_keys.resize(options.window_tokens * width);
    l.recent_values.resize(options.window_tokens * width);
    l.pass_keys.resize(options.pass_tokens * width);
    l.pass_values.resize(options.pass_tokens * width);
  }
  const size_t floats = size_t{2} * keys * width;
  std::memset(panels_.Ensure(floats), 0, floats * sizeof(float));  // unused keys must be finite
  scratch_.resize(kWorkersMax);
  for (auto& s : scratch_) s = std::make_unique<Scratch>();
}

HotWindow::~HotWindow() = default;

const uint16_t* HotWindow::PassKeys(uint32_t slot) const { return layers_[slot].pass_keys.data(); }
const uint16_t* HotWindow::PassValues(uint32_t slot) const {
  return layers_[slot].pass_values.data();
}

void HotWindow::Restore(uint64_t position, const std::function<const KvBlock&(uint32_t)>& block) {
  LH_CHECK(position % kBlockTokens == 0);
  position_ = position;
  const size_t rows = size_t{kBlockTokens} * geometry_.kv_width();
  const auto copy = [&](uint32_t b, size_t at, bool sink) {
    const KvBlock& source = block(b);
    LH_CHECK(source.tokens == kBlockTokens);
    for (uint32_t slot = 0; slot < layers_.size(); ++slot) {
      Layer& l = layers_[slot];
      std::copy_n(source.Keys(slot), rows,
                  (sink ? l.sink_keys : l.recent_keys).begin() + static_cast<ptrdiff_t>(at * rows));
      std::copy_n(
          source.Values(slot), rows,
          (sink ? l.sink_values : l.recent_values).begin() + static_cast<ptrdiff_t>(at * rows));
    }
  };
  const uint64_t sinks = std::min<uint64_t>(position, options_.sink_tokens);
  const uint64_t recent = std::min<uint64_t>(position - sinks, options_.window_tokens);
  for (uint32_t b = 0; b < sinks / kBlockTokens; ++b) copy(b, b, true);
  // The recent rows end at the end of the buffer, so that a shorter window is still directly before
  // the pass.
  const uint32_t first = static_cast<uint32_t>((position - recent) / kBlockTokens);
  const size_t offset = (options_.window_tokens - recent) / kBlockTokens;
  for (uint32_t b = 0; b < recent / kBlockTokens; ++b) copy(first + b, offset + b, false);
}

void HotWindow::BeginPass(uint32_t tokens) {
  LH_CHECK(tokens > 0 && tokens <= options_.pass_tokens && position_ % kBlockTokens == 0);
  pass_tokens_ = tokens;
  sinks_ = static_cast<uint32_t>(std::min<uint64_t>(position_, options_.sink_tokens));
  recent_ = static_cast<uint32_t>(std::min<uint64_t>(position_ - sinks_, options_.window_tokens));
  visible_.resize(tokens);
  for (uint32_t t = 0; t < tokens; ++t) {
    const uint32_t index = sinks_ + recent_ + t;
    visible_[t] = {index + 1 > options_.window_tokens ? index + 1 - options_.window_tokens : 0,
                   index + 1};
  }
}

void HotWindow::EndPass() {
  const size_t width = geometry_.kv_width();
  for (Layer& l : layers_) {
    if (position_ < options_.sink_tokens) {
      const size_t room = options_.sink_tokens - position_;
      const size_t rows = std::min<size_t>(room, pass_tokens_);
      std::copy_n(l.pass_keys.begin(), rows * width,
                  l.sink_keys.begin() + static_cast<ptrdiff_t>(position_ * width));
      std::copy_n(l.pass_values.begin(), rows * width,
                  l.sink_values.begin() + static_cast<ptrdiff_t>(position_ * width));
    }
    // The last window_tokens rows of [recent, pass] become the new window.
    const size_t shift = std::min(pass_tokens_, options_.window_tokens);
    for (auto [recent, pass] :
         {std::pair(&l.recent_keys, &l.pass_keys), std::pair(&l.recent_values, &l.pass_values)}) {
      std::copy(recent->begin() + static_cast<ptrdiff_t>(shift * width), recent->end(),
                recent->begin());
      std::copy_n(pass->begin() + static_cast<ptrdiff_t>((pass_tokens_ - shift) * width),
                  shift * width, recent->end() - static_cast<ptrdiff_t>(shift * width));
    }
  }
  position_ += pass_tokens_;
}

// Rounds the pass's rows to fp16. Then writes all keys (or values) of the layer into the kernels'
// layout.
void HotWindow::Place(uint32_t slot, bool keys, LayerRows rows, uint32_t tokens, uint32_t worker,
                      uint32_t workers) {
  LH_CHECK(tokens == pass_tokens_ && workers <= kWorkersMax);
  const KernelTable& kernels = Kernels();
  const uint32_t d = geometry_.head_dim, width = geometry_.kv_width();
  Layer& l = layers_[slot];
  std::vector<uint16_t>& pass = keys ? l.pass_keys : l.pass_values;
  const std::vector<uint16_t>& sink = keys ? l.sink_keys : l.sink_values;
  const std::vector<uint16_t>& recent = keys ? l.recent_keys : l.recent_values;
  const RopeTable& rope = rope_.Of(slot);
  const uint32_t total = sinks_ + recent_ + tokens;
  const uint32_t blocks = (total + kBlockTokens - 1) / kBlockTokens;
  float* panels = panels_.Ensure(0);
  std::vector<float> row(width);
  float rotated[kMaxHeadDim];
  // Each worker takes whole blocks of 64, so that no two workers write to one cache line.
  for (uint32_t b = worker; b < blocks; b += workers) {
    const uint32_t end = std::min(total, (b + 1) * kBlockTokens);
    for (uint32_t i = b * kBlockTokens; i < end; ++i) {
      const uint16_t* half;
      if (i < sinks_) {
        half = sink.data() + size_t{i} * width;
      } else if (i < sinks_ + recent_) {
        half = recent.data() + size_t{options_.window_tokens - recent_ + (i - sinks_)} * width;
      } else {
        const uint32_t t = i - sinks_ - recent_;
        uint16_t* own = pass.data() + size_t{t} * width;
        kernels.float_to_half(rows.data + t * rows.token_stride, own, width);
        half = own;
      }
      kernels.half_to_float(half, row.data(), width);
      for (uint32_t h = 0; h < geometry_.kv_heads; ++h) {
        float* panel = panels + (size_t{h} * blocks + b) * 2 * kBlockTokens * d;
        const uint32_t j = i % kBlockTokens;
        if (keys) {
          rope.Rotate(row.data() + size_t{h} * d, rotated, d, i);
          for (uint32_t c = 0; c < d; ++c) panel[size_t{c} * kBlockTokens + j] = rotated[c];
        } else {
          std::memcpy(panel + size_t{kBlockTokens} * d + size_t{j} * d, row.data() + size_t{h} * d,
                      d * sizeof(float));
        }
      }
    }
  }
}

void HotWindow::StoreKeys(uint32_t slot, LayerRows keys, uint32_t tokens, uint32_t worker,
                          uint32_t workers) {
  Place(slot, true, keys, tokens, worker, workers);
}

void HotWindow::StoreValues(uint32_t slot, LayerRows values, uint32_t tokens, uint32_t worker,
                            uint32_t workers) {
  Place(slot, false, values, tokens, worker, workers);
}

void HotWindow::Attend(uint32_t slot, LayerRows queries, uint32_t tokens, float* out,
                       uint32_t worker, uint32_t workers) {
  const uint32_t blocks = (sinks_ + recent_ + tokens + kBlockTokens - 1) / kBlockTokens;
  const uint32_t d = geometry_.head_dim;
  Scratch& scratch = *scratch_[worker];
  scratch.blocks.resize(geometry_.kv_heads);
  for (uint32_t h = 0; h < geometry_.kv_heads; ++h) {
    scratch.blocks[h].resize(blocks);
    for (uint32_t b = 0; b < blocks; ++b) {
      const float* panel = panels_.Ensure(0) + (size_t{h} * blocks + b) * 2 * kBlockTokens * d;
      scratch.blocks[h][b] = {panel, panel + size_t{kBlockTokens} * d, nullptr};
    }
  }
  LayerCall call;
  call.geometry = &geometry_;
  call.rope = &rope_.Of(slot);
  call.queries = queries;
  call.tokens = tokens;
  call.first_position = sinks_ + recent_;
  call.blocks = scratch.blocks;
  call.shared = options_.sink_tokens;
  call.visible = visible_.data();
  call.out = out;
  AttendTiles(call, &scratch.tile, worker, workers);
}

}  // namespace longhold
