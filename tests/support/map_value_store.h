// A value store in RAM, for tests of what stands above one. Values can be made to look as if they
// were on the disk, and reads and writes can be held up or made to fail. It evicts nothing.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <string>

#include "store/value_store.h"

namespace longhold {

class MapValueStore final : public ValueStore {
 public:
  ValuePlace Find(std::string_view key) override {
    const std::lock_guard lock(mutex_);
    return Place(key);
  }
  ValuePlace Look(std::string_view key) override {
    const std::lock_guard lock(mutex_);
    ValuePlace place = Place(key);
    place.value = nullptr;
    return place;
  }
  Result<Value> Get(std::string_view key) override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !held_; });
    if (!failure_.ok()) return failure_;
    const auto found = values_.find(std::string(key));
    if (found == values_.end()) return NotFound("no such value");
    return found->second;
  }
  Status Write(std::vector<ValueChange>& changes) override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !held_; });
    if (!failure_.ok()) return failure_;
    batches_ += 1;
    for (ValueChange& change : changes) {
      const bool there = values_.contains(change.key);
      if (change.value == nullptr) {
        change.applied = values_.erase(change.key) > 0;
        continue;
      }
      change.applied = change.when == ValueChange::When::kAlways ||
                       there == (change.when == ValueChange::When::kIfPresent);
      if (change.applied) values_[change.key] = change.value;
      expires_ms_ = change.expires_ms;
    }
    return OkStatus();
  }
  uint64_t ValueBytesMax() const override { return kValueBytesMax; }
  void Limit(uint64_t disk_bytes_max, uint64_t ram_bytes_max) override {
    const std::lock_guard lock(mutex_);
    stats_.disk_bytes_max = disk_bytes_max;
    stats_.ram_bytes_max = ram_bytes_max;
  }
  ValueStats Stats() const override {
    const std::lock_guard lock(mutex_);
    ValueStats stats = stats_;
    stats.keys = values_.size();
    return stats;
  }

  // Until Hold(false), no read from the disk and no write ends.
  void Hold(bool held) {
    const std::lock_guard lock(mutex_);
    held_ = held;
    changed_.notify_all();
  }
  void Fail(Status failure) {
    const std::lock_guard lock(mutex_);
    failure_ = std::move(failure);
  }
  void PutOnDisk(const std::string& key) {
    const std::lock_guard lock(mutex_);
    on_disk_.insert(key);
  }
  size_t batches() const {
    const std::lock_guard lock(mutex_);
    return batches_;
  }
  int64_t expires_ms() const {
    const std::lock_guard lock(mutex_);
    return expires_ms_;
  }

 private:
  ValuePlace Place(std::string_view key) const {
    const auto found = values_.find(std::string(key));
    if (found == values_.end()) return {};
    const bool disk = on_disk_.contains(found->first);
    return {.where = disk ? ValuePlace::Where::kDisk : ValuePlace::Where::kRam,
            .bytes = found->second->size(),
            .value = disk ? nullptr : found->second};
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Value> values_;
  std::set<std::string> on_disk_;
  ValueStats stats_;
  Status failure_;
  bool held_ = false;
  size_t batches_ = 0;
  int64_t expires_ms_ = 0;
};

}  // namespace longhold
