// Work that needs no model and takes long: a memory that is copied out, read in or verified, a part
// of an upload. It does not wait for questions, nor they for it.
//
// Owner: the `serve` command. Thread use: safe to call concurrently; jobs run on threads of
// their own. Of three a tenant has one at most, and the operator two: whoever copies for long makes
// only itself wait.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <list>
#include <mutex>
#include <set>
#include <string>

#include "base/joined_thread.h"
#include "base/status.h"
#include "service/server/tenant_round_robin.h"

namespace longhold {

struct JobPoolOptions {
  size_t threads = 3;
  // that jobs of one tenant, and the operator's, have at a time
  size_t tenant_threads = 1, operator_threads = 2;
  size_t own_max = 8, all_max = 64;  // that wait: of one tenant, and of all
};

class JobPool {
 public:
  explicit JobPool(const JobPoolOptions& options = {});
  // As Stop; what waits is still run.
  ~JobPool();

  // Runs `job`, which must not throw; tenants take turns (an empty name is the operator).
  // Errors: resource_exhausted when too many wait, unavailable after Stop; then it is not run.
  Status Add(std::function<void()> job, const std::string& tenant);
  // Runs the rest of an job that let its thread go to wait for somebody: whatever the bounds,
  // and also after Stop.
  void GoOn(std::function<void()> rest, const std::string& tenant);
  // Set by Stop. Long jobs look, and end soon.
  const std::atomic<bool>& stopping() const { return stopping_; }
  void Stop();

 private:
  void Run();
  // Whether the tenant may have one more thread. With the lock held.
  bool MayRun(const std::string& tenant) const;

  const JobPoolOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  TenantRoundRobin<std::function<void()>> waiting_, begun_;  // begun_: what goes on
  std::multiset<std::string> running_;                       // tenants
  std::atomic<bool> stopping_{false};
  bool ended_ = false;  // nothing goes on any more
  std::list<JoinedThread> threads_;
};

}  // namespace longhold
