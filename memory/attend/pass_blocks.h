// The keys and values of a hot window's last pass as blocks.
#pragma once

#include <cstdint>
#include <vector>

#include "memory/attend/hot_window.h"
#include "store/block_codec.h"

namespace longhold {

// The rows of the window's last pass, cut every 64 tokens; the last block may hold fewer. Must
// hold: the pass had `tokens` tokens and has ended, and `shape` is that of the window's geometry.
std::vector<KvBlock> PassBlocks(const HotWindow& window, const BlockShape& shape, uint32_t tokens);

}  // namespace longhold
