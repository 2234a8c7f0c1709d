// What the governor decides for times that the test sets, and that it can read the machine's own
// times. The test's seconds are artificial; a fully busy core adds one per second.
#include "model/thread_governor.h"

#include <gtest/gtest.h>

#include <chrono>
#include <vector>

namespace longhold {
namespace {

// A machine with `cores` cores, whose times the test advances.
struct Machine {
  CpuTimes times;
  bool readable = true;

  explicit Machine(uint32_t cores) { times.cores = cores; }
  std::function<std::optional<CpuTimes>()> Reader() {
    return [this]() -> std::optional<CpuTimes> {
      return readable ? std::optional(times) : std::nullopt;
    };
  }
  // Advances the time by `seconds`, in which this process uses `own` cores and the others use
  // `others`.
  void Pass(double seconds, double own, double others) {
    times.wall += seconds;
    times.own += seconds * own;
    times.busy += seconds * (own + others);
  }
};

TEST(ThreadGovernor, LeavesACoreToABusyProcessAndTakesItBack) {
  Machine machine(2);
  ThreadGovernor governor(2, machine.Reader());
  EXPECT_EQ(governor.Threads(), 2u);
  machine.Pass(1, 1.5,
               0.5);  // the other process wants a core, and shares one with a thread of ours
  EXPECT_EQ(governor.Threads(), 1u);
  for (int i = 0; i < 5; ++i) {
    machine.Pass(1, 1, 1);
    EXPECT_EQ(governor.Threads(), 1u) << i;
  }
  machine.Pass(1, 1, 0.05);
  EXPECT_EQ(governor.Threads(), 2u);
}

TEST(ThreadGovernor, KeepsAllThreadsWhenOthersDoLittleWork) {
  Machine machine(2);
  ThreadGovernor governor(2, machine.Reader());
  for (const double others : {0.0, 0.1, 0.25}) {
    machine.Pass(1, 2 - others, others);
    EXPECT_EQ(governor.Threads(), 2u) << others;
  }
}

TEST(ThreadGovernor, LeavesTheCoresThatOthersUseAndKeepsAtLeastOneThread) {
  Machine machine(8);
  ThreadGovernor governor(8, machine.Reader());
  machine.Pass(1, 5, 3);
  EXPECT_EQ(governor.Threads(), 5u);
  machine.Pass(1, 1, 12);
  EXPECT_EQ(governor.Threads(), 1u);
  machine.Pass(1, 0, 0);
  EXPECT_EQ(governor.Threads(), 8u);
}

TEST(ThreadGovernor, NeverExceedsTheConfiguredThreads) {
  Machine machine(64);
  ThreadGovernor governor(4, machine.Reader());
  machine.Pass(1, 4, 30);
  EXPECT_EQ(governor.Threads(), 4u);
}

TEST(ThreadGovernor, IgnoresIntervalsTooShortToMeasure) {
  Machine machine(2);
  ThreadGovernor governor(2, machine.Reader());
  machine.Pass(0.9 * ThreadGovernor::kWindowSeconds, 1, 1);
  EXPECT_EQ(governor.Threads(), 2u);
  machine.Pass(0.2 * ThreadGovernor::kWindowSeconds, 1, 1);
  EXPECT_EQ(governor.Threads(), 1u);
}

TEST(ThreadGovernor, UsesAllThreadsWhenTimesCannotBeRead) {
  Machine machine(2);
  machine.readable = false;
  ThreadGovernor governor(2, machine.Reader());
  EXPECT_EQ(governor.Threads(), 2u);
  machine.readable = true;
  EXPECT_EQ(governor.Threads(), 2u);  // one reading is not enough
  machine.Pass(1, 1, 1);
  EXPECT_EQ(governor.Threads(), 1u);
  machine.readable = false;
  EXPECT_EQ(governor.Threads(), 2u);
}

TEST(ReadCpuTimes, CountsThisProcessAsBusy) {
  const std::optional<CpuTimes> before = ReadCpuTimes();
  if (!before.has_value()) GTEST_SKIP() << "no /proc/stat here";
  EXPECT_GE(before->cores, 1u);
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(300);
  while (std::chrono::steady_clock::now() < end) {
  }
  const std::optional<CpuTimes> after = ReadCpuTimes();
  ASSERT_TRUE(after.has_value());
  EXPECT_GE(after->wall - before->wall, 0.3);
  const double own = after->own - before->own;
  EXPECT_GT(own, 0);
  EXPECT_GE(after->busy - before->busy, own - 0.05 * after->cores);  // ticks of 10 ms on each core
}

}  // namespace
}  // namespace longhold
