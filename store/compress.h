// ZSTD, for text and tokens. Third-party types stop at compress.cc.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

// Level 1: on our data the higher ones gain nothing.
std::string Compress(std::string_view bytes);
// Errors: data_loss when `bytes` is not one whole frame or holds more than `limit` bytes.
Result<std::string> Decompress(std::string_view bytes, size_t limit);

}  // namespace longhold
