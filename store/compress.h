// zstd compression, for text and tokens. Third-party types appear in compress.cc only.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

// Compresses at level 1: on our data, higher levels gain nothing.
std::string Compress(std::string_view bytes);
// Errors: data_loss if `bytes` is not exactly one zstd frame, or if it holds more
// than `limit` bytes.
Result<std::string> Decompress(std::string_view bytes, size_t limit);

}  // namespace longhold
