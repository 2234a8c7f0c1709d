// The keys and values that an answer attends to: prompt head, recalled spans and conversation, at
// contiguous virtual positions and in the kernels' layout. "Key" in this file means an attention
// key.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "attention/geometry.h"
#include "attention/kernels.h"
#include "attention/layer_attention.h"
#include "attention/rope.h"
#include "base/types.h"
#include "memory/attend/attend_tiles.h"
#include "memory/attend/picked_blocks.h"
#include "store/block_codec.h"

namespace longhold {

// Records the un-rotated queries of some tapped layers during a pass. The recall heads score keys
// with them.
struct QueryCapture {
  std::vector<uint32_t> slots;  // the tapped layers to record
  // [slots] of [tokens, q_heads, head_dim], in the order of the pass.
  std::vector<std::vector<float>> queries;
};

// A growing sequence of keys and values that every later token attends to. Key i has virtual
// position i.
//
// Owner: an answer, or the self-check of the tap. Thread use: *confined*; the LayerAttention calls
// follow that interface's rule.
//
// Memory: blocks of 64 keys, allocated as they fill. Keys and values that a pass appends are kept
// in 32 bits per element. Stored rows have 16 bits. Where they fill whole blocks of this set they
// stay in 16 bits, which halves the bytes to read for every token of the answer. Their keys are
// rounded once more after the rotation, as in libllama's own 16-bit cache.
class WorkingSet final : public LayerAttention {
 public:
  // Holds at most `capacity_tokens` keys. AttendAlso may move query positions by up to `shift_max`.
  WorkingSet(const KvGeometry& geometry, uint32_t capacity_tokens, uint32_t shift_max = 0);
  ~WorkingSet() override;
  // The most RAM that keys and values need: `passed` keys that passes append, and `stored` rows of
  // blocks for which room is reserved in one call.
  static uint64_t Bytes(const KvGeometry& geometry, uint64_t passed, uint64_t stored = 0);
  // The most RAM of this set after `tokens` more keys have been appended.
  uint64_t BytesWith(uint64_t tokens) const;

  uint32_t size() const { return size_; }
  uint32_t capacity() const { return capacity_; }
  const KvGeometry& geometry() const { return geometry_; }
  const RopeTables& ropes() const { return rope_; }

  // Removes keys [size, ...). Later appends reuse their room. Must hold: size <= size().
  void Truncate(uint32_t size);

  // Appends rows [row_begin, row_end) of a stored block. `bias` (the gate) is added to their
  // logits. Must hold: there is room, and the block has this geometry's shape.
  void AppendBlock(const KvBlock& block, uint32_t row_begin, uint32_t row_end, float bias);
  // Appends the first `tokens` keys of `other` at the same positions. Whole blocks are shared with
  // `other`, not copied. Must hold: this set is empty, `other` has the same geometry and holds at
  // least that many keys.
  void AppendHead(const WorkingSet& other, uint32_t tokens);
  // AppendBlock in three steps, so that several threads can write many blocks: Reserve room;
  // PlaceRows for each piece at its index and for each layer slot (calls with different (piece,
  // slot) may run at the same time); then CommitRows in order. Also call Reserve before several
  // AppendBlocks in a row: only whole blocks that were reserved in one call are kept in 16 bits.
  void Reserve(uint32_t tokens);
  void PlaceRows(const KvBlock& block, uint32_t row_begin, uint32_t row_end, uint32_t index,
                 uint32_t slot);
  void CommitRows(uint32_t tokens, float bias);

  // Copies the keys, rotated to their positions, and the values of rows [begin, end) of one layer
  // slot, rounded to fp16: [end - begin, kv_width] each. What another inference engine reads. Must
  // hold: begin <= end <= size().
  void CopyRows(uint32_t slot, uint32_t begin, uint32_t end, uint16_t* keys,
                uint16_t* values) const;

  // From now on every token also attends to `picked`, which is borrowed, and has a query position
  // of its index plus `shift`. Null: neither. Mass() then covers only this set's own keys; `picked`
  // keeps the mass of its blocks. Must hold: shift <= shift_max.
  void AttendAlso(PickedBlocks* picked, uint32_t shift);
  // Call before a forward pass of `tokens` tokens. They are appended, and each attends to all keys
  // up to its own.
  void BeginPass(uint32_t tokens);
  // Records the queries of the next passes in `capture`. Null stops recording.
  void Capture(QueryCapture* capture) { capture_ = capture; }
  // From now on sums, per key, the softmax mass that the tokens of passes give it, over all layers
  // and query heads. Discards earlier sums.
  void CountMass();
  // The sums since CountMass: [size()].
  std::vector<double> Mass() const;

  void StoreKeys(uint32_t slot, LayerRows keys, uint32_t tokens, uint32_t worker,
                 uint32_t workers) override;
  void StoreValues(uint32_t slot, LayerRows values, uint32_t tokens, uint32_t worker,
                   uint32_t workers) override;
  void Attend(uint32_t slot, LayerRows queries, uint32_t tokens, float* out, uint32_t worker,
              uint32_t workers) override;

 private:
  // Consecutive blocks: [layers, kv_heads] of [blocks, head_dim, 64] keys and [blocks, 64,
  // head_dim] values.
  class Slab;
  // The location of a block within slabs_.
  struct Place {
    Slab* slab = nullptr;
    uint32_t index = 0;
  };

  static size_t BlockElements(const KvGeometry& geometry);
  // The view of one layer and KV head of a block.
  KeyBlockView View(uint32_t slot, uint32_t kv_head, uint32_t block) const;
  // Gives blocks [begin, end) a new slab of their own, in fp16 if `fp16`. It replaces their old
  // location.
  void Provide(uint32_t begin, uint32_t end, bool fp16);
  // Makes room for `tokens` more keys. New blocks that they fill completely use fp16 if `fp16`.
  void Grow(uint32_t tokens, bool fp16);
  // The element of slabs_ that owns `slab`.
  const std::shared_ptr<Slab>& Held(const Slab* slab) const;
  bool Shared(const Slab* slab) const { return Held(slab).use_count() > 1; }
  void PutKey(uint32_t slot, uint32_t kv_head, uint32_t index, const float* key);
  void PutValue(uint32_t slot, uint32_t kv_head, uint32_t index, const float* value);

  KvGeometry geometry_;
  uint32_t capacity_;
  uint32_t size_ = 0;        // keys that are complete
  uint32_t pass_begin_ = 0;  // keys before the current pass
  RopeTables rope_;
  // Each slab once. Slabs that other sets share are never written to.
  std::vector<std::shared_ptr<Slab>> slabs_;
  std::vector<Place> places_;  // [blocks]
  std::vector<float> bias_;    // [capacity, rounded up to blocks]
  bool any_bias_ = false;
  std::vector<VisibleKeys> visible_;  // of the current pass's tokens
  QueryCapture* capture_ = nullptr;
  PickedBlocks* picked_ = nullptr;
  uint32_t shift_ = 0, shift_max_;
  bool count_mass_ = false;
  struct Scratch;
  SharedParts parts_;
  std::vector<std::unique_ptr<Scratch>> scratch_;  // [workers]
};

}  // namespace longhold
