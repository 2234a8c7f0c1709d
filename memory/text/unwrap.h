// Text that was wrapped to a width: its line breaks end neither sentences nor lines of thought.
//
// Pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace longhold {

// Lines of a text, without their newlines. A newline at the end begins no line.
std::vector<std::string_view> LinesOf(std::string_view text);
std::string_view WithoutTrailingSpace(std::string_view line);

// Replaces the line breaks inside paragraphs that were wrapped to a width by spaces. Keeps the
// number of bytes.
//
// A paragraph is lines between blank ones. Its longest line has 40 to 120 characters. A line break
// wraps it if the line has four words or more, and had no room, up to that length, for the first
// word of the next one. At least three quarters of its breaks must do so, and a third of these must
// be followed by a small letter, behind the marks of comments and quotations: rows of tables and
// logs, verses and turns of a conversation stay as they are. If there is only one break, its line
// must also have 60 characters and end no sentence. Without `from_start`, the text may begin inside
// a line. It may always end inside one. The breaks at such lines are not judged; they go with the
// others.
void UnwrapLines(std::string* text, bool from_start);

}  // namespace longhold
