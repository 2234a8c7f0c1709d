// The ingest side of attention: sinks and the recent window, exact in RAM, while a document is read
// from start to end.
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
  // the document's first tokens, seen by every later one; a multiple of 64
  uint32_t sink_tokens = 64;
  // a token sees itself and this many - 1 before it; a multiple of 64
  uint32_t window_tokens = 256;
  uint32_t pass_tokens = 512;  // most tokens of one forward pass; a multiple of 64
};

// A token at position p attends to tokens t with t <= p and (t < sink_tokens or t > p -
// window_tokens). In one pass sinks, previous window and new tokens stand at contiguous virtual
// positions from 0, whatever p is, so time and memory per token do not depend on how long the
// document is.
//
// Keys and values are rounded to 16 bits as they come in, before anything attends to them. So a
// window that is filled again from stored blocks is bit for bit the window that was there.
//
// Owner: an ingest. Thread use: *confined*; the LayerAttention calls follow that interface's rule.
class HotWindow final : public LayerAttention {
 public:
  HotWindow(const KvGeometry& geometry, const HotWindowOptions& options);
  ~HotWindow() override;

  // Tokens read so far.
  uint64_t position() const { return position_; }

  // Goes on at `position`, a multiple of 64, with what a window that read until there would hold.
  // `block(b)` gives stored block b: the sinks' blocks and those of the window before `position`.
  void Restore(uint64_t position, const std::function<const KvBlock&(uint32_t)>& block);

  // Around each forward pass. `tokens` is at most pass_tokens; only the last pass of a document may
  // not be a multiple of 64.
  void BeginPass(uint32_t tokens);
  void EndPass();

  // After EndPass: keys and values of the pass's tokens, [tokens, kv_width] halves, un-rotated.
  // Valid until BeginPass.
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
  uint32_t sinks_ = 0;   // sink tokens that the pass's list starts with
  uint32_t recent_ = 0;  // window tokens before the pass
  std::vector<VisibleKeys> visible_;
  std::vector<Layer> layers_;
  // One layer at a time is attended, so one set of panels serves all: [kv_heads, blocks, 2, 64 *
  // head_dim].
  AlignedFloats panels_;
  std::vector<std::unique_ptr<Scratch>> scratch_;
};

}  // namespace longhold
