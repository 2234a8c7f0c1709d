#include "store/mem_provider.h"

#include <atomic>
#include <map>
#include <mutex>
#include <utility>

#include "store/mem_store.h"
#include "store/memory_name.h"

namespace longhold {
namespace {

// What outlives the handles to it.
struct Shared {
  const std::unique_ptr<ColdStore> store = NewMemStore();
  std::atomic<uint64_t> writes = 0;
  std::atomic<bool> has_writer = false;
};

// An open store. A reader sees later writes too, other than a reader of RocksDB: the engine
// notices by the stamp that something was written, and opens the memory again.
class Handle final : public ColdStore {
 public:
  Handle(std::shared_ptr<Shared> shared, bool read_only)
      : shared_(std::move(shared)), read_only_(read_only) {}
  ~Handle() override {
    if (!read_only_) shared_->has_writer = false;
  }

  Status Write(WriteBatch batch, Durability durability) override {
    if (read_only_) return FailedPrecondition("write to memory store: it was opened for reading");
    ++shared_->writes;
    return shared_->store->Write(std::move(batch), durability);
  }
  Result<std::string> Get(Table table, std::string_view key) override {
    return shared_->store->Get(table, key);
  }
  std::vector<Result<std::string>> MultiGet(Table table,
                                            const std::vector<std::string>& keys) override {
    return shared_->store->MultiGet(table, keys);
  }
  Status Scan(Table table, std::string_view begin, std::string_view end,
              const std::function<bool(std::string_view, std::string_view)>& visit) override {
    return shared_->store->Scan(table, begin, end, visit);
  }
  Status Reclaim(Table table) override { return shared_->store->Reclaim(table); }
  Status Compact() override { return shared_->store->Compact(); }
  Result<uint64_t> DiskBytes() override { return shared_->store->DiskBytes(); }
  Result<uint64_t> TableBytes(Table table) override { return shared_->store->TableBytes(table); }

 private:
  const std::shared_ptr<Shared> shared_;
  const bool read_only_;
};

class MapProvider final : public MemProvider {
 public:
  const std::string& place() const override { return place_; }

  Status Exists(const std::string& name) override {
    return Find(name) != nullptr ? OkStatus() : NotFound("no store of that name");
  }

  Result<std::unique_ptr<ColdStore>> Open(const std::string& name, StoreMode mode,
                                          uint64_t) override {
    std::shared_ptr<Shared> shared = Find(name);
    if (shared == nullptr) {
      if (mode != StoreMode::kCreate) return NotFound("no store of that name");
      shared = std::make_shared<Shared>();
      const std::lock_guard lock(mutex_);
      stores_[name] = shared;
    }
    return HandleOf(std::move(shared), mode);
  }

  uint64_t RamBytes(StoreMode, uint64_t) const override { return 0; }

  Result<std::vector<std::string>> List(const std::string& tenant) override {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> names;
    for (const auto& [name, store] : stores_) {
      if (SplitMemoryName(name).tenant == tenant) names.push_back(name);
    }
    return names;
  }

  std::vector<std::string> Tenants() override {
    const std::lock_guard lock(mutex_);
    std::vector<std::string> tenants;
    for (const auto& [name, store] : stores_) {
      const std::string tenant = SplitMemoryName(name).tenant;
      if (!tenant.empty() && (tenants.empty() || tenants.back() != tenant))
        tenants.push_back(tenant);
    }
    return tenants;
  }

  Status Remove(const std::string& name) override {
    const std::shared_ptr<Shared> shared = Find(name);
    if (shared == nullptr) return NotFound("no store of that name");
    if (shared->has_writer) return FailedPrecondition("is open for writing");
    const std::lock_guard lock(mutex_);
    stores_.erase(name);
    return OkStatus();
  }

  Result<std::unique_ptr<ColdStore>> Stage(const std::string& name, uint64_t) override {
    auto shared = std::make_shared<Shared>();
    {
      const std::lock_guard lock(mutex_);
      staged_[name] = shared;
    }
    return HandleOf(std::move(shared), StoreMode::kCreate);
  }

  Status Publish(const std::string& name) override {
    const std::lock_guard lock(mutex_);
    const auto staged = staged_.find(name);
    if (staged == staged_.end()) return Internal("nothing is staged under that name");
    stores_[name] = std::move(staged->second);
    staged_.erase(staged);
    return OkStatus();
  }

  void Discard(const std::string& name) override {
    const std::lock_guard lock(mutex_);
    staged_.erase(name);
  }

  uint64_t DiskBytes(const std::string& name) const override {
    const std::shared_ptr<Shared> shared = Find(name);
    return shared == nullptr ? 0 : shared->store->DiskBytes().value();
  }

  uint64_t WriteStalls() const override { return 0; }

  std::string Stamp(const std::string& name) const override {
    const std::shared_ptr<Shared> shared = Find(name);
    return shared == nullptr ? "" : std::to_string(shared->writes);
  }

  void Change(const std::string& name, const std::function<void(ColdStore&)>& change) override {
    const std::shared_ptr<Shared> shared = Find(name);
    LH_CHECK(shared != nullptr);
    ++shared->writes;
    change(*shared->store);
  }

 private:
  std::shared_ptr<Shared> Find(const std::string& name) const {
    const std::lock_guard lock(mutex_);
    const auto found = stores_.find(name);
    return found == stores_.end() ? nullptr : found->second;
  }
  static Result<std::unique_ptr<ColdStore>> HandleOf(std::shared_ptr<Shared> shared,
                                                     StoreMode mode) {
    const bool read_only = mode == StoreMode::kRead;
    if (!read_only && shared->has_writer.exchange(true))
      return FailedPrecondition("another process has it open for writing");
    return std::unique_ptr<ColdStore>(std::make_unique<Handle>(std::move(shared), read_only));
  }

  const std::string place_ = "RAM";
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Shared>> stores_;  // guarded by mutex_
  std::map<std::string, std::shared_ptr<Shared>> staged_;  // guarded by mutex_
};

}  // namespace

std::unique_ptr<MemProvider> NewMemProvider() { return std::make_unique<MapProvider>(); }

}  // namespace longhold
