// A thread pool for work that needs no model: exports, imports, verifies, parts of uploads and long
// bodies of the HTTP API, and the requests of the other protocols. Such jobs and questions do not
// wait for each other.
//
// Owner: the `serve` command. Thread use: *synchronised*; jobs run on the threads of the pool. Of
// its threads a tenant has some at most, and so has the operator, so that long jobs only delay
// other jobs of the same client.
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
  // most threads for jobs of one tenant, and of the operator
  size_t tenant_threads = 1, operator_threads = 2;
  size_t tenant_waiting_max = 8, waiting_max = 64;  // waiting jobs of one tenant, and of all
};

class JobPool {
 public:
  explicit JobPool(const JobPoolOptions& options = {});
  // As Stop, then runs the waiting jobs and joins the threads.
  ~JobPool();

  // Queues `job`, which must not throw. Tenants are served round-robin (an empty name is the
  // operator). Errors: resource_exhausted (too many jobs wait), unavailable (after Stop); the job
  // does not run then.
  Status Add(std::function<void()> job, const std::string& tenant);
  // Queues the rest of a job that gave up its thread to wait for something. It is accepted whatever
  // the limits, and even after Stop.
  void Resume(std::function<void()> rest, const std::string& tenant);
  // True after Stop. Long jobs check it and end soon.
  const std::atomic<bool>& stopping() const { return stopping_; }
  void Stop();

 private:
  void Run();
  // Whether the tenant may have one more thread. Requires: mutex_ is held.
  bool MayRun(const std::string& tenant) const;

  const JobPoolOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  TenantRoundRobin<std::function<void()>> waiting_, resumed_;  // resumed_: from Resume
  std::multiset<std::string> running_;                         // tenants of the running jobs
  std::atomic<bool> stopping_{false};
  bool ended_ = false;  // threads end once no job is left
  std::list<JoinedThread> threads_;
};

}  // namespace longhold
