// How many threads a pass of the model gets, by what other processes leave of the cores.
//
// libllama's threads meet at a barrier after every operation and spin there. When another process
// takes half of one thread's time, the others spin for as long, and a pass on two cores beside one
// busy process takes five times as long as alone. One thread less than there are free cores does
// not wait for anybody (docs/decisions/0028).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

namespace longhold {

// Seconds since some moment, each counted up. Value type.
struct CpuTimes {
  double wall = 0;
  // that the cores which this process may use were busy with anything, summed over them
  double busy = 0;
  double own = 0;  // processor time of this process
  uint32_t cores = 0;
};

// Linux's, from /proc/stat and the process's affinity; none where they cannot be read, or count
// nothing. Thread use: safe to call concurrently.
std::optional<CpuTimes> ReadCpuTimes();

// Thread use: *confined*.
class ThreadGovernor {
 public:
  // Between 1 and `threads_max`, which is at least 1.
  explicit ThreadGovernor(uint32_t threads_max,
                          std::function<std::optional<CpuTimes>()> read = ReadCpuTimes);

  // To be asked before each pass. Looks at the times anew where the last look is at least
  // kWindowSeconds old:
  //   threads = floor(cores - processor seconds that others took per second + kSlack), at least 1
  //   and at most threads_max
  // Without times it is threads_max.
  uint32_t Threads();

  // A process that would use a whole core gets half of one, or a little more, while a thread of
  // ours wants it too.
  static constexpr double kSlack = 0.4;
  static constexpr double kWindowSeconds = 0.2;  // /proc/stat counts in steps of 10 ms

 private:
  const uint32_t threads_max_;
  const std::function<std::optional<CpuTimes>()> read_;
  uint32_t threads_;
  std::optional<CpuTimes> last_;
};

}  // namespace longhold
