// An entropy coder for bytes with skewed frequencies. It can use less than one bit per symbol.
//
// Method: asymmetric numeral systems (J. Duda, arXiv:1311.2540) in the range variant, with 12-bit
// frequencies and four interleaved 32-bit states, one byte of output at a time.
// docs/formats/block.md, "Symbols", specifies the bytes.
//
// Thread use: free functions, safe to call concurrently.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

// Appends the symbols' frequencies and codes. Appends nothing if there are no symbols.
void EncodeSymbols(std::span<const uint8_t> symbols, std::string* out);

// Decodes exactly symbols.size() symbols from the output of EncodeSymbols. Errors: data_loss if
// `bytes` are not the code of that many symbols; `symbols` then holds unspecified values. Never
// reads outside `bytes`.
Status DecodeSymbols(std::string_view bytes, std::span<uint8_t> symbols);

}  // namespace longhold
