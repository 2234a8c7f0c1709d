// Attention during ingest: sinks and a recent window, both exact and in RAM, while a document is
// read from start to end.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "attention/geometry.h"
#include "attention/kernels.h"
#include "attention/layer_attention.h"
#include "attention/rope.h"
#include "base/types.h"
#include "memory/attend/attend_tiles.h"
#include "store/block_codec.h"

namespace longhold {

struct HotWindowOptions {
  // The document's first tokens, which every later token attends to. A multiple of 64.
  uint32_t sink_tokens = 64;
  // A token attends to itself and to the window_tokens - 1 tokens before it. A multiple of 64.
  uint32_t window_tokens = 256;
  uint32_t pass_tokens = 512;  // most tokens of one forward pass; a multiple of 64
};

// A token at position p attends to tokens t with t <= p and (t < sink_tokens or t > p -
// window_tokens). In a pass, the sinks, the previous window and the new tokens have contiguous
// virtual positions from 0, whatever p is. So time and RAM per token do not depend on the length of
// the document.
//
// Attention keys and values are rounded to 16 bits before anything attends to them. So a window
// restored from stored blocks equals the original window bit for bit.
//
// Owner: an ingest. Thread use: *confined*; the LayerAttention calls follow that interface's rule.
class HotWindow final : public LayerAttention {
 public:
  HotWindow(const KvGeometry& geometry, const HotWindowOptions& options);
  ~HotWindow() override;

  // Tokens read so far.
  uint64_t position() const { return position_; }

  // Continues at `position`, a multiple of 64, in the state of a window that has read everything
  // before it. `block(b)` returns stored block b. It is called for the blocks of the sinks and of
  // the window before `position`.
  void Restore(uint64_t position, const std::function<const KvBlock&(uint32_t)>& block);

  // Enclose each forward pass. `tokens` is at most pass_tokens. Only the last pass of a document
  // may have a number of tokens that is not a multiple of 64.
  void BeginPass(uint32_t tokens);
  void EndPass();

  // After EndPass: un-rotated attention keys and values of the pass's tokens, [tokens, kv_width] in
  // fp16. Valid until the next BeginPass.
  const uint16_t* PassKeys(uint32_t slot) const;
  const uint16_t* PassValues(uint32_t slot) const;

  void StoreKeys(uint32_t slot, LayerRows keys, uint32_t tokens, uint32_t worker,
                 uint32_t workers) override;
  void StoreValues(uint32_t slot, LayerRows values, uint32_t tokens, uint32_t worker,
                   uint32_t workers) override;
  void Attend(uint32_t slot, LayerRows queries, uint32_t tokens, float* out, uint32_t worker,
              uint32_t workers) override;

 private:
  struct Layer;
  struct Scratch;
  void Place(uint32_t slot, bool keys, LayerRows rows, uint32_t tokens, uint32_t worker,
             uint32_t workers);

  KvGeometry geometry_;
  HotWindowOptions options_;
  RopeTables rope_;
  uint64_t position_ = 0;
  uint32_t pass_tokens_ = 0;
  uint32_t sinks_ = 0;   // sink tokens at the start of the pass's keys
  uint32_t recent_ = 0;  // window tokens before the pass
  std::vector<VisibleKeys> visible_;
  std::vector<Layer> layers_;
  // Layers are attended one at a time, so all share one set of panels: [kv_heads, blocks, 2, 64 *
  // head_dim].
  AlignedFloats panels_;
  std::vector<std::unique_ptr<Scratch>> scratch_;
};

}  // namespace longhold
