// What the block codecs share: numbers as bytes, and signed whole numbers as small unsigned ones.
// Internal to store/.
#pragma once

#include <cstdint>
#include <string>

namespace longhold {

// 0, -1, 1, -2 are 0, 1, 2, 3.
inline uint32_t ZigZag(int32_t x) {
  return (static_cast<uint32_t>(x) << 1) ^ static_cast<uint32_t>(x >> 31);
}
inline int32_t UnZigZag(uint32_t x) {
  return static_cast<int32_t>(x >> 1) ^ -static_cast<int32_t>(x & 1);
}

// Little-endian, as every machine we build for.
template <typename T>
void AppendNumber(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

}  // namespace longhold
