// Conversion between fp16 (IEEE 754 binary16) and float32, one element at a time.
// attention/kernels.h has fast conversions of arrays.
#pragma once

#include <bit>
#include <cstdint>

namespace longhold {

// Both conversions treat NaN as the F16C instructions do: they keep the sign and the upper payload,
// and set the quiet bit.
inline float FromHalf(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 31;
  const uint32_t fraction = half & 0x3FFu;
  if (exponent == 0)
    return std::bit_cast<float>(sign |
                                std::bit_cast<uint32_t>(static_cast<float>(fraction) * 0x1p-24f));
  if (exponent < 31)
    return std::bit_cast<float>(sign | (exponent + 127 - 15) << 23 | fraction << 13);
  return std::bit_cast<float>(sign | 0x7F800000u | fraction << 13 |
                              (fraction != 0 ? 0x400000u : 0));
}

// Rounds to nearest, ties to even.
inline uint16_t ToHalf(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  uint32_t half;
  if (magnitude > 0x7F800000u) {
    half = 0x7E00u | ((magnitude >> 13) & 0x3FFu);
  } else if (magnitude >= 0x47800000u) {  // 65536 and up, infinity included
    half = 0x7C00u;
    // Below 2^-14: in [0.5, 1), a float's last bit is 2^-24, which is the unit of a subnormal fp16.
  } else if (magnitude < 0x38800000u) {
    half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) -
           std::bit_cast<uint32_t>(0.5f);
    // Rounds the 13 dropped bits to nearest even. A carry runs into the exponent, up to infinity,
    // which is correct.
  } else {
    half = (magnitude + 0xFFFu + ((magnitude >> 13) & 1) - (uint32_t{127 - 15} << 23)) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
}

}  // namespace longhold
