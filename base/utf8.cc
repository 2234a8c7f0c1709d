#include "base/utf8.h"

#include <cstring>

#include "base/text.h"

namespace longhold {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Length in bytes of the valid character at `p`, 0 when there is none. Precondition: p < end.
size_t CharacterLength(const unsigned char* p, const unsigned char* end) {
  const unsigned char lead = *p;
  if (lead < 0x80) return 1;
  size_t length = 0;
  unsigned char low = 0x80, high = 0xBF;  // bounds of the second byte
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;   // overlong
    if (lead == 0xED) high = 0x9F;  // surrogates
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;   // overlong
    if (lead == 0xF4) high = 0x8F;  // above U+10FFFF
  }
  if (length == 0 || static_cast<size_t>(end - p) < length || p[1] < low || p[1] > high) return 0;
  for (size_t i = 2; i < length; ++i) {
    if ((p[i] & 0xC0) != 0x80) return 0;
  }
  return length;
}

// C0, DEL and C1 (U+0080 to U+009F, C2 80 to C2 9F).
bool IsControl(std::string_view character) {
  const auto c = static_cast<unsigned char>(character[0]);
  return c < 0x20 || c == 0x7F || (c == 0xC2 && static_cast<unsigned char>(character[1]) < 0xA0);
}

// Calls fn(character) for each character, with kReplacement for each invalid byte.
template <typename Fn>
void ForEachCharacter(std::string_view text, Fn fn) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  const auto* end = p + text.size();
  while (p < end) {
    const size_t length = CharacterLength(p, end);
    fn(length == 0 ? kReplacement : std::string_view(reinterpret_cast<const char*>(p), length));
    p += length == 0 ? 1 : length;
  }
}

}  // namespace

std::optional<uint64_t> FirstInvalidUtf8(std::string_view text) {
  const auto* begin = reinterpret_cast<const unsigned char*>(text.data());
  const auto* p = begin;
  const auto* end = begin + text.size();
  while (p < end) {
    // Fast path: eight ASCII bytes at a time, because most texts are mostly ASCII.
    while (end - p >= 8) {
      uint64_t word = 0;
      std::memcpy(&word, p, 8);
      if ((word & 0x8080808080808080ull) != 0) break;
      p += 8;
    }
    if (p == end) break;
    const size_t length = CharacterLength(p, end);
    if (length == 0) return static_cast<uint64_t>(p - begin);
    p += length;
  }
  return std::nullopt;
}

std::string MakeValidUtf8(std::string_view text) {
  if (!FirstInvalidUtf8(text)) return std::string(text);
  std::string out;
  ForEachCharacter(text, [&](std::string_view c) { out += c; });
  return out;
}

std::string CollapseSpace(std::string_view text) {
  std::string out;
  bool space = false;
  ForEachCharacter(text, [&](std::string_view c) {
    if (c == " " || (c[0] >= '\t' && c[0] <= '\r')) {
      space = true;
      return;
    }
    if (space && !out.empty()) out += ' ';
    space = false;
    out += IsControl(c) ? kReplacement : c;
  });
  return out;
}

std::string MakePrintable(std::string_view text) {
  std::string out;
  ForEachCharacter(text, [&](std::string_view c) {
    if (c == "\r") return;
    out += IsControl(c) && c != "\n" && c != "\t" ? kReplacement : c;
  });
  return out;
}

size_t CountColumns(std::string_view text) { return CountCharacters(text); }

}  // namespace longhold
