// CRC-32C (Castagnoli), the checksum of RocksDB's files. It detects accidental damage, not forgery.
#pragma once

#include <cstdint>
#include <string_view>

namespace longhold {

// The checksum of a stream. `before` is the checksum of all earlier bytes (0 if there are none),
// and `bytes` are the next ones. Uses the processor's CRC instruction if it has one, which is
// several times as fast.
uint32_t Crc32c(std::string_view bytes, uint32_t before = 0);

// The fallback for processors without that instruction. For tests.
uint32_t Crc32cByTable(std::string_view bytes, uint32_t before = 0);

}  // namespace longhold
