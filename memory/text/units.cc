#include "memory/text/units.h"

#include <algorithm>

#include "memory/text/unwrap.h"

namespace longhold {
namespace {

bool IsOneOf(char c, std::string_view any) { return any.find(c) != std::string_view::npos; }

}  // namespace

TextUnits::TextUnits(const TokenText& text, bool from_start, bool to_end)
    : starts_(text.token_bytes.size() + 1, kNone), from_start_(from_start), to_end_(to_end) {
  std::string unwrapped = text.text;
  UnwrapLines(&unwrapped, from_start);
  std::vector<size_t> begins;  // [tokens] the first byte of each
  size_t byte = 0;
  for (const uint16_t bytes : text.token_bytes) {
    begins.push_back(byte);
    pieces_.push_back(unwrapped.substr(byte, bytes));
    byte += bytes;
  }
  // Of the line before the first one nothing is known, unless there is none.
  bool after_blank = from_start, known = from_start;
  for (const std::string_view line : LinesOf(unwrapped)) {
    const bool blank = WithoutTrailingSpace(line).empty();
    const auto begin = static_cast<size_t>(line.data() - unwrapped.data());
    if (known && !blank) {
      const Start start = !after_blank                      ? kLine
                          : IsOneOf(line.front(), " \t})]") ? kParagraph
                                                            : kFunction;
      // The token that holds the line's first byte may begin with the end of the line before.
      const auto token = static_cast<size_t>(std::upper_bound(begins.begin(), begins.end(), begin) -
                                             begins.begin() - 1);
      starts_[token] = std::max(starts_[token], start);
    }
    after_blank = blank && known;
    known = true;
  }
  // The last line is whole. More blank lines may follow one.
  if (unwrapped.ends_with('\n') && !after_blank) starts_.back() = kLine;
}

PieceRange TextUnits::Between(size_t at, Start least) const {
  size_t begin = at, end = at + 1;
  while (begin > 0 && starts_[begin] < least) --begin;
  while (end < tokens() && starts_[end] < least) ++end;
  const bool begins = starts_[begin] >= least || (begin == 0 && from_start_);
  const bool ends = end < tokens() || starts_[end] >= least || to_end_;
  return begins && ends ? PieceRange{begin, end} : PieceRange{};
}

PieceRange TextUnits::At(size_t at) const {
  struct Limit {
    Start start;
    uint32_t tokens_max;
  };
  for (const auto& [start, tokens_max] :
       {Limit{kFunction, kFunctionTokensMax}, Limit{kParagraph, kParagraphTokensMax},
        Limit{kLine, kLineTokensMax}}) {
    const PieceRange unit = Between(at, start);
    if (unit.end > unit.begin && unit.end - unit.begin <= tokens_max) return unit;
  }
  const size_t begin = at - std::min<size_t>(at, kSentenceReachTokens),
               end = std::min(at + 1 + kSentenceReachTokens, tokens());
  const std::vector<std::string> near(pieces_.begin() + static_cast<ptrdiff_t>(begin),
                                      pieces_.begin() + static_cast<ptrdiff_t>(end));
  const PieceRange sentence =
      SentenceAround(near, at - begin, from_start_ && begin == 0, to_end_ && end == tokens());
  return {begin + sentence.begin, begin + sentence.end};
}

}  // namespace longhold
