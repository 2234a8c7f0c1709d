#include "service/errands.h"

#include <utility>

namespace longhold {
namespace {

constexpr int kThreads = 2;

}  // namespace

Errands::Errands(size_t own_max, size_t all_max) : waiting_(own_max, all_max) {
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
  if (!waiting_.Add(tenant, std::move(errand))) return ResourceExhausted("too many copies and uploads wait; send it again in a while");
  changed_.notify_one();
  return OkStatus();
}

void Errands::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
    if (waiting_.Next([](const std::string&, const auto&) { return true; }) == nullptr) return;
    const std::function<void()> errand = waiting_.Take().second;
    lock.unlock();
    errand();
    lock.lock();
  }
}

}  // namespace longhold
