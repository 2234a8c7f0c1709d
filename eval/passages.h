// Cuts a text into the passages that the retrieval baselines rank. A passage is a window of
// consecutive units. A unit is a line or, if the line is long, a sentence. A short line is one unit
// even if it has several sentences: it may be a verse, a list item or a wrapped line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace longhold {

// Lines with more bytes than this, newline included, are cut at sentences. 99% of the verses of the
// King James Bible are shorter.
inline constexpr size_t kPassageLineBytes = 300;

// Value type.
struct PassageOptions {
  uint32_t units = 4;   // units per passage
  uint32_t stride = 2;  // units from the begin of one passage to the begin of the next; 1..units
  // Longer units are cut at a space, so that text without line breaks and sentences is cut too.
  uint32_t unit_bytes_max = 600;
};

// The passages in ascending order. They cover the text except blank units. Empty for a text of
// white space only. Must hold: units >= 1, 1 <= stride <= units, unit_bytes_max >= 16.
std::vector<ByteSpan> CutPassages(std::string_view text, const PassageOptions& options);

}  // namespace longhold
