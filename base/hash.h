// Hashes of bytes: a fast one that finds damage, and SHA-256 that names things.
//
// Third-party types (xxHash, OpenSSL) stop at crypto.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

// XXH3-64 with seed 0, the same on every machine. Finds damage; is no defence against a forger.
uint64_t Hash64(std::string_view bytes);

// The same of a stream of bytes. Thread use: *external*.
class Hash64Stream {
 public:
  Hash64Stream();
  ~Hash64Stream();
  Hash64Stream(const Hash64Stream&) = delete;
  Hash64Stream& operator=(const Hash64Stream&) = delete;

  void Update(std::string_view bytes);
  // Of everything so far; the stream may go on.
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
  // 64 lower-case hexadecimal digits of everything so far. Ends the stream: call nothing but the
  // destructor afterwards.
  std::string HexDigest();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string Sha256Hex(std::string_view bytes);

// Reads the file in pieces of 1 MiB. Errors: not_found, invalid_argument (no permission, or a
// directory), data_loss (the disk failed while reading); each names the path.
Result<std::string> Sha256File(const std::string& path);

// `bytes` bytes that nobody can guess, as lower-case hexadecimal digits: for keys, never for what a
// test has to repeat.
std::string RandomHex(size_t bytes);

// Whether two texts are equal, in a time that depends on their lengths only.
bool EqualInConstantTime(std::string_view a, std::string_view b);

}  // namespace longhold
