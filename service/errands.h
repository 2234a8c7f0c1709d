// Work that needs no model and takes long: a memory that is copied out, read in or verified, a part of an upload. It does not wait for questions, nor
// they for it.
//
// Owner: the `serve` command. Thread use: safe to call concurrently; errands run on threads of their own, two at a time.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <list>
#include <mutex>
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
  // Set by Stop. Long errands look, and end soon.
  const std::atomic<bool>& stopping() const { return stopping_; }
  void Stop();

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable changed_;
  Turns<std::function<void()>> waiting_;
  std::atomic<bool> stopping_{false};
  std::list<JoinedThread> threads_;
};

}  // namespace longhold
