#include "base/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

namespace longhold {
namespace {

TEST(Parallel, RunsEveryIndexOnceAndAllAreDoneOnReturn) {
  for (const ParallelFor& loop : {ParallelFor(SerialFor), ParallelFor(ThreadsFor)}) {
    for (const size_t count : {0, 1, 2, 3, 1000}) {
      std::vector<std::atomic<int>> taken(count);
      loop(count, [&](size_t i) { ++taken[i]; });
      for (size_t i = 0; i < count; ++i) EXPECT_EQ(taken[i], 1) << i;
    }
  }
}

TEST(Parallel, SerialForKeepsTheOrder) {
  std::vector<size_t> order;
  SerialFor(5, [&](size_t i) { order.push_back(i); });
  EXPECT_EQ(order, (std::vector<size_t>{0, 1, 2, 3, 4}));
}

}  // namespace
}  // namespace longhold
