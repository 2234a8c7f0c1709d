#include "service/server/job_pool.h"

#include <cstdint>
#include <utility>

namespace longhold {
JobPool::JobPool(const JobPoolOptions& options)
    : options_(options),
      waiting_(options.tenant_waiting_max, options.waiting_max),
      resumed_(SIZE_MAX, SIZE_MAX) {
  for (size_t i = 0; i < options_.threads; ++i) threads_.emplace_back([this] { Run(); });
}

JobPool::~JobPool() {
  Stop();
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_.notify_all();
  threads_.clear();
}

void JobPool::Stop() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  changed_.notify_all();
}

Status JobPool::Add(std::function<void()> job, const std::string& tenant) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return Unavailable("the server is stopping; retry later");
  if (!waiting_.Add(tenant, std::move(job)))
    return ResourceExhausted("too many requests wait; retry later");
  changed_.notify_one();
  return OkStatus();
}

void JobPool::Resume(std::function<void()> rest, const std::string& tenant) {
  const std::lock_guard lock(mutex_);
  LH_CHECK(resumed_.Add(tenant, std::move(rest)));
  changed_.notify_one();
}

bool JobPool::MayRun(const std::string& tenant) const {
  return running_.count(tenant) <
         (tenant.empty() ? options_.operator_threads : options_.tenant_threads);
}

void JobPool::Run() {
  const auto may_run = [this](const std::string& tenant, const auto&) { return MayRun(tenant); };
  std::unique_lock lock(mutex_);
  for (;;) {
    TenantRoundRobin<std::function<void()>>& next =
        resumed_.Next(may_run) != nullptr ? resumed_ : waiting_;
    if (next.Next(may_run) == nullptr) {
      if (ended_ && waiting_.empty() && resumed_.empty()) return;
      changed_.wait(lock);
      continue;
    }
    auto [tenant, job] = next.Take();
    const auto running = running_.insert(tenant);
    lock.unlock();
    job();
    job = nullptr;  // releases its captures before the next job begins
    lock.lock();
    running_.erase(running);
    changed_.notify_all();  // threads that wait for this tenant, or for the end
  }
}

}  // namespace longhold
