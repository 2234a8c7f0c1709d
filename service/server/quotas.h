// How much each tenant has asked for of late, held against its limits. Kept in RAM: a restart
// begins anew.
//
// Owner: the Api. Thread use: safe to call concurrently.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "service/server/api_keys.h"

namespace longhold {

// Each limit of a rate is a bucket that holds as much as the limit, begins full, and fills as fast
// as the limit says. A request takes its one at once and is refused where there is none; tokens are
// known afterwards, so a tenant may ask while it has some left, and what is overdrawn has to fill
// again first.
class Quotas {
 public:
  using Time = std::chrono::steady_clock::time_point;
  struct Refusal {
    std::string why;
    uint64_t seconds = 1;  // until it is worth asking again
  };

  // Takes a request of the tenant's, or says why not.
  std::optional<Refusal> Admit(const TenantLimits& limits, Time now);
  void Spend(const TenantLimits& limits, uint64_t tokens, Time now);

 private:
  struct Bucket {
    double left = 0;
    Time seen;
    bool begun = false;
    // Left after it has filled until `now`, at `limit` in `period`.
    double Fill(uint64_t limit, std::chrono::seconds period, Time now);
  };
  struct Tenant {
    Bucket requests, tokens;
  };

  std::mutex mutex_;
  std::map<std::string, Tenant> tenants_;  // of those with limits: as many as the keys' file lists
};

}  // namespace longhold
