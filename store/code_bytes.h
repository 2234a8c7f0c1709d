// Shared by the block codecs: numbers as bytes, and zigzag coding of signed integers.
// Internal to store/.
#pragma once

#include <cstdint>
#include <string>

namespace longhold {

// Zigzag coding: 0, -1, 1, -2 become 0, 1, 2, 3.
inline uint32_t ZigZag(int32_t x) {
  return (static_cast<uint32_t>(x) << 1) ^ static_cast<uint32_t>(x >> 31);
}
inline int32_t UnZigZag(uint32_t x) {
  return static_cast<int32_t>(x >> 1) ^ -static_cast<int32_t>(x & 1);
}

// Appends the bytes of `value`, little-endian, as on every machine that we build for.
template <typename T>
void AppendNumber(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

}  // namespace longhold
