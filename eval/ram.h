// How much memory a part of this process takes, as the kernel counts it.
#pragma once

#include <cstdint>

namespace longhold {

// Most anonymous memory since Begin beside what there was when the meter was made: mapped weights
// do not count, and what a model had allocated before does not either. 0 where the kernel does not
// say. Thread use: *confined*; one meter at a time.
class RamMeter {
 public:
  RamMeter();
  void Begin();
  uint64_t Bytes() const;

 private:
  uint64_t base_bytes_ = 0;
};

}  // namespace longhold
