// Measures the RAM that a part of the program uses, as counted by the Linux kernel.
#pragma once

#include <cstdint>

namespace longhold {

// Measures the peak of anonymous memory after Begin, minus the anonymous memory at construction.
// Mapped weights, and allocations that a model made before construction, are not counted. 0 if the
// kernel does not report it. Thread use: *confined*; only one meter may be in use at a time.
class RamMeter {
 public:
  RamMeter();
  void Begin();            // resets the peak
  uint64_t Bytes() const;  // the peak since Begin

 private:
  uint64_t base_bytes_ = 0;
};

}  // namespace longhold
