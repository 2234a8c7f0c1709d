// Cuts one layer's attention into kernel calls and shares them between workers. Used by every
// LayerAttention of memory/.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "attention/geometry.h"
#include "attention/kernels.h"
#include "attention/layer_attention.h"
#include "attention/rope.h"

namespace longhold {

// 64-byte aligned floats that only grow. *confined* to one worker.
class AlignedFloats {
 public:
  AlignedFloats() = default;
  ~AlignedFloats();
  AlignedFloats(const AlignedFloats&) = delete;
  AlignedFloats& operator=(const AlignedFloats&) = delete;
  // At least `count` floats; the contents are undefined after a growth.
  float* Ensure(size_t count);

 private:
  float* data_ = nullptr;
  size_t size_ = 0;
};

// A pass of few tokens has fewer tiles than its workers could share evenly: a decoded token one a
// KV head. There each head's keys are attended to in parts of kPartBlocks blocks or more, and the
// worker that ends a head's last part merges them; nobody waits. The parts do not depend on the
// number of workers, and so neither does the result.
//
// Owner: a LayerAttention, for all its workers. Thread use: Prepare between passes; else
// AttendTiles only.
class SharedParts {
 public:
  static constexpr uint32_t kPartBlocks = 4;
  static constexpr uint32_t kPartsMax = 8;
  static constexpr uint32_t kRowsMax = 16;  // of one KV head; with more there are tiles enough

  explicit SharedParts(uint32_t kv_heads) : done(kv_heads) {}
  // Before a pass whose tokens have `rows` query rows for each KV head and see at most `blocks`
  // blocks.
  void Prepare(uint32_t rows, uint32_t blocks, uint32_t head_dim, bool count_mass);
  uint32_t count() const { return count_; }  // of parts for each head; 1: heads are not cut

  // Part p of a pass of `blocks` blocks ends before block PartEnd(p), and p + 1 begins there.
  static uint32_t PartEnd(uint32_t part, uint32_t count, uint32_t blocks) {
    return blocks * (part + 1) / count;
  }

  AlignedFloats out;   // [kv_heads, count, rows, head_dim]
  AlignedFloats lse;   // [kv_heads, count, rows]
  AlignedFloats mass;  // [kv_heads, rows, blocks * 64], each row over its part's own sum
  std::vector<std::atomic<uint32_t>> done;  // [kv_heads] parts

 private:
  uint32_t count_ = 1;
};

// What one worker needs for its calls.
struct TileScratch {
  AlignedFloats q;  // rotated queries of a tile
  AlignedFloats out;
  AlignedFloats kernel;
  // [keys, rounded up to blocks], of each KV head where they are apart; used when
  // LayerCall::count_mass
  std::vector<float> mass;
};

// Workers that a pass may have. Bounds the scratch lists, which are made up front because workers
// enter at the same time.
inline constexpr uint32_t kWorkersMax = 64;

struct LayerCall {
  const KvGeometry* geometry = nullptr;
  const RopeTable* rope = nullptr;
  LayerRows queries;
  uint32_t tokens = 0;
  uint32_t first_position = 0;  // virtual position of the first query token
  // Blocks of each KV head, [kv_heads] lists of the same length.
  std::span<const std::vector<KeyBlockView>> blocks;
  uint32_t shared = 0;
  const VisibleKeys* visible = nullptr;  // [tokens]
  float* out = nullptr;                  // [tokens, q_heads, head_dim]
  bool count_mass = false;
  // each KV head's keys have their own masses, one head's behind the other's
  bool heads_apart = false;
  // prepared for this pass, or null: heads are not cut into parts
  SharedParts* parts = nullptr;
};

// Attends this worker's share of the call's tiles. Every worker makes the same call.
void AttendTiles(const LayerCall& call, TileScratch* scratch, uint32_t worker, uint32_t workers);

}  // namespace longhold
