#include "memory/text/sentences.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "memory/text/unwrap.h"

namespace longhold {
namespace {

// The strongest end that falls into a piece.
using Level = uint8_t;
constexpr Level kItem = 1, kObject = 2, kSentence = 3;
// A range that would begin or end within a word moves by so many pieces at most.
constexpr size_t kWordPiecesMax = 48;  // a UUID can take 36

// What closes quotes and brackets behind a full stop.
constexpr std::array<std::string_view, 10> kClosers = {
    "\"", "'", ")", "]", "\u201d", "\u2019", "\u00bb", "\u300d", "\u300f", "\uff09"};
// Ideographic and full-width full stops, the danda and double danda, Arabic and Urdu ones. Other
// than . ! ? they need no white space behind them.
constexpr std::array<std::string_view, 7> kWideStops = {"\u3002", "\uff01", "\uff1f", "\u0964",
                                                        "\u0965", "\u061f", "\u06d4"};

// The length of the stop that `text` begins with, or 0.
size_t WideStop(std::string_view text) {
  for (const std::string_view stop : kWideStops) {
    if (text.starts_with(stop)) return stop.size();
  }
  return 0;
}

// The first byte at or after `byte` that closes nothing.
size_t PastClosers(std::string_view text, size_t byte) {
  for (;;) {
    const auto closer = std::find_if(kClosers.begin(), kClosers.end(), [&](std::string_view c) {
      return byte < text.size() && text.substr(byte).starts_with(c);
    });
    if (closer == kClosers.end()) return byte;
    byte += closer->size();
  }
}

// [pieces] the strongest end in each.
std::vector<Level> EndsIn(const std::vector<std::string>& pieces, bool from_start) {
  std::string text;
  std::vector<size_t> piece_of;  // [bytes]
  for (size_t i = 0; i < pieces.size(); ++i) {
    text += pieces[i];
    piece_of.resize(text.size(), i);
  }
  UnwrapLines(&text, from_start);
  std::vector<Level> ends(pieces.size(), 0);
  const auto is = [&](size_t byte, std::string_view any) {
    return any.find(text[byte]) != std::string_view::npos;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    size_t past = i + 1;
    Level level = 0;
    if (text[i] == '\n') {
      level = kSentence;
    } else if (is(i, ".!?")) {
      past = PastClosers(text, i + 1);
      if (past == text.size() || is(past, " \t\n\r")) level = kSentence;
    } else if (const size_t wide = WideStop(std::string_view(text).substr(i)); wide > 0) {
      past = PastClosers(text, i + wide);
      level = kSentence;
    } else if (i > 0 && is(i, ",;")) {
      if (is(i - 1, "}]"))
        level = kObject;
      else if (is(i - 1, "\"'") ||
               (text[i] == ';' && (text[i - 1] == ')' || past == text.size() || !is(past, " \t"))))
        level = kItem;
    }
    Level& here = ends[piece_of[past - 1]];
    here = std::max(here, level);
  }
  return ends;
}

}  // namespace

PieceRange SentenceAround(const std::vector<std::string>& pieces, size_t at, bool from_start,
                          bool to_end) {
  const std::vector<Level> ends = EndsIn(pieces, from_start);
  const size_t size = pieces.size();
  size_t first = 0, past = size;
  for (const Level level : {kSentence, kObject, kItem}) {
    first = past = at;
    while (first > 0 && ends[first - 1] < level) --first;
    while (past < size && ends[past] < level) ++past;
    if ((first > 0 || from_start) && (past < size || to_end))
      return {first, std::min(past + 1, size)};
  }
  // Neither is within reach: as far as the pieces go, between words.
  first = past = at;
  while (first > 0 && ends[first - 1] < kSentence) --first;
  while (past < size && ends[past] < kSentence) ++past;
  past = std::min(past + 1, size);
  const auto begins_word = [&](size_t i) {
    return pieces[i].starts_with(' ') || pieces[i - 1].ends_with(' ');
  };
  if (first == 0 && !from_start) {
    for (size_t i = 1; i <= at && i <= kWordPiecesMax; ++i) {
      if (begins_word(i)) {
        first = i;
        break;
      }
    }
  }
  if (past == size && !to_end && ends[size - 1] < kSentence) {
    for (size_t i = size - 1; i > at && size - i <= kWordPiecesMax; --i) {
      if (begins_word(i)) {
        past = i;
        break;
      }
    }
  }
  return {first, past};
}

bool EndsSentence(std::string_view text) {
  for (bool closed = true; closed;) {
    closed = false;
    for (const std::string_view closer : kClosers) {
      if (!text.ends_with(closer)) continue;
      text.remove_suffix(closer.size());
      closed = true;
    }
  }
  const auto ends = [&](std::string_view stop) { return text.ends_with(stop); };
  return ends(".") || ends("!") || ends("?") ||
         std::any_of(kWideStops.begin(), kWideStops.end(), ends);
}

}  // namespace longhold
