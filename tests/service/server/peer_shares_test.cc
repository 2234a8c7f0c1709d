// Shares of clients against a count by hand, and who a client is.
#include "service/server/peer_shares.h"

#include <gtest/gtest.h>

namespace longhold {
namespace {

using Answer = PeerShares::Answer;

TEST(PeerShares, NobodyHasMoreThanTheirsNorAllMoreThanThereIs) {
  PeerShares shares(10, 6);
  EXPECT_EQ(shares.Take("a", 6), Answer::kTaken);
  EXPECT_EQ(shares.Take("a", 1), Answer::kPeerFull);
  EXPECT_EQ(shares.Take("a", 0), Answer::kTaken);
  EXPECT_EQ(shares.Take("b", 5), Answer::kFull);
  EXPECT_EQ(shares.Take("b", 4), Answer::kTaken);
  EXPECT_EQ(shares.taken(), 10u);
  EXPECT_EQ(shares.Take("c", 1), Answer::kFull);
  shares.Release("a", 2);
  EXPECT_EQ(shares.Take("c", 2), Answer::kTaken);
  EXPECT_EQ(shares.Take("a", UINT64_MAX), Answer::kPeerFull) << "and does not wrap around";
  shares.Release("a", 4);
  shares.Release("b", 4);
  shares.Release("c", 2);
  EXPECT_EQ(shares.taken(), 0u);
  EXPECT_EQ(shares.Take("c", 7), Answer::kPeerFull);
  EXPECT_EQ(shares.Take("c", 6), Answer::kTaken);
}

TEST(PeerOf, IsAnAddressOrANetwork) {
  EXPECT_EQ(PeerOf("203.0.113.7"), "203.0.113.7");
  EXPECT_EQ(PeerOf("::ffff:203.0.113.7"), "203.0.113.7");
  EXPECT_EQ(PeerOf("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
  EXPECT_EQ(PeerOf("2001:db8:1:2::"), PeerOf("2001:db8:1:2:ffff:ffff:ffff:ffff"));
  EXPECT_NE(PeerOf("2001:db8:1:2::1"), PeerOf("2001:db8:1:3::1"));
  EXPECT_EQ(PeerOf("fe80::1%eth0"), "fe80::/64");
  EXPECT_EQ(PeerOf("::1"), "::/64");
}

}  // namespace
}  // namespace longhold
