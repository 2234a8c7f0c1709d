// Counts the recent requests and tokens of each tenant against its limits. Kept in RAM only: a
// restart resets the counts.
//
// Owner: the `serve` command, for all its protocols. Thread use: *synchronised*.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "service/server/api_keys.h"

namespace longhold {

// Each rate limit is a token bucket: its capacity is the limit, it begins full, and it refills at
// the rate of the limit. A request takes 1 in advance and is refused if there is less. Tokens are
// only known afterwards, so a tenant may ask while its bucket is above 0. An overdrawn bucket must
// refill first.
class Quotas {
 public:
  using Time = std::chrono::steady_clock::time_point;
  struct Refusal {
    std::string why;
    uint64_t seconds = 1;  // until a retry can succeed
  };

  // Counts a request of the tenant, or returns why it is refused.
  std::optional<Refusal> Admit(const TenantLimits& limits, Time now);
  // Charges tokens to the tenant after the work is done.
  void Spend(const TenantLimits& limits, uint64_t tokens, Time now);

 private:
  struct Bucket {
    double left = 0;
    Time seen;
    bool begun = false;
    // Refills the bucket up to the time `now`, at `limit` per `period`. Returns its level.
    double Refill(uint64_t limit, std::chrono::seconds period, Time now);
  };
  struct Tenant {
    Bucket requests, tokens;
  };

  std::mutex mutex_;
  std::map<std::string, Tenant>
      tenants_;  // tenants with limits; their number is bounded by the file of keys
};

}  // namespace longhold
