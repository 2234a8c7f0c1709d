// Rates of tenants, on a clock of the test's own.
#include "service/server/quotas.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace longhold {
namespace {

using std::chrono_literals::operator""s;
using std::chrono_literals::operator""h;
using testing::HasSubstr;

const Quotas::Time kStart = Quotas::Time() + 1000h;

TEST(Quotas, LetInAsManyRequestsAMinuteAsTheLimitSays) {
  Quotas quotas;
  const TenantLimits limits{.tenant = "acme", .requests_per_minute = 6};
  for (int i = 0; i < 6; ++i) EXPECT_FALSE(quotas.Admit(limits, kStart).has_value()) << i;
  const auto refused = quotas.Admit(limits, kStart);
  ASSERT_TRUE(refused.has_value());
  EXPECT_EQ(refused->seconds, 10u);
  EXPECT_THAT(refused->why, HasSubstr("tenant acme"));
  EXPECT_TRUE(quotas.Admit(limits, kStart + 9s).has_value());
  EXPECT_FALSE(quotas.Admit(limits, kStart + 10s).has_value());
  EXPECT_TRUE(quotas.Admit(limits, kStart + 10s).has_value());
  // What is not used is not kept beyond a minute's worth.
  int admitted = 0;
  while (!quotas.Admit(limits, kStart + 10h).has_value()) ++admitted;
  EXPECT_EQ(admitted, 6);
  // Another tenant has its own, and who has no limit has none.
  EXPECT_FALSE(
      quotas.Admit({.tenant = "other", .requests_per_minute = 1}, kStart + 10h).has_value());
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(quotas.Admit({.tenant = "free"}, kStart).has_value());
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(quotas.Admit({}, kStart).has_value());
}

TEST(Quotas, TokensAreOverdrawnOnceAndFillAgain) {
  Quotas quotas;
  const TenantLimits limits{.tenant = "acme", .tokens_per_day = 24000};
  EXPECT_FALSE(quotas.Admit(limits, kStart).has_value());
  quotas.Spend(limits, 23999, kStart);
  EXPECT_FALSE(quotas.Admit(limits, kStart).has_value()) << "one is left";
  quotas.Spend(limits, 1001, kStart);
  const auto refused = quotas.Admit(limits, kStart);
  ASSERT_TRUE(refused.has_value());
  EXPECT_NEAR(static_cast<double>(refused->seconds), 3600, 5)
      << "1,000 an hour, and 1,000 are missing";
  EXPECT_TRUE(quotas.Admit(limits, kStart + 3590s).has_value());
  EXPECT_FALSE(quotas.Admit(limits, kStart + 3610s).has_value());
  quotas.Spend({.tenant = "free"}, 1u << 30, kStart);
  EXPECT_FALSE(quotas.Admit({.tenant = "free"}, kStart).has_value());
}

TEST(Quotas, ALimitThatIsRaisedHoldsAtOnce) {
  Quotas quotas;
  TenantLimits limits{.tenant = "acme", .requests_per_minute = 1};
  EXPECT_FALSE(quotas.Admit(limits, kStart).has_value());
  EXPECT_TRUE(quotas.Admit(limits, kStart).has_value());
  limits.requests_per_minute = 600;
  EXPECT_FALSE(quotas.Admit(limits, kStart + 1s).has_value());
}

}  // namespace
}  // namespace longhold
