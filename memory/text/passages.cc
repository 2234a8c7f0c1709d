#include "memory/text/passages.h"

#include <algorithm>
#include <limits>

#include "memory/text/sentences.h"
#include "memory/text/unwrap.h"

namespace longhold {
namespace {

// Cost of a cut at each kind of place.
constexpr double kBlockEnd = 0, kLineEnd = 0.05, kSentenceEnd = 0.2, kWordEnd = 1, kInsideWord = 4,
                 kInsideCharacter = 8;
// What is looked at before a cut to see whether a sentence ends there.
constexpr size_t kSentenceTail = 16;

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }
bool IsBlank(std::string_view line) { return WithoutTrailingSpace(line).empty(); }

// The line that begins at `begin`, without its newline.
std::string_view LineFrom(std::string_view text, size_t begin) {
  return text.substr(begin, text.find('\n', begin) - begin);
}

// The cost of a cut before the line that begins at `at`.
double LineCost(std::string_view text, size_t at) {
  const size_t newline = at < 2 ? std::string_view::npos : text.rfind('\n', at - 2);
  const std::string_view before =
      LineFrom(text, newline == std::string_view::npos ? 0 : newline + 1);
  const std::string_view line = LineFrom(text, at);
  if (IsBlank(before) || IsBlank(line)) return kBlockEnd;
  if (IsSpace(line.front())) return kLineEnd;
  // An unindented closing bracket belongs to what stands before it, and ends it.
  const auto closes = [](std::string_view l) {
    return l.front() == '}' || l.front() == ')' || l.front() == ']';
  };
  if (closes(line)) return kWordEnd;
  return IsSpace(before.front()) || closes(before) ? kBlockEnd : kLineEnd;
}

// The cost of a cut before byte `at` of the text.
double CutCost(std::string_view text, size_t at) {
  if (at == 0 || at >= text.size()) return kBlockEnd;
  if (text[at - 1] == '\n') return LineCost(text, at);
  if ((text[at] & 0xC0) == 0x80) return kInsideCharacter;
  size_t end = at;
  while (end > 0 && IsSpace(text[end - 1])) --end;
  const size_t tail = std::min(end, kSentenceTail);
  const bool ends = EndsSentence(text.substr(end - tail, tail));
  const bool between_words = IsSpace(text[at]) || end < at;
  // The full stops of scripts without spaces need none behind them.
  if (ends && (between_words || (text[end - 1] & 0x80) != 0)) return kSentenceEnd;
  return between_words ? kWordEnd : kInsideWord;
}

// How long the pieces of a cut are, in tokens: usually from `least` to `usual_most`, and never more
// than `most`.
struct PieceLength {
  uint32_t least, usual_most, most;

  double Cost(uint32_t tokens) const {
    const double missing = tokens >= least ? 0 : static_cast<double>(least - tokens) / least;
    const double excess =
        tokens <= usual_most ? 0 : static_cast<double>(tokens - usual_most) / usual_most;
    return missing * missing + excess * excess;
  }
};
constexpr PieceLength kPassageLength{kPassageTokensMin, kPassageTokensMax, kPassageTokensMax};
constexpr PieceLength kSentenceLength{kSentenceTokensMin, 4 * kSentenceTokensMin,
                                      kSentenceTokensMax};

// The first token of each piece of tokens [begin, end), ascending from `begin`. ends[t] is the cost
// of a cut behind token t.
std::vector<uint32_t> CutPieces(const std::vector<double>& ends, uint32_t begin, uint32_t end,
                                const PieceLength& length) {
  const uint32_t tokens = end - begin;
  // best[t]: the least cost of cutting the first t tokens; from[t]: where its last piece begins.
  std::vector<double> best(tokens + 1, std::numeric_limits<double>::infinity());
  std::vector<uint32_t> from(tokens + 1, 0);
  best[0] = 0;
  for (uint32_t t = 1; t <= tokens; ++t) {
    for (uint32_t size = 1; size <= std::min(t, length.most); ++size) {
      const double cost = best[t - size] + length.Cost(size) + ends[begin + t - 1];
      if (cost >= best[t]) continue;
      best[t] = cost;
      from[t] = t - size;
    }
  }
  std::vector<uint32_t> begins;
  for (uint32_t t = tokens; t > 0; t = from[t]) begins.push_back(begin + from[t]);
  std::reverse(begins.begin(), begins.end());
  return begins;
}

}  // namespace

PassageCuts CutPassagesAndSentences(const TokenText& text) {
  const auto tokens = static_cast<uint32_t>(text.token_bytes.size());
  std::string unwrapped = text.text;
  UnwrapLines(&unwrapped, false);
  std::vector<double> ends;
  size_t byte = 0;
  for (const uint16_t bytes : text.token_bytes) {
    byte += bytes;
    ends.push_back(CutCost(unwrapped, byte));
  }
  PassageCuts cuts;
  const std::vector<uint32_t> passages = CutPieces(ends, 0, tokens, kPassageLength);
  for (double& end : ends) end = end <= kSentenceEnd ? 0 : end;
  for (size_t p = 0; p < passages.size(); ++p) {
    const uint32_t end = p + 1 < passages.size() ? passages[p + 1] : tokens;
    cuts.passages.push_back(static_cast<uint32_t>(cuts.sentences.size()));
    const std::vector<uint32_t> sentences = CutPieces(ends, passages[p], end, kSentenceLength);
    cuts.sentences.insert(cuts.sentences.end(), sentences.begin(), sentences.end());
  }
  return cuts;
}

}  // namespace longhold
