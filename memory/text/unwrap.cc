#include "memory/text/unwrap.h"

#include <algorithm>

#include "memory/text/sentences.h"

namespace longhold {
namespace {

constexpr size_t kWrapWidthMin = 40, kWrapWidthMax = 120;
// Of two lines the first one is always the longest, or has no room for the whole second one.
constexpr size_t kTwoLinesWidthMin = 60;
// Of a wrapped paragraph's line breaks, three quarters wrap it. The others end a heading or a
// paragraph that no blank line follows.
constexpr size_t kWrappedShare = 3, kWrappedOf = 4;

size_t Characters(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

size_t FirstWordCharacters(std::string_view line) {
  line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
  return Characters(line.substr(0, line.find_first_of(" \t")));
}

// The lines of a paragraph whose line breaks only wrap it: indices into `lines`. Of `lines`, those
// from `begin` to `end` are the paragraph. The first may be cut off at its begin where `first_cut`.
std::vector<size_t> WrappedLines(const std::vector<std::string_view>& lines, size_t begin,
                                 size_t end, bool first_cut) {
  size_t width = 0;
  for (size_t i = begin; i < end; ++i)
    width = std::max(width, Characters(WithoutTrailingSpace(lines[i])));
  if (width < kWrapWidthMin || width > kWrapWidthMax) return {};
  std::vector<size_t> wrapped;
  for (size_t i = begin; i + 1 < end; ++i) {
    const std::string_view line = WithoutTrailingSpace(lines[i]);
    if ((i == begin && first_cut) ||
        Characters(line) + 1 + FirstWordCharacters(lines[i + 1]) > width)
      wrapped.push_back(i);
  }
  const std::string_view first = WithoutTrailingSpace(lines[begin]);
  if (end - begin == 2 && (Characters(first) < kTwoLinesWidthMin || EndsSentence(first))) return {};
  const size_t breaks = end - begin - 1;
  return kWrappedOf * wrapped.size() >= kWrappedShare * breaks ? wrapped : std::vector<size_t>();
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
  const auto blank = [&](size_t i) { return WithoutTrailingSpace(lines[i]).empty(); };
  for (size_t begin = 0; begin < lines.size();) {
    size_t end = begin;
    while (end < lines.size() && !blank(end)) ++end;
    if (end > begin + 1) {
      for (const size_t i : WrappedLines(lines, begin, end, begin == 0 && !from_start))
        (*text)[static_cast<size_t>(lines[i].data() - text->data()) + lines[i].size()] = ' ';
    }
    begin = std::max(end, begin + 1);
  }
}

}  // namespace longhold
