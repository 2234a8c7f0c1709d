// Where sentences and lines end. The one sentence splitter: recall, re-encoding, multi-hop
// retrieval and inline citations all use it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace longhold {

// [begin, end) of the pieces that SentenceAround was given. Value type.
struct PieceRange {
  size_t begin = 0, end = 0;
};

// The line that holds piece `at`, or its sentence where that is shorter. `pieces` are the texts of
// consecutive tokens; `from_start` and `to_end` say whether the document begins with the first and
// ends with the last of them.
//
// A line that was wrapped to a width (unwrap.h) goes on in the next one.
// A sentence ends at . ! or ? (and what closes quotes or brackets) before white space, and at the
// full stops of other scripts. Where one of its ends is out of reach, as in JSON or code without
// line breaks, the range is the object (up to "}," or "],"), the item (up to a comma behind a
// quote, or a semicolon without a space), or else all pieces up to the nearest end, in whole words.
// Must hold: at < pieces.size().
PieceRange SentenceAround(const std::vector<std::string>& pieces, size_t at, bool from_start,
                          bool to_end);

// Whether `text` ends with the end of a sentence, as far as white space follows.
bool EndsSentence(std::string_view text);

}  // namespace longhold
