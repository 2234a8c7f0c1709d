// A queue of waiting work that serves tenants round-robin. When the work of a tenant is next does
// not depend on how much other tenants have queued.
//
// Owner: a queue that runs the work. Thread use: *confined*.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <string>
#include <utility>

namespace longhold {

template <typename Work>
class TenantRoundRobin {
 public:
  // Limits of waiting work: of one tenant, and of all.
  TenantRoundRobin(size_t tenant_max, size_t all_max)
      : tenant_max_(tenant_max), all_max_(all_max) {}

  // Returns false, and does not keep `work`, when too much waits. An empty tenant is the operator.
  bool Add(const std::string& tenant, Work work) {
    const auto own = waiting_.find(tenant);
    if (size_ >= all_max_ || (own == waiting_.end() ? 0 : own->second.size()) >= tenant_max_)
      return false;
    waiting_[tenant].push_back(std::move(work));
    ++size_;
    return true;
  }
  // Returns the first work of the next tenant for whom `may(tenant, first)` is true; null when
  // there is none. The pointer is valid until the next call of Add or Take.
  template <typename May>
  const Work* Next(const May& may) {
    next_ = waiting_.upper_bound(last_);
    for (size_t i = 0; i < waiting_.size(); ++i, ++next_) {
      if (next_ == waiting_.end()) next_ = waiting_.begin();
      if (may(next_->first, next_->second.front())) return &next_->second.front();
    }
    return nullptr;
  }
  // Removes and returns what the last call of Next returned, with its tenant. Precondition: Next
  // returned not null.
  std::pair<std::string, Work> Take() {
    std::pair<std::string, Work> taken(next_->first, std::move(next_->second.front()));
    next_->second.pop_front();
    if (next_->second.empty()) waiting_.erase(next_);
    --size_;
    last_ = taken.first;
    return taken;
  }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

 private:
  using Waiting = std::map<std::string, std::deque<Work>>;  // by tenant; no deque is empty

  const size_t tenant_max_, all_max_;
  Waiting waiting_;
  typename Waiting::iterator next_;
  size_t size_ = 0;
  std::string last_;  // tenant that was served last
};

}  // namespace longhold
