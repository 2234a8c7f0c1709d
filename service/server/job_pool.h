// Work that needs no model and takes long: a memory that is copied out, read in or verified, a part
// of an upload. It does not wait for questions, nor they for it.
//
// Owner: the `serve` command. Thread use: safe to call concurrently; errands run on threads of
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

struct ErrandsOptions {
  size_t threads = 3;
  // that errands of one tenant, and the operator's, have at a time
  size_t tenant_threads = 1, operator_threads = 2;
  size_t own_max = 8, all_max = 64;  // that wait: of one tenant, and of all
};

class Errands {
 public:
  explicit Errands(const ErrandsOptions& options = {});
  // As Stop; what waits is still run.
  ~Errands();

  // Runs `errand`, which must not throw; tenants take turns (an empty name is the operator).
  // Errors: resource_exhausted when too many wait, unavailable after Stop; then it is not run.
  Status Add(std::function<void()> errand, const std::string& tenant);
  // Runs the rest of an errand that let its thread go to wait for somebody: whatever the bounds,
  // and also after Stop.
  void GoOn(std::function<void()> rest, const std::string& tenant);
  // Set by Stop. Long errands look, and end soon.
  const std::atomic<bool>& stopping() const { return stopping_; }
  void Stop();

 private:
  void Run();
  // Whether the tenant may have one more thread. With the lock held.
  bool MayRun(const std::string& tenant) const;

  const ErrandsOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Turns<std::function<void()>> waiting_, begun_;  // begun_: what goes on
  std::multiset<std::string> running_;            // tenants
  std::atomic<bool> stopping_{false};
  bool ended_ = false;  // nothing goes on any more
  std::list<JoinedThread> threads_;
};

}  // namespace longhold
