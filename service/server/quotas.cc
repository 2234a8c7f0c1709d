#include "service/server/quotas.h"

#include <algorithm>
#include <cmath>

namespace longhold {
namespace {

constexpr std::chrono::seconds kMinute{60}, kDay{86400};

uint64_t SecondsUntil(double missing, uint64_t limit, std::chrono::seconds period) {
  const double seconds = missing * static_cast<double>(period.count()) / static_cast<double>(limit);
  return static_cast<uint64_t>(
      std::clamp(std::ceil(seconds), 1.0, static_cast<double>(period.count())));
}

}  // namespace

double Quotas::Bucket::Refill(uint64_t limit, std::chrono::seconds period, Time now) {
  const auto most = static_cast<double>(limit);
  const std::chrono::duration<double> passed =
      begun ? now - seen : std::chrono::duration<double>(0);
  left = begun ? std::min(most, left + most * passed.count() / static_cast<double>(period.count()))
               : most;
  begun = true;
  seen = now;
  return left;
}

std::optional<Quotas::Refusal> Quotas::Admit(const TenantLimits& limits, Time now) {
  if (limits.requests_per_minute == 0 && limits.tokens_per_day == 0) return std::nullopt;
  const std::lock_guard lock(mutex_);
  Tenant& tenant = tenants_[limits.tenant];
  if (limits.tokens_per_day > 0) {
    const double left = tenant.tokens.Refill(limits.tokens_per_day, kDay, now);
    if (left <= 0) {
      return Refusal{"tenant " + limits.tenant + " has used its " +
                         std::to_string(limits.tokens_per_day) +
                         " tokens per day; wait, or ask the operator for a higher limit",
                     SecondsUntil(1 - left, limits.tokens_per_day, kDay)};
    }
  }
  if (limits.requests_per_minute > 0) {
    const double left = tenant.requests.Refill(limits.requests_per_minute, kMinute, now);
    if (left < 1) {
      return Refusal{"tenant " + limits.tenant + " sends more than its " +
                         std::to_string(limits.requests_per_minute) +
                         " requests per minute; wait, or ask the operator for a higher limit",
                     SecondsUntil(1 - left, limits.requests_per_minute, kMinute)};
    }
    tenant.requests.left -= 1;
  }
  return std::nullopt;
}

void Quotas::Spend(const TenantLimits& limits, uint64_t tokens, Time now) {
  if (limits.tokens_per_day == 0) return;
  const std::lock_guard lock(mutex_);
  Bucket& bucket = tenants_[limits.tenant].tokens;
  bucket.Refill(limits.tokens_per_day, kDay, now);
  bucket.left -= static_cast<double>(tokens);
}

}  // namespace longhold
