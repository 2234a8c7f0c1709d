// UTF-8 as the edge needs it: find what is wrong, make it printable, count columns. Free functions
// of bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace longhold {

// The byte at which `text` stops being valid UTF-8 (the first byte of the bad sequence): overlong
// forms, surrogates, values above U+10FFFF and a cut-off end are bad. nullopt: all is valid.
std::optional<uint64_t> FirstInvalidUtf8(std::string_view text);

// `text` with every bad sequence replaced by U+FFFD: spans may begin inside a character, file names
// may be any bytes.
std::string MakeValidUtf8(std::string_view text);

// One printable line: runs of white space become one space, other control characters and bad
// sequences are replaced, so that no text reaches the terminal as a command. Nothing at either end.
std::string CollapseSpace(std::string_view text);

// As CollapseSpace, but line breaks and tabs stay and spaces are kept.
std::string MakePrintable(std::string_view text);

// Characters of valid UTF-8; taken as terminal columns, which is wrong for wide and combining
// characters only.
size_t CountColumns(std::string_view text);

}  // namespace longhold
