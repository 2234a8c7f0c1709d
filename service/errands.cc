#include "service/errands.h"

#include <utility>

namespace longhold {
namespace {

constexpr int kThreads = 2;

}  // namespace

Errands::Errands(size_t own_max, size_t all_max) : own_max_(own_max), all_max_(all_max) {
  for (int i = 0; i < kThreads; ++i) threads_.emplace_back([this] { Run(); });
}

Errands::~Errands() {
  Stop();
  threads_.clear();
}

void Errands::Stop() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  changed_.notify_all();
}

Status Errands::Add(std::function<void()> errand, const std::string& tenant) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return Unavailable("the server is stopping; ask again in a while");
  const auto own = waiting_.find(tenant);
  if (count_ >= all_max_ || (own != waiting_.end() && own->second.size() >= own_max_)) {
    return ResourceExhausted("too many copies and uploads wait; send it again in a while");
  }
  waiting_[tenant].push_back(std::move(errand));
  ++count_;
  changed_.notify_one();
  return OkStatus();
}

void Errands::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    auto turn = waiting_.upper_bound(last_);
    if (turn == waiting_.end()) turn = waiting_.begin();
    last_ = turn->first;
    const std::function<void()> errand = std::move(turn->second.front());
    turn->second.pop_front();
    if (turn->second.empty()) waiting_.erase(turn);
    --count_;
    lock.unlock();
    errand();
    lock.lock();
  }
}

}  // namespace longhold
