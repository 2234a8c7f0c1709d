// Messages and payloads of frames, and the memory that two processes of one host share for them
// (memfd).
//
// A memfd of the other side is trusted only as far as its seals go: with F_SEAL_SHRINK it cannot
// become shorter than it was when it was mapped, so that an access never ends this process with
// SIGBUS. Its content may change at any time; whoever reads it must read each element once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "base/file_descriptor.h"
#include "base/status.h"

namespace longhold::wire {

// Bytes on the heap, or a mapping. Move-only; aligned to 16. Thread use: *external*.
class Payload {
 public:
  Payload() = default;
  Payload(Payload&& other) noexcept { *this = std::move(other); }
  Payload& operator=(Payload&& other) noexcept;
  ~Payload() { Release(); }

  // Bytes whose values are not defined. Errors: resource_exhausted.
  static Result<Payload> OfSize(uint64_t bytes);
  // Errors: resource_exhausted.
  static Result<Payload> CopyOf(std::string_view bytes);
  // Maps the first `bytes` of another process's memfd, to read or, with `writable`, to write. The
  // mapping outlives the descriptor. Errors: invalid_argument (not a memfd of ordinary pages, not
  // sealed with F_SEAL_SHRINK, shorter than that, not writable), resource_exhausted.
  static Result<Payload> Map(int memfd, uint64_t bytes, bool writable);

  std::span<char> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {data_, size_}; }
  size_t size() const { return size_; }
  void Release();

 private:
  char* data_ = nullptr;
  size_t size_ = 0;
  bool mapped_ = false;
};

// A memfd of `bytes` bytes with F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_SEAL. Errors:
// resource_exhausted.
Result<FileDescriptor> MakeMemfd(uint64_t bytes);
// Gives the pages of a memfd back to the system, also where others have it mapped: they read
// zeros from then on.
void PunchOut(int memfd, uint64_t bytes);

}  // namespace longhold::wire
