#include "memory/attend/pass_blocks.h"

#include <algorithm>

namespace longhold {

std::vector<KvBlock> PassBlocks(const HotWindow& window, const BlockShape& shape, uint32_t tokens) {
  std::vector<KvBlock> blocks;
  const size_t width = shape.kv_width;
  for (uint32_t row = 0; row < tokens; row += kBlockTokens) {
    KvBlock& block = blocks.emplace_back(KvBlock::Empty(shape));
    block.tokens = std::min(kBlockTokens, tokens - row);
    for (uint32_t slot = 0; slot < shape.layers; ++slot) {
      std::copy_n(window.PassKeys(slot) + row * width, block.tokens * width, block.Keys(slot));
      std::copy_n(window.PassValues(slot) + row * width, block.tokens * width, block.Values(slot));
    }
  }
  return blocks;
}

}  // namespace longhold
