// Milliseconds between two moments, for the timings of replies.
#pragma once

#include <chrono>

namespace longhold {

inline double Milliseconds(std::chrono::steady_clock::time_point from,
                           std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

}  // namespace longhold
