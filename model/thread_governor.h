// Chooses the number of threads for a forward pass, so that it fits the cores that other
// processes leave free.
//
// libllama's threads wait for each other at a barrier after every operation, and they spin while
// they wait. If another process takes half of one thread's time, the other threads spin during that
// time. On two cores, one busy process then makes a pass five times as slow. With one thread fewer,
// no thread waits for another process (docs/decisions/0028).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

namespace longhold {

// Times in seconds, counted from some fixed moment. Each only grows. Value type.
struct CpuTimes {
  double wall = 0;
  // Time for which cores were busy with any process: the sum over the cores that this
  // process may use.
  double busy = 0;
  double own = 0;      // processor time of this process
  uint32_t cores = 0;  // cores that this process may use
};

// Reads the times from /proc/stat, for the cores in this process's affinity mask (Linux). Empty if
// the times cannot be read or are always zero. Thread use: safe to call concurrently.
std::optional<CpuTimes> ReadCpuTimes();

// Owner: whoever runs the passes. Thread use: *confined*.
class ThreadGovernor {
 public:
  // Threads() will return 1 to `threads_max`, which is at least 1. `read` is replaced in tests.
  explicit ThreadGovernor(uint32_t threads_max,
                          std::function<std::optional<CpuTimes>()> read = ReadCpuTimes);

  // Returns the number of threads for the next pass. Call it before each pass. Measures again if
  // the last measurement is at least kWindowSeconds old:
  //   threads = floor(cores - other processes' processor seconds per second + kSlack)
  // limited to 1..threads_max. Returns threads_max if the times cannot be read.
  uint32_t Threads();

  // A process that needs a whole core gets only half of one, or a little more, while one of
  // our threads competes for it. That load must still cost us a thread; a load of 0.4 cores or
  // less must not.
  static constexpr double kSlack = 0.4;
  static constexpr double kWindowSeconds = 0.2;  // /proc/stat counts in steps of 10 ms

 private:
  const uint32_t threads_max_;
  const std::function<std::optional<CpuTimes>()> read_;
  uint32_t threads_;
  std::optional<CpuTimes> last_;
};

}  // namespace longhold
