// Hashes of bytes: a fast one that detects damage, and SHA-256 for names and checksums that
// must resist forgery.
//
// Third-party types (xxHash, OpenSSL) appear in crypto.cc only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

// XXH3-64 with seed 0, the same on every machine. Detects damage; does not resist forgery.
uint64_t Hash64(std::string_view bytes);

// XXH3-64 of a stream of bytes. Thread use: *external*.
class Hash64Stream {
 public:
  Hash64Stream();
  ~Hash64Stream();
  Hash64Stream(const Hash64Stream&) = delete;
  Hash64Stream& operator=(const Hash64Stream&) = delete;

  void Update(std::string_view bytes);
  // The hash of all bytes so far. More bytes may follow.
  uint64_t Digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// SHA-256 of a stream of bytes. Thread use: *external*.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void Update(std::string_view bytes);
  // The SHA-256 of all bytes so far, as 64 lower-case hexadecimal digits. Ends the stream: nothing
  // but the destructor may be called afterwards.
  std::string HexDigest();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string Sha256Hex(std::string_view bytes);

// Hashes a file, reading 1 MiB at a time. Errors: not_found, invalid_argument (no permission, or a
// directory), data_loss (a read failed). Each message names the path.
Result<std::string> Sha256File(const std::string& path);

// `bytes` cryptographically random bytes, as lower-case hexadecimal digits. For keys. Not for
// tests, which must be repeatable.
std::string RandomHex(size_t bytes);

// Whether two strings are equal. The time depends only on their lengths.
bool EqualInConstantTime(std::string_view a, std::string_view b);

}  // namespace longhold
