// Slot files of llama.cpp's server: the state of one sequence, as /slots/ID?action=save writes it
// and ?action=restore reads it. docs/formats/llama-slot.md specifies the bytes.
//
// The writer must match what the server's own cache has: version, types, number of streams,
// transposed values or not. So the layout is never guessed: it is read from a file that the server
// saved (ParseSlotFile), and files are composed alike (ComposeSlotFile). Pure functions of bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"

namespace longhold {

// The element types of keys and values that longhold writes; the numbers are ggml's.
enum class SlotType : int32_t { kFp32 = 0, kFp16 = 1 };

// What all slot files of one server have in common. Value type.
struct SlotLayout {
  uint32_t version = 0;        // 3 or 4
  bool packed_tokens = false;  // the token list has the server's own header
  uint32_t streams = 1;        // parts of the cache; 1, or one for each slot
  bool values_transposed = false;
  SlotType key_type = SlotType::kFp16, value_type = SlotType::kFp16;
  uint32_t layers = 0;
  uint32_t kv_width = 0;  // elements of a token's keys, or values, in a layer

  friend bool operator==(const SlotLayout&, const SlotLayout&) = default;
};

// A slot file in memory. Value type.
struct SlotState {
  SlotLayout layout;
  std::vector<TokenId> tokens;     // as the server's prompt has them
  std::vector<int32_t> positions;  // [cells]
  // [layers] of [cells, kv_width]; keys are rotated to their positions
  std::vector<std::vector<float>> keys, values;
};

// Reads a file that a server saved, of one sequence and at least one cell. Errors: unimplemented,
// with the next step (another version, another type of keys or values, a cache with more than
// longhold knows); data_loss (not a slot file, or cut). Never crashes on hostile bytes, and
// allocates no more than a few times their size.
Result<SlotState> ParseSlotFile(std::string_view bytes);

// What a composed file holds. Borrows its members for the call.
struct SlotPrefix {
  std::span<const TokenId> tokens;  // at positions 0, 1, ...
  // Writes the keys, rotated to these positions, and the values of one layer, in fp16: [tokens,
  // kv_width] each.
  std::function<void(uint32_t layer, uint16_t* keys, uint16_t* values)> copy;
};

// The bytes of a file that puts the prefix into slot `slot` of a server with this layout. Must
// hold: the prefix has at least one token.
std::string ComposeSlotFile(const SlotLayout& layout, uint32_t slot, const SlotPrefix& prefix);
// Its size.
uint64_t SlotFileBytes(const SlotLayout& layout, uint64_t tokens);

}  // namespace longhold
