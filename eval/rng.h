// Random numbers that are the same on every machine. The distributions of <random> differ between
// standard libraries; these do not.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "base/status.h"

namespace longhold {

// SplitMix64 (Steele, Lea and Flood 2014). Value type. A copy continues independently from the same
// state.
class EvalRng {
 public:
  explicit EvalRng(uint64_t seed) : state_(seed) {}
  // A separate stream for each `purpose`, so that drawing more numbers for one purpose does not
  // change the others.
  EvalRng(uint64_t seed, std::string_view purpose)
      : state_(seed * 0x9E3779B97F4A7C15ull ^ Hash64(purpose)) {}

  uint64_t Next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  // Uniform in [0, n). Must hold: n >= 1.
  uint64_t Below(uint64_t n) {
    LH_CHECK(n >= 1);
    const uint64_t skip = -n % n;  // 2^64 mod n; values below it are rejected to avoid bias
    for (;;) {
      const uint64_t x = Next();
      if (x >= skip) return x % n;
    }
  }
  // Uniform in [0, 1).
  double Unit() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }
  template <typename T>
  const T& Pick(const std::vector<T>& from) {
    return from[Below(from.size())];
  }
  template <typename T>
  void Shuffle(std::vector<T>* items) {
    for (size_t i = items->size(); i > 1; --i) std::swap((*items)[i - 1], (*items)[Below(i)]);
  }

 private:
  uint64_t state_;
};

}  // namespace longhold
