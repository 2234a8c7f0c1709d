// Symbols of one kind as few bits: an entropy coder for bytes whose frequencies are skewed, below
// one bit a symbol where they are.
//
// Asymmetric numeral systems (J. Duda, arXiv:1311.2540) in the range variant: frequencies of 12
// bits, four states of 32 bits that take turns, a byte at a time. Bytes: docs/formats/block.md,
// "Symbols".
//
// Thread use: free functions, safe to call concurrently.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

// Appends the symbols' frequencies and codes. Nothing is appended for no symbols.
void EncodeSymbols(std::span<const uint8_t> symbols, std::string* out);

// Fills `symbols` with what EncodeSymbols made of as many. Errors: data_loss where `bytes` are not
// exactly theirs; then `symbols` hold anything. Never reads outside of `bytes`.
Status DecodeSymbols(std::string_view bytes, std::span<uint8_t> symbols);

}  // namespace longhold
