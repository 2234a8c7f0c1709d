// Work that needs no model and takes long: a memory that is copied out, read in or verified, a part of an upload. It does not wait for questions, nor
// they for it.
//
// Owner: the `serve` command. Thread use: safe to call concurrently; errands run on three threads. No tenant has more than one of them, and the
// operator two: whoever copies for long makes only itself wait.
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
#include "service/turns.h"

namespace longhold {

class Errands {
 public:
  // `own_max`: of one tenant, that wait.
  explicit Errands(size_t own_max = 8, size_t all_max = 64);
  // As Stop; what waits is still run.
  ~Errands();

  // Runs `errand`, which must not throw; tenants take turns (an empty name is the operator). Errors: resource_exhausted when too many wait,
  // unavailable after Stop; then it is not run.
  Status Add(std::function<void()> errand, const std::string& tenant);
  // Runs the rest of an errand that let its thread go to wait for somebody: whatever the bounds, and also after Stop.
  void GoOn(std::function<void()> rest, const std::string& tenant);
  // Set by Stop. Long errands look, and end soon.
  const std::atomic<bool>& stopping() const { return stopping_; }
  void Stop();

 private:
  void Run();
  // Whether the tenant may have one more thread. With the lock held.
  bool MayRun(const std::string& tenant) const;

  std::mutex mutex_;
  std::condition_variable changed_;
  Turns<std::function<void()>> waiting_, begun_;  // begun_: what goes on
  std::multiset<std::string> running_;            // tenants
  std::atomic<bool> stopping_{false};
  std::list<JoinedThread> threads_;
};

}  // namespace longhold
