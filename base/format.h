// Numbers as text for people.
//
// Thread use: free functions, safe to call concurrently.
#pragma once

#include <cstdint>
#include <string>

namespace longhold {

// `format` is a printf format for one double. The result is cut to 63 bytes.
std::string Format(const char* format, double value);
std::string FormatCount(uint64_t value);  // "1,048,576"

}  // namespace longhold
