#include "memory/recall/planned_span.h"

#include "memory/core/memory.h"
#include "memory/text/date_line.h"
#include "memory/text/unwrap.h"

namespace longhold {
namespace {

// How far DateLineBefore looks: a session of a chat log may have as many tokens. Behind the token
// it only needs to see whether the line goes on.
constexpr TextReach kDateReach{.before = 4096, .after = 32};

// Units of text around some tokens, read once.
class Units {
 public:
  explicit Units(const TextWindow& window)
      : begin_(window.begin), units_(window.text, window.from_start, window.to_end) {}

  uint64_t begin() const { return begin_; }
  uint64_t end() const { return begin_ + units_.tokens(); }
  TokenSpan At(uint64_t token) const {
    const PieceRange unit = units_.At(token - begin_);
    return {begin_ + unit.begin, begin_ + unit.end};
  }

 private:
  const uint64_t begin_;
  const TextUnits units_;
};

TokenSpan Union(const TokenSpan& a, const TokenSpan& b) {
  return {std::min(a.begin, b.begin), std::max(a.end, b.end)};
}

// Adds the unit before or behind the span while it is short. A question is usually answered behind
// the words that it shares with the text, so the span reaches twice as far there.
TokenSpan Grow(const Units& units, TokenSpan span, uint64_t low, uint64_t high, uint32_t tokens,
               uint32_t tokens_max) {
  while (span.size() < tokens) {
    TokenSpan before = span, behind = span;
    if (span.begin > units.begin()) before = Union(span, units.At(span.begin - 1));
    if (span.end < units.end()) behind = Union(span, units.At(span.end));
    const bool fits_before = before.size() > span.size() && before.size() <= tokens_max,
               fits_behind = behind.size() > span.size() && behind.size() <= tokens_max;
    if (!fits_before && !fits_behind) break;
    const bool take_before =
        !fits_behind || (fits_before && 2 * (low - before.begin) < behind.end - high);
    span = take_before ? before : behind;
  }
  return span;
}

}  // namespace

Result<TokenSpan> SpanAround(Memory& memory, const RecallProfile& profile, DocumentId document,
                             uint64_t peak, uint64_t low, uint64_t high) {
  const uint64_t searchable = memory.Get(document).searchable_tokens;
  LH_CHECK(searchable > 0);
  for (uint64_t* token : {&peak, &low, &high}) *token = std::min(*token, searchable - 1);
  const uint32_t tokens_max = SpanTokensMax(profile);
  const Result<TextWindow> window =
      memory.TextAround(document, {low, high + 1}, {tokens_max, tokens_max});
  if (window.status().code() == StatusCode::kDataLoss) {
    const uint32_t before = profile.span_tokens / 3;
    return TokenSpan{peak - std::min<uint64_t>(peak, before),
                     std::min<uint64_t>(peak + profile.span_tokens - before, searchable)};
  }
  if (!window.ok()) return window.status();
  const Units units(*window);
  TokenSpan span = Union(Union(units.At(low), units.At(high)), units.At(peak));
  if (span.size() > tokens_max) {
    span = units.At(peak);
    low = high = peak;
  }
  span = Grow(units, span, low, high, profile.span_tokens, tokens_max);
  span.end = std::min(span.end, searchable);
  return span;
}

Result<TokenSpan> DateLineBefore(Memory& memory, DocumentId document, uint64_t at) {
  const Result<TextWindow> window = memory.TextAround(document, {at, at + 1}, kDateReach);
  if (window.status().code() == StatusCode::kDataLoss) return TokenSpan{};
  if (!window.ok()) return window.status();
  const std::vector<uint16_t>& token_bytes = window->text.token_bytes;
  std::vector<size_t> ends;  // [tokens] the byte behind each
  for (const uint16_t bytes : token_bytes) ends.push_back((ends.empty() ? 0 : ends.back()) + bytes);
  const size_t before = at == window->begin ? 0 : ends[at - window->begin - 1];
  std::vector<std::string_view> lines =
      LinesOf(std::string_view(window->text.text).substr(0, before));
  if (!window->from_start && !lines.empty()) lines.erase(lines.begin());  // cut off, perhaps
  const std::string_view rest = std::string_view(window->text.text).substr(before);
  const bool inside = before > 0 && window->text.text[before - 1] != '\n' &&
                      !WithoutTrailingSpace(rest.substr(0, rest.find('\n'))).empty();
  if (inside && !lines.empty()) lines.pop_back();  // `at` is in its text
  const auto line = std::find_if(lines.rbegin(), lines.rend(), IsDateLine);
  if (line == lines.rend()) return TokenSpan{};
  const auto begin = static_cast<size_t>(line->data() - window->text.text.data());
  const auto token_behind = [&](size_t byte) {
    return window->begin +
           static_cast<uint64_t>(std::upper_bound(ends.begin(), ends.end(), byte) - ends.begin());
  };
  return TokenSpan{token_behind(begin),
                   std::min(at, token_behind(begin + WithoutTrailingSpace(*line).size() - 1) + 1)};
}

}  // namespace longhold
