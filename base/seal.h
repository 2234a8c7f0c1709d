// AES-256-GCM: bytes that can be neither read nor changed without the key.
//
// OpenSSL stops at crypto.cc. Source: NIST SP 800-38D (GCM), RFC 5869 (HKDF).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "base/secret.h"
#include "base/status.h"

namespace longhold {

inline constexpr size_t kSealKeyBytes = 32;
inline constexpr size_t kSealSaltBytes = 16;
// What a sealed text is longer by: a nonce of 12 random bytes in front, a tag of 16 behind.
inline constexpr size_t kSealExtraBytes = 28;
// The longest text: 2^39 - 256 bits.
inline constexpr uint64_t kSealBytesMax = (uint64_t{1} << 36) - 32;

// A key and what is done with it. Thread use: *immutable*.
class Seal {
 public:
  // The key for one purpose and one salt, from a master key: HKDF with SHA-256. Must hold: `master`
  // has kSealKeyBytes.
  static Seal Derive(const Secret& master, std::string_view salt, std::string_view purpose);

  // `context` must be the same when it is opened: what the bytes are, so that one sealed value
  // cannot stand in another one's place. Up to 2^32 of one key: nonces are random. Errors:
  // invalid_argument (above kSealBytesMax).
  Result<std::string> Close(std::string_view plain, std::string_view context) const;
  // Errors: data_loss (changed, cut off, of another key or of another context).
  Result<std::string> Open(std::string_view sealed, std::string_view context) const;

 private:
  explicit Seal(Secret key) : key_(std::move(key)) {}
  Secret key_;
};

// `bytes` bytes that nobody can guess.
std::string RandomBytes(size_t bytes);

// The master key in a file: 64 hexadecimal digits, and white space behind them. The file must be
// its owner's alone. Errors: not_found, invalid_argument.
Result<Secret> ReadSealKey(const std::string& path);

}  // namespace longhold
