// The memory budget of a process, in addition to a model's weights. Whatever grows with a document,
// a question or a memory is reserved here before it is allocated. So a lack of memory is an
// ordinary Status, not an out-of-memory kill by the kernel.
//
// Some memory is not reserved because it is small and does not grow: the program and its libraries,
// file buffers, replies. 64 MiB cover it.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

class MemoryBudget;

// A part of a budget, returned when this object is destroyed. Move-only; an empty reservation holds
// nothing. Thread use: *confined*.
class MemoryReservation {
 public:
  MemoryReservation() = default;
  MemoryReservation(MemoryReservation&& other) noexcept { *this = std::move(other); }
  MemoryReservation& operator=(MemoryReservation&& other) noexcept;
  ~MemoryReservation() { Release(); }

  uint64_t bytes() const { return bytes_; }
  // Grows or shrinks the reservation to `bytes`. Shrinking always succeeds. Must hold: it came from
  // a budget. Errors: resource_exhausted; the reservation is then unchanged.
  Status Resize(uint64_t bytes);
  void Release();

 private:
  friend class MemoryBudget;
  MemoryReservation(MemoryBudget* budget, std::string what)
      : budget_(budget), what_(std::move(what)) {}

  MemoryBudget* budget_ = nullptr;  // outlives this
  uint64_t bytes_ = 0;
  std::string what_;
};

// Owner: the engine, or whoever sets up a process. Thread use: *synchronised*.
class MemoryBudget {
 public:
  explicit MemoryBudget(uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}
  MemoryBudget(const MemoryBudget&) = delete;
  MemoryBudget& operator=(const MemoryBudget&) = delete;

  // Reserves `bytes`. `what` says what they are for and appears in the error, for example "the
  // indexes of memory bible". Errors: resource_exhausted; the message says how much is needed and
  // how much is free.
  Result<MemoryReservation> Reserve(uint64_t bytes, std::string_view what);
  // How many of `count` pieces of `each_bytes` fit now.
  uint64_t RoomFor(uint64_t count, uint64_t each_bytes) const;

  uint64_t limit_bytes() const { return limit_bytes_; }
  uint64_t used_bytes() const { return used_bytes_; }
  uint64_t peak_bytes() const { return peak_bytes_; }

 private:
  friend class MemoryReservation;
  // Never negative: Take keeps used_bytes_ within the limit.
  uint64_t FreeBytes() const { return limit_bytes_ - used_bytes_; }
  bool Take(uint64_t bytes);
  void Give(uint64_t bytes) { used_bytes_ -= bytes; }

  const uint64_t limit_bytes_;
  std::atomic<uint64_t> used_bytes_ = 0;
  std::atomic<uint64_t> peak_bytes_ = 0;
};

}  // namespace longhold
