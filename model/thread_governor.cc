#include "model/thread_governor.h"

#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <string>
#include <utility>

namespace longhold {
namespace {

double Seconds(clockid_t clock) {
  timespec time{};
  (void)clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace

// A line is "cpuN user nice system idle iowait irq softirq steal guest guest_nice" (proc(5)). Guest
// time is included in user time.
std::optional<CpuTimes> ReadCpuTimes() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return std::nullopt;
  CpuTimes times{.wall = Seconds(CLOCK_MONOTONIC),
                 .busy = 0,
                 .own = Seconds(CLOCK_PROCESS_CPUTIME_ID),
                 .cores = 0};
  const double tick = 1.0 / static_cast<double>(sysconf(_SC_CLK_TCK));
  std::ifstream stat("/proc/stat");
  double counted = 0;
  for (std::string line; std::getline(stat, line);) {
    unsigned cpu = 0;
    unsigned long long user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0,
                       steal = 0;
    const int fields =
        std::sscanf(line.c_str(), "cpu%u %llu %llu %llu %llu %llu %llu %llu %llu", &cpu, &user,
                    &nice, &system, &idle, &iowait, &irq, &softirq, &steal);
    if (fields < 5 || cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, &allowed)) continue;
    ++times.cores;
    times.busy += tick * static_cast<double>(user + nice + system + irq + softirq + steal);
    counted += static_cast<double>(user + idle);
  }
  if (times.cores == 0 || counted == 0) return std::nullopt;
  return times;
}

ThreadGovernor::ThreadGovernor(uint32_t threads_max, std::function<std::optional<CpuTimes>()> read)
    : threads_max_(std::max(1u, threads_max)),
      read_(std::move(read)),
      threads_(threads_max_),
      last_(read_()) {}

uint32_t ThreadGovernor::Threads() {
  if (threads_max_ == 1) return 1;
  const std::optional<CpuTimes> now = read_();
  if (!now.has_value() || !last_.has_value()) {
    last_ = now;
    return threads_ = threads_max_;
  }
  const double wall = now->wall - last_->wall;
  if (wall < kWindowSeconds) return threads_;
  const double others = std::max(0.0, (now->busy - last_->busy - (now->own - last_->own)) / wall);
  const double free =
      std::clamp(std::floor(now->cores - others + kSlack), 1.0, static_cast<double>(threads_max_));
  last_ = now;
  return threads_ = static_cast<uint32_t>(free);
}

}  // namespace longhold
