// Lines that say when: the head of a session in a chat log, of a day in a diary, of a meeting in
// its minutes.
#pragma once

#include <string_view>

namespace longhold {

// Whether the line consists of a date, what belongs to dates, and at most two other words, as in
//   Session 3, 1:56 pm on 8 May, 2023      [2023-05-08 13:56]      ## Minutes, 8.5.2023
//   3 May. Bistritz.                        Mon, May 8 2023
// A date is a month's English name, with a capital, and a number, or digits like
// 2023-05-08, 8.5.2023 and 5/8/23. Lines of more than 96 bytes are none.
bool IsDateLine(std::string_view line);

}  // namespace longhold
