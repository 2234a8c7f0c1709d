// Cuts a text into the passages that the retrieval baselines rank: windows over its lines or, where
// lines are long, sentences. A short line is one unit even when sentences end inside it: a verse,
// an item of a list, a line of a page that was wrapped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace longhold {

// Lines of more bytes, with their newline, are cut at sentences. Of the King James Bible's verses
// 99% are shorter.
inline constexpr size_t kPassageLineBytes = 300;

struct PassageOptions {
  uint32_t units = 4;   // lines or sentences of one passage
  uint32_t stride = 2;  // units from one passage's begin to the next one's; 1..units
  // longer units are cut at a space, so that a text without either is cut as well
  uint32_t unit_bytes_max = 600;
};

// Windows that cover the text, ascending; blank units belong to none. Empty for a text of white
// space. Must hold: units >= 1, 1 <= stride <= units, unit_bytes_max >= 16.
std::vector<ByteSpan> CutPassages(std::string_view text, const PassageOptions& options);

}  // namespace longhold
