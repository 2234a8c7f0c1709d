// Who says a line of a transcript, chat log or play.
#pragma once

#include <string_view>

namespace longhold {

// What LineAt needs to show of a line for SpeakerOf.
inline constexpr size_t kSpeakerBytesMax = 96;

// The name before the colon that a line begins with, as in
//   Ann Lee: I saw it.      - **Ann**: I saw it.      [2023-05-08 13:56] ann_lee: I saw it.
// Before the name there may be list and emphasis marks, and a time in brackets. The name has at
// most four words, no digit at its begin and no full stop but in initials. Empty where the line has
// none; "Note: ..." looks like one, so that only names that occur in a question should be trusted.
// A view into `line`.
std::string_view SpeakerOf(std::string_view line);

}  // namespace longhold
