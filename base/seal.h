// AES-256-GCM: encrypted bytes that nobody can read without the key, or change without detection.
//
// OpenSSL appears in crypto.cc only. Sources: NIST SP 800-38D (GCM), RFC 5869 (HKDF).
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
// Sealed bytes are longer than the plain ones: 12 random bytes (the nonce) in front, a
// 16-byte tag behind.
inline constexpr size_t kSealExtraBytes = 28;
// The longest plain text: 2^39 - 256 bits.
inline constexpr uint64_t kSealBytesMax = (uint64_t{1} << 36) - 32;

// Encrypts and decrypts with one key. Thread use: *immutable*.
class Seal {
 public:
  // Derives a key from a master key, for one purpose and one salt: HKDF with SHA-256. Must hold:
  // `master` has kSealKeyBytes.
  static Seal Derive(const Secret& master, std::string_view salt, std::string_view purpose);

  // Encrypts `plain`. `context` is authenticated but not stored; Open needs the same one. It states
  // what the bytes are, so that one sealed value cannot replace another. One key may seal up to
  // 2^32 values, because nonces are random. Errors: invalid_argument (longer than kSealBytesMax).
  Result<std::string> Close(std::string_view plain, std::string_view context) const;
  // Decrypts. Errors: data_loss (changed, truncated, another key or another context).
  Result<std::string> Open(std::string_view sealed, std::string_view context) const;

 private:
  explicit Seal(Secret key) : key_(std::move(key)) {}
  Secret key_;
};

// `bytes` cryptographically random bytes.
std::string RandomBytes(size_t bytes);

// Reads a master key from a file: 64 hexadecimal digits, optionally followed by white space. Only
// the owner may have access to the file. Errors: not_found, invalid_argument.
Result<Secret> ReadSealKey(const std::string& path);

}  // namespace longhold
