// What the bytes of a text are, in every locale alike.
//
// Thread use: pure functions.
#pragma once

#include <cstdint>

namespace longhold {

inline bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// A letter, a digit or a byte of a character beyond ASCII.
inline bool IsWordByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || static_cast<uint8_t>(c) >= 0x80;
}

}  // namespace longhold
