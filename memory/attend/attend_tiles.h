// Splits one layer's attention into tiles, one kernel call each, and distributes the tiles to the
// workers. Every LayerAttention of memory/ uses it.
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

// A growing buffer of 64-byte aligned floats. *confined* to one worker.
class AlignedFloats {
 public:
  AlignedFloats() = default;
  ~AlignedFloats();
  AlignedFloats(const AlignedFloats&) = delete;
  AlignedFloats& operator=(const AlignedFloats&) = delete;
  // Returns at least `count` floats. After a growth the contents are undefined.
  float* Ensure(size_t count);

 private:
  float* data_ = nullptr;
  size_t size_ = 0;
};

// Splits the keys of a head into parts when there are too few tiles for an even distribution. A
// decoded token, for example, has only one tile per KV head. Each part has at least kPartBlocks
// blocks. The worker that finishes a head's last part merges the parts, so no worker waits. The
// parts do not depend on the number of workers, so the result does not either.
//
// Owner: a LayerAttention, for all its workers. Thread use: Prepare between passes; during a pass
// only AttendTiles uses it.
class SharedParts {
 public:
  static constexpr uint32_t kPartBlocks = 4;
  static constexpr uint32_t kPartsMax = 8;
  static constexpr uint32_t kRowsMax = 16;  // per KV head; with more rows there are enough tiles

  explicit SharedParts(uint32_t kv_heads) : done(kv_heads) {}
  // Call before a pass whose tokens have `rows` query rows per KV head and see at most `blocks`
  // blocks.
  void Prepare(uint32_t rows, uint32_t blocks, uint32_t head_dim, bool count_mass);
  uint32_t count() const { return count_; }  // parts per head; 1: heads are not split

  // Part p of a pass with `blocks` blocks ends before block PartEnd(p). Part p + 1 begins there.
  static uint32_t PartEnd(uint32_t part, uint32_t count, uint32_t blocks) {
    return blocks * (part + 1) / count;
  }

  AlignedFloats out;   // [kv_heads, count, rows, head_dim]
  AlignedFloats lse;   // [kv_heads, count, rows]
  AlignedFloats mass;  // [kv_heads, rows, blocks * 64], normalised by the part's own sum
  std::vector<std::atomic<uint32_t>> done;  // [kv_heads] number of finished parts

 private:
  uint32_t count_ = 1;
};

// The buffers of one worker.
struct TileScratch {
  AlignedFloats q;  // rotated queries of a tile
  AlignedFloats out;
  AlignedFloats kernel;
  // [keys, rounded up to blocks], once per KV head if `heads_apart`. Used with
  // LayerCall::count_mass.
  std::vector<float> mass;
};

// The most workers of a pass. It bounds the number of scratch buffers. These are allocated up front
// because all workers start at the same time.
inline constexpr uint32_t kWorkersMax = 64;

struct LayerCall {
  const KvGeometry* geometry = nullptr;
  const RopeTable* rope = nullptr;
  LayerRows queries;
  uint32_t tokens = 0;
  uint32_t first_position = 0;  // virtual position of the first query token
  // The blocks of each KV head: [kv_heads] vectors of the same length.
  std::span<const std::vector<KeyBlockView>> blocks;
  uint32_t shared = 0;
  const VisibleKeys* visible = nullptr;  // [tokens]
  float* out = nullptr;                  // [tokens, q_heads, head_dim]
  bool count_mass = false;
  // Each KV head has its own keys, so masses are kept per head: [kv_heads, keys].
  bool heads_apart = false;
  // Prepared for this pass. Null: heads are not split into parts.
  SharedParts* parts = nullptr;
};

// Attends this worker's share of the call's tiles. Every worker makes the same call.
void AttendTiles(const LayerCall& call, TileScratch* scratch, uint32_t worker, uint32_t workers);

}  // namespace longhold
