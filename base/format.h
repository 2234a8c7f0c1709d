// Numbers as text for people.
//
// Thread use: pure functions.
#pragma once

#include <cstdint>
#include <string>

namespace longhold {

// `format` is printf's for one double, and gives at most 63 bytes.
std::string Format(const char* format, double value);
std::string FormatCount(uint64_t value);  // "1,048,576"

}  // namespace longhold
