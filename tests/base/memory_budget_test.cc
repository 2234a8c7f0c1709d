// Reservations add up to what the budget reports. They are released however their object ends. They
// never exceed the limit, also with several threads at once.

#include "base/memory_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <utility>
#include <vector>

#include "base/process_memory.h"

namespace longhold {
namespace {

using testing::HasSubstr;

TEST(MemoryBudget, ReleasesWhatWasReserved) {
  MemoryBudget budget(100);
  {
    Result<MemoryReservation> a = budget.Reserve(60, "a");
    ASSERT_TRUE(a.ok());
    EXPECT_EQ(budget.used_bytes(), 60u);
    EXPECT_TRUE(a->Resize(100).ok());
    EXPECT_EQ(budget.RoomFor(5, 1), 0u);
    EXPECT_TRUE(a->Resize(10).ok());
    EXPECT_EQ(budget.RoomFor(5, 20), 4u);
    MemoryReservation b = std::move(*a);
    EXPECT_EQ(a->bytes(), 0u);
    EXPECT_EQ(b.bytes(), 10u);
    Result<MemoryReservation> c = budget.Reserve(20, "c");
    b = std::move(*c);  // b's former reservation is released
    EXPECT_EQ(budget.used_bytes(), 20u);
    MemoryReservation empty;
    b = std::move(empty);
    EXPECT_EQ(budget.used_bytes(), 0u);
    Result<MemoryReservation> d = budget.Reserve(30, "d");
    d->Release();
    EXPECT_EQ(budget.used_bytes(), 0u);
    d = budget.Reserve(40, "d");
  }
  EXPECT_EQ(budget.used_bytes(), 0u);
  EXPECT_EQ(budget.peak_bytes(), 100u);
}

TEST(MemoryBudget, RefusalReportsTheSizesAndChangesNothing) {
  MemoryBudget budget(10 << 20);
  Result<MemoryReservation> a = budget.Reserve(6 << 20, "reading book.txt");
  ASSERT_TRUE(a.ok());
  const Result<MemoryReservation> b = budget.Reserve((4 << 20) + 1, "the index of memory m");
  ASSERT_FALSE(b.ok());
  EXPECT_EQ(b.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(b.status().message(), HasSubstr("10 MiB: the index of memory m needs 5 MiB, and 4 "
                                              "MiB are free; give more with --memory-budget"));
  const Status more = a->Resize(11 << 20);
  EXPECT_THAT(more.message(), HasSubstr("reading book.txt needs 5 MiB more"));
  EXPECT_EQ(a->bytes(), uint64_t{6} << 20);
  EXPECT_EQ(budget.used_bytes(), uint64_t{6} << 20);
  EXPECT_FALSE(budget.Reserve(UINT64_MAX, "all").ok()) << "no overflow";
  EXPECT_FALSE(a->Resize(UINT64_MAX).ok());
  EXPECT_EQ(budget.RoomFor(7, 0), 7u);
}

TEST(MemoryBudget, KeepsItsLimitWithManyThreads) {
  MemoryBudget budget(1000);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5000; ++i) {
        Result<MemoryReservation> r = budget.Reserve(static_cast<uint64_t>(100 + 50 * t), "some");
        if (r.ok() && i % 3 == 0) (void)r->Resize(400);
        EXPECT_LE(budget.used_bytes(), 1000u);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(budget.used_bytes(), 0u);
  EXPECT_LE(budget.peak_bytes(), 1000u);
  EXPECT_GE(budget.peak_bytes(), 400u);
}

TEST(ProcessMemory, EqualsWhatTheKernelReports) {
  const uint64_t before = ProcessStatusBytes("VmData");
  const std::vector<char> some(64 << 20);
  EXPECT_GE(ProcessStatusBytes("VmData"), before + (64 << 20));
  EXPECT_GT(ProcessStatusBytes("VmHWM"), 0u);
  EXPECT_EQ(ProcessStatusBytes("VmNone"), 0u);
  EXPECT_EQ(ProcessStatusBytes("Vm"), 0u) << "a line's name, not its beginning";
}

}  // namespace
}  // namespace longhold
