// The units that text consists of: functions, paragraphs, lines, sentences. Recall cuts its spans
// from whole units, because half a sentence or half a function says little.
//
// They look at white space and punctuation only, and know no language. A paragraph that was wrapped
// to a width (unwrap.h) is one line here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "memory/text/passages.h"
#include "memory/text/sentences.h"

namespace longhold {

// The longest units, in tokens. A longer function is cut into its paragraphs, a longer paragraph
// into its lines, a longer line into its sentences.
inline constexpr uint32_t kFunctionTokensMax = 192, kParagraphTokensMax = 128, kLineTokensMax = 320;
// How far a sentence of a longer line reaches to either side of a token.
inline constexpr uint32_t kSentenceReachTokens = 64;

// Thread use: *immutable*.
class TextUnits {
 public:
  // `text` are consecutive tokens of a document. `from_start` and `to_end` say whether the document
  // begins with the first and ends with the last of them.
  TextUnits(const TokenText& text, bool from_start, bool to_end);

  // The tokens of the largest unit that holds token `at` and is not longer than the limits above:
  //   1. a function, or what else stands between blank lines that an unindented line follows. A
  //      comment right above belongs to it.
  //   2. a paragraph: what stands between blank lines
  //   3. a line
  //   4. a sentence (SentenceAround), at most kSentenceReachTokens to either side
  // A unit whose begin or end is not in the text does not count. Must hold: at < tokens().
  PieceRange At(size_t at) const;
  size_t tokens() const { return pieces_.size(); }

 private:
  // Where a unit may begin: each kind of place is one of the next, too.
  enum Start : uint8_t { kNone, kLine, kParagraph, kFunction };
  // The range between two starts of at least this kind, or an empty one.
  PieceRange Between(size_t at, Start least) const;

  std::vector<std::string> pieces_;
  std::vector<Start> starts_;  // [tokens + 1]
  const bool from_start_, to_end_;
};

}  // namespace longhold
