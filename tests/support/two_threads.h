// A ParallelFor on two threads, for tests and benchmarks without a model.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <thread>

namespace longhold {

inline void TwoThreads(size_t count, const std::function<void(size_t)>& fn) {
  std::atomic<size_t> next{0};
  const auto run = [&] {
    for (size_t i = next++; i < count; i = next++) fn(i);
  };
  std::thread other(run);
  run();
  other.join();
}

}  // namespace longhold
