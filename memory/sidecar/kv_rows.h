// Keys and values of consecutive tokens in another engine's arrays, and their copy to and from
// blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "attention/geometry.h"
#include "attention/rope.h"
#include "base/status.h"
#include "store/block_codec.h"

namespace longhold {

// How the arrays are laid out: element (token t, KV head h, channel c) of a layer is at
// t * token_stride + h * head_stride + c. Value type.
struct KvLayout {
  size_t token_stride = 0;  // in elements
  size_t head_stride = 0;
  bool float32 = false;  // else fp16
  bool rotated = false;  // whether keys are rotated to positions
};

// Borrows the arrays. `Data` is const void for rows that are read, void for rows that are written.
template <typename Data>
struct KvArrays {
  std::span<Data* const> keys;  // [layers]
  std::span<Data* const> values;
  KvLayout layout;
};

// Appends to the block: rows [row, row + count) = array rows [from, from + count), with keys
// un-rotated. `ropes` has the position of array row `from` at index 0; it is not used where keys
// are not rotated. Elements round to fp16. Errors: invalid_argument (an element that is not finite,
// or beyond fp16); the block then has the rows that it had. Must hold: `row` is block->tokens, and
// the block has room.
Status FillBlock(const KvGeometry& geometry, const KvArrays<const void>& arrays, size_t from,
                 uint32_t row, uint32_t count, const RopeTables* ropes, KvBlock* block);

// array rows [to, to + count) = block rows [row, row + count), with keys rotated where the layout
// says so: array row `to` to the position at index 0 of `ropes`.
void CopyRows(const KvGeometry& geometry, const KvBlock& block, uint32_t row, uint32_t count,
              const RopeTables* ropes, size_t to, const KvArrays<void>& arrays);

}  // namespace longhold
