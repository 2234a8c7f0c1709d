#include "base/memory_budget.h"

#include <algorithm>
#include <utility>

namespace longhold {
namespace {

// A needed amount is rounded up, so that a message never says "needs 3 MiB, 3 MiB are free".
std::string MebibytesUp(uint64_t bytes) {
  return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB";
}
std::string MebibytesDown(uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

}  // namespace

MemoryReservation& MemoryReservation::operator=(MemoryReservation&& other) noexcept {
  if (this == &other) return *this;
  Release();
  budget_ = std::exchange(other.budget_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  what_ = std::move(other.what_);
  return *this;
}

Status MemoryReservation::Resize(uint64_t bytes) {
  LH_CHECK(budget_ != nullptr);
  if (bytes > bytes_ && !budget_->Take(bytes - bytes_)) {
    return ResourceExhausted(
        "memory budget of " + MebibytesDown(budget_->limit_bytes()) + ": " + what_ + " needs " +
        MebibytesUp(bytes - bytes_) + (bytes_ > 0 ? " more" : "") + ", and " +
        MebibytesDown(budget_->FreeBytes()) + " are free; give more with --memory-budget");
  }
  if (bytes < bytes_) budget_->Give(bytes_ - bytes);
  bytes_ = bytes;
  return OkStatus();
}

void MemoryReservation::Release() {
  if (budget_ != nullptr) budget_->Give(bytes_);
  budget_ = nullptr;
  bytes_ = 0;
}

Result<MemoryReservation> MemoryBudget::Reserve(uint64_t bytes, std::string_view what) {
  MemoryReservation reservation(this, std::string(what));
  LH_RETURN_IF_ERROR(reservation.Resize(bytes));
  return reservation;
}

uint64_t MemoryBudget::RoomFor(uint64_t count, uint64_t each_bytes) const {
  return each_bytes == 0 ? count : std::min(count, FreeBytes() / each_bytes);
}

bool MemoryBudget::Take(uint64_t bytes) {
  uint64_t used = used_bytes_;
  do {
    if (bytes > limit_bytes_ - used) return false;
  } while (!used_bytes_.compare_exchange_weak(used, used + bytes));
  uint64_t peak = peak_bytes_;
  while (peak < used + bytes && !peak_bytes_.compare_exchange_weak(peak, used + bytes)) {
  }
  return true;
}

}  // namespace longhold
