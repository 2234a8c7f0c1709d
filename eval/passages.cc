#include "eval/passages.h"

#include <algorithm>

#include "base/status.h"

namespace longhold {
namespace {

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

// The end of the unit that begins at `begin`, in a line that ends at `line_end`. It is the end of
// the line or, with `sentences`, of the first sentence, but at most `bytes_max` bytes away.
size_t UnitEnd(std::string_view text, size_t begin, size_t line_end, bool sentences,
               size_t bytes_max) {
  size_t last_space = 0;
  for (size_t i = begin; i < line_end; ++i) {
    const bool ends = text[i] == '.' || text[i] == '!' || text[i] == '?';
    // At least 20 bytes, so that "Mr. X" is not cut.
    if (sentences && ends && i + 1 < line_end && IsSpace(text[i + 1]) && i - begin >= 20)
      return i + 1;
    if (IsSpace(text[i])) last_space = i + 1;
    if (i - begin >= bytes_max) {
      if (last_space > begin) return last_space;
      // Do not cut inside a UTF-8 character.
      while (i < line_end && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) ++i;
      return i;
    }
  }
  return line_end;
}

}  // namespace

std::vector<ByteSpan> CutPassages(std::string_view text, const PassageOptions& options) {
  LH_CHECK(options.units >= 1 && options.stride >= 1 && options.stride <= options.units &&
           options.unit_bytes_max >= 16);
  std::vector<ByteSpan> units;
  size_t line_end = 0;
  bool sentences = false;
  for (size_t at = 0; at < text.size();) {
    if (at == line_end) {
      const size_t newline = text.find('\n', at);
      line_end = newline == std::string_view::npos ? text.size() : newline + 1;
      sentences = line_end - at > kPassageLineBytes;
    }
    const size_t end = UnitEnd(text, at, line_end, sentences, options.unit_bytes_max);
    if (!std::all_of(text.begin() + static_cast<ptrdiff_t>(at),
                     text.begin() + static_cast<ptrdiff_t>(end), IsSpace)) {
      units.push_back({at, end});
    }
    at = end;
  }
  std::vector<ByteSpan> passages;
  for (size_t u = 0; u < units.size(); u += options.stride) {
    const size_t last = std::min(u + options.units, units.size()) - 1;
    passages.push_back({units[u].begin, units[last].end});
    if (last + 1 == units.size()) break;
  }
  return passages;
}

}  // namespace longhold
