// Everything that the answer's softmax sees: head tokens, recalled spans, and the conversation, at
// contiguous virtual positions, laid out for the kernels.
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

// Queries of some tapped layers' heads, un-rotated, kept while a pass runs: what the recall heads
// ask for.
struct QueryCapture {
  std::vector<uint32_t> slots;  // which tapped layers
  // [slots] of [tokens, q_heads, head_dim], in the order of the pass
  std::vector<std::vector<float>> queries;
};

// A growing list of keys and values that every later token attends to. Key i sits at virtual
// position i.
//
// Owner: an answer, or the tap's proof. Thread use: *confined*; the LayerAttention calls follow
// that interface's rule. Memory: in blocks of 64 keys, allocated as they fill. What a pass appends
// is kept in 32 bits a number. Stored rows came from 16 bits and are kept in 16, the keys rounded
// once more after their rotation (what the engine's own 16-bit cache does), where they fill a block
// of this set: half the bytes to read for every token of the answer.
class WorkingSet final : public LayerAttention {
 public:
  // Holds at most `capacity_tokens` keys, which Beside may move by up to `shift_max`.
  WorkingSet(const KvGeometry& geometry, uint32_t capacity_tokens, uint32_t shift_max = 0);
  ~WorkingSet() override;
  // RAM that keys take at most: `passed` that passes append, and `stored` rows of blocks for which
  // room is reserved at once.
  static uint64_t Bytes(const KvGeometry& geometry, uint64_t passed, uint64_t stored = 0);
  // RAM of this set when `tokens` more keys have been appended, at most.
  uint64_t BytesWith(uint64_t tokens) const;

  uint32_t size() const { return size_; }
  uint32_t capacity() const { return capacity_; }
  const KvGeometry& geometry() const { return geometry_; }
  const RopeTables& ropes() const { return rope_; }

  // Forgets keys [size, ...): later appends take their place. Must hold: size <= size().
  void Truncate(uint32_t size);

  // Appends rows [row_begin, row_end) of a stored block, with `bias` added to their logits (the
  // gate). Must hold: there is room. The block's shape must be this geometry's.
  void AppendBlock(const KvBlock& block, uint32_t row_begin, uint32_t row_end, float bias);
  // Begins with the first `tokens` keys of `other`, which has the same geometry, at the same
  // positions; whole blocks are shared with it, not copied. Must hold: this set is empty and holds
  // that many.
  void AppendHead(const WorkingSet& other, uint32_t tokens);
  // AppendBlock in three steps, so that many blocks can be laid out by several threads: Reserve
  // room, PlaceRows each piece at its index for each layer slot (calls with different (piece, slot)
  // may run at the same time), then CommitRows in order. Also before several AppendBlocks that
  // follow each other: only whole blocks of what was reserved at once take 16 bits.
  void Reserve(uint32_t tokens);
  void PlaceRows(const KvBlock& block, uint32_t row_begin, uint32_t row_end, uint32_t index,
                 uint32_t slot);
  void CommitRows(uint32_t tokens, float bias);

  // From now on every token sees `picked`, which is borrowed, beside the keys of this set, and
  // stands `shift` positions farther on than its index; null: nothing, and where it stood. Mass is
  // then that of this set's own keys, and the blocks' is with `picked`. Must hold: shift <=
  // shift_max.
  void Beside(PickedBlocks* picked, uint32_t shift);
  // Before a forward pass of `tokens` tokens: they are appended, each seeing all keys up to itself.
  void BeginPass(uint32_t tokens);
  // Keeps the queries of the next passes; null stops.
  void Capture(QueryCapture* capture) { capture_ = capture; }
  // From now on adds up, per key, the softmax mass that the passes' tokens give it, over all layers
  // and query heads. What was added up before is forgotten.
  void CountMass();
  // What was added up since CountMass: [size()].
  std::vector<double> Mass() const;

  void StoreKeys(uint32_t slot, LayerRows keys, uint32_t tokens, uint32_t worker,
                 uint32_t workers) override;
  void StoreValues(uint32_t slot, LayerRows values, uint32_t tokens, uint32_t worker,
                   uint32_t workers) override;
  void Attend(uint32_t slot, LayerRows queries, uint32_t tokens, float* out, uint32_t worker,
              uint32_t workers) override;

 private:
  // Some blocks that follow each other: [layers, kv_heads] of [blocks, head_dim, 64] keys and
  // [blocks, 64, head_dim] values.
  class Slab;
  // Where a block lies: in one of slabs_.
  struct Place {
    Slab* slab = nullptr;
    uint32_t index = 0;
  };

  static size_t BlockElements(const KvGeometry& geometry);
  // One layer and KV head of a block.
  KeyBlockView View(uint32_t slot, uint32_t kv_head, uint32_t block) const;
  // Blocks [begin, end) get a new slab of their own, in place of what they had.
  void Provide(uint32_t begin, uint32_t end, bool halves);
  // Room for `tokens` more keys, of which whole new blocks may be halves.
  void Grow(uint32_t tokens, bool halves);
  // The one of slabs_ that this is.
  const std::shared_ptr<Slab>& Held(const Slab* slab) const;
  bool Shared(const Slab* slab) const { return Held(slab).use_count() > 1; }
  void PutKey(uint32_t slot, uint32_t kv_head, uint32_t index, const float* key);
  void PutValue(uint32_t slot, uint32_t kv_head, uint32_t index, const float* value);

  KvGeometry geometry_;
  uint32_t capacity_;
  uint32_t size_ = 0;        // keys that are complete
  uint32_t pass_begin_ = 0;  // keys before the current pass
  RopeTables rope_;
  // each once; those that other sets have too are not written to
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
