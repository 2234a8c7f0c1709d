#include "memory/text/unwrap.h"

#include <algorithm>
#include <cstdint>

#include "memory/text/sentences.h"

namespace longhold {
namespace {

constexpr size_t kWrapWidthMin = 40, kWrapWidthMax = 120;
// A single break: the longest line never has room for a word behind it.
constexpr size_t kOneBreakWidthMin = 60;
// Of a wrapped paragraph's line breaks, three quarters wrap it. The others end a heading or a
// paragraph that no blank line follows.
constexpr size_t kWrappedShare = 3, kWrappedOf = 4;
// Rows of tables and logs have no room either. But few of them begin with a small letter, as a
// third of the wrapped lines of prose do, and few words are as long as some of them.
constexpr size_t kSmallShare = 1, kSmallOf = 3;
constexpr size_t kWordsMin = 4;

size_t Characters(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string_view WithoutLeadingSpace(std::string_view line) {
  return line.substr(std::min(line.find_first_not_of(" \t"), line.size()));
}

// The first word behind what begins each line of a comment or a quotation.
std::string_view FirstWord(std::string_view line) {
  line = WithoutLeadingSpace(line);
  const std::string_view marker = line.substr(0, line.find_first_not_of("/*#>;!"));
  if (!marker.empty() && line.substr(marker.size()).starts_with(' '))
    line = WithoutLeadingSpace(line.substr(marker.size()));
  return line.substr(0, line.find_first_of(" \t\r"));
}

size_t Words(std::string_view line) {
  size_t words = 0;
  for (size_t i = 0; i < line.size(); ++i)
    words += line[i] != ' ' && (i == 0 || line[i - 1] == ' ') ? 1 : 0;
  return words;
}

// Whether the word begins with a small letter, behind quotes and brackets: of the Latin, Greek and
// Cyrillic alphabets as far as they are usual.
bool BeginsSmall(std::string_view word) {
  const size_t first = word.find_first_not_of("\"'([*_");
  if (first == std::string_view::npos) return false;
  const auto at = [&](size_t i) { return i < word.size() ? static_cast<uint8_t>(word[i]) : 0; };
  const uint8_t lead = at(first), next = at(first + 1);
  return (lead >= 'a' && lead <= 'z') || (lead == 0xC3 && next >= 0x9F) ||
         (lead == 0xCE && next >= 0xAC) || (lead == 0xCF && next <= 0x8E) ||
         (lead == 0xD0 && next >= 0xB0) || lead == 0xD1;
}

// A paragraph: some of a text's lines. Value type.
struct Paragraph {
  const std::vector<std::string_view>& lines;
  size_t begin, end;
  bool begins_cut, ends_cut;  // its first or last line may go on outside the text

  std::string_view Line(size_t i) const { return WithoutTrailingSpace(lines[i]); }
  // Of these breaks nobody can say whether the line had room.
  bool Unknown(size_t i) const {
    return (begins_cut && i == begin) || (ends_cut && i + 2 == end && Words(Line(i + 1)) <= 1);
  }
};

// The lines whose breaks only wrap the paragraph.
std::vector<size_t> WrappedLines(const Paragraph& p) {
  size_t width = 0;
  for (size_t i = p.begin; i < p.end; ++i) width = std::max(width, Characters(p.Line(i)));
  if (width < kWrapWidthMin || width > kWrapWidthMax) return {};
  std::vector<size_t> wrapped;
  size_t judged = 0, full = 0, small = 0;
  for (size_t i = p.begin; i + 1 < p.end; ++i) {
    const std::string_view line = p.Line(i), word = FirstWord(p.lines[i + 1]);
    const bool unknown = p.Unknown(i);
    const bool is_full =
        Words(line) >= kWordsMin && Characters(line) + 1 + Characters(word) > width;
    if (unknown || is_full) wrapped.push_back(i);
    if (unknown) continue;
    ++judged;
    full += is_full ? 1 : 0;
    small += is_full && BeginsSmall(word) ? 1 : 0;
  }
  if (full == 0 || kWrappedOf * full < kWrappedShare * judged ||
      kSmallOf * small < kSmallShare * full)
    return {};
  if (judged == 1) {
    const std::string_view line = p.Line(wrapped.front() + (p.Unknown(wrapped.front()) ? 1 : 0));
    if (Characters(line) < kOneBreakWidthMin || EndsSentence(line)) return {};
  }
  return wrapped;
}

}  // namespace

std::vector<std::string_view> LinesOf(std::string_view text) {
  std::vector<std::string_view> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t newline = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, newline - at));
    at = newline + 1;
  }
  return lines;
}

std::string_view WithoutTrailingSpace(std::string_view line) {
  return line.substr(0, line.find_last_not_of(" \t\r\n") + 1);
}

void UnwrapLines(std::string* text, bool from_start) {
  const std::vector<std::string_view> lines = LinesOf(*text);
  // What is left of a cut line is none, even if only its end is left.
  const auto blank = [&](size_t i) {
    return (i > 0 || from_start) && WithoutTrailingSpace(lines[i]).empty();
  };
  for (size_t begin = 0; begin < lines.size();) {
    size_t end = begin;
    while (end < lines.size() && !blank(end)) ++end;
    if (end > begin + 1) {
      const bool ends_cut = end == lines.size() && !text->ends_with('\n');
      for (const size_t i : WrappedLines({.lines = lines,
                            .begin = begin,
                            .end = end,
                            .begins_cut = begin == 0 && !from_start,
                            .ends_cut = ends_cut}))
        (*text)[static_cast<size_t>(lines[i].data() - text->data()) + lines[i].size()] = ' ';
    }
    begin = std::max(end, begin + 1);
  }
}

}  // namespace longhold
