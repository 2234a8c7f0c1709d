// UTF-8 for input and output: find invalid bytes, make text printable, count columns. Pure
// functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace longhold {

// Returns the offset of the first invalid byte sequence, nullopt when all of `text` is valid.
// Invalid are overlong forms, surrogates, values above U+10FFFF and a truncated sequence at the
// end.
std::optional<uint64_t> FirstInvalidUtf8(std::string_view text);

// Returns `text` with every invalid sequence replaced by U+FFFD. Input may be invalid: spans may
// begin inside a character, and file names may be any bytes.
std::string MakeValidUtf8(std::string_view text);

// Returns one printable line. Each run of white space becomes one space, and none remains at either
// end. Other control characters and invalid sequences are replaced, so that no text acts as a
// terminal command.
std::string CollapseSpace(std::string_view text);

// As CollapseSpace, but keeps line breaks, tabs and spaces. Carriage returns are removed.
std::string MakePrintable(std::string_view text);

// Number of characters of valid UTF-8. It is used as the number of terminal columns, which is wrong
// only for wide and combining characters.
size_t CountColumns(std::string_view text);

}  // namespace longhold
