#include "store/mem_store.h"

#include <map>
#include <mutex>
#include <shared_mutex>
#include <utility>

namespace longhold {
namespace {

// Values are shared with running Scans. A Scan sees the state at its start and holds no lock while
// it visits, so the visitor may call the store, as with RocksDB.
using Value = std::shared_ptr<const std::string>;
using Rows = std::map<std::string, Value, std::less<>>;

class MemStore final : public ColdStore {
 public:
  Status Write(WriteBatch batch, Durability) override {
    std::unique_lock lock(mutex_);
    for (auto& change : batch.changes()) {
      Rows& rows = At(change.table);
      switch (change.kind) {
        case WriteBatch::Change::Kind::kPut:
          rows.insert_or_assign(std::move(change.key),
                                std::make_shared<const std::string>(std::move(change.value)));
          break;
        case WriteBatch::Change::Kind::kDelete: rows.erase(change.key); break;
        case WriteBatch::Change::Kind::kDeleteRange:
          if (change.key < change.value)
            rows.erase(rows.lower_bound(change.key), rows.lower_bound(change.value));
          break;
      }
    }
    return OkStatus();
  }

  Result<std::string> Get(Table table, std::string_view key) override {
    Value value;
    {
      std::shared_lock lock(mutex_);
      const Rows& rows = At(table);
      const auto it = rows.find(key);
      if (it != rows.end()) value = it->second;
    }
    if (value == nullptr) return NotFound("read memory store: no such key");
    return *value;
  }

  std::vector<Result<std::string>> MultiGet(Table table,
                                            const std::vector<std::string>& keys) override {
    std::vector<Result<std::string>> results;
    results.reserve(keys.size());
    for (const auto& key : keys) results.push_back(Get(table, key));
    return results;
  }

  Status Scan(Table table, std::string_view begin, std::string_view end,
              const std::function<bool(std::string_view, std::string_view)>& visit) override {
    std::vector<std::pair<std::string, Value>> seen;
    {
      std::shared_lock lock(mutex_);
      const Rows& rows = At(table);
      for (auto it = rows.lower_bound(begin); it != rows.end() && it->first < end; ++it)
        seen.push_back(*it);
    }
    for (const auto& [key, value] : seen) {
      if (!visit(key, *value)) break;
    }
    return OkStatus();
  }

  Status Reclaim(Table) override { return OkStatus(); }
  Status Compact() override { return OkStatus(); }

  Result<uint64_t> DiskBytes() override {
    std::shared_lock lock(mutex_);
    uint64_t bytes = 0;
    for (const Rows& rows : tables_) {
      for (const auto& [key, value] : rows) bytes += key.size() + value->size();
    }
    return bytes;
  }
  Result<uint64_t> TableBytes(Table table) override {
    std::shared_lock lock(mutex_);
    uint64_t bytes = 0;
    for (const auto& [key, value] : At(table)) bytes += key.size() + value->size();
    return bytes;
  }

 private:
  Rows& At(Table table) { return tables_[static_cast<int>(table)]; }

  std::shared_mutex mutex_;
  Rows tables_[kTableCount];  // guarded by mutex_
};

}  // namespace

std::unique_ptr<ColdStore> NewMemStore() { return std::make_unique<MemStore>(); }

}  // namespace longhold
