// Descriptors: the process's own limit, and what of a limit is left for connections, by hand.
#include "service/server/descriptors.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

namespace longhold {
namespace {

TEST(Descriptors, TheSoftLimitGoesUpToTheHardOneAndNeverDown) {
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
  const rlimit low{.rlim_cur = 64, .rlim_max = old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  EXPECT_EQ(RaiseDescriptorLimit(200), 200u);
  EXPECT_EQ(RaiseDescriptorLimit(100), 200u);
  EXPECT_EQ(RaiseDescriptorLimit(UINT64_MAX), old.rlim_max);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
}

TEST(Descriptors, ConnectionsLeaveTheStoresTheirs) {
  EXPECT_EQ(ConnectionsFor(65536, 1024), 1024u);
  EXPECT_EQ(ConnectionsFor(12 * 512 + 256 + 2000, 3000), 2100u) << "a quarter";
  EXPECT_EQ(ConnectionsFor(12 * 512 + 256 + 9000, 10000), 9000u);
  EXPECT_EQ(ConnectionsFor(1024, 1024), 256u);
  EXPECT_EQ(ConnectionsFor(2, 1024), 1u);
}

}  // namespace
}  // namespace longhold
