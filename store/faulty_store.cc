#include "store/faulty_store.h"

#include <atomic>
#include <utility>

namespace longhold {
namespace {

// The output function of SplitMix64: maps a counter to a well-mixed number.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

class FaultyStore final : public ColdStore {
 public:
  FaultyStore(ColdStore* base, const FaultPlan& plan) : base_(*base), plan_(plan) {}

  Status Write(WriteBatch batch, Durability durability) override {
    const uint64_t n = ++writes_;
    if (plan_.fail_write_after != 0 && n >= plan_.fail_write_after) {
      return ResourceExhausted("write " + std::to_string(n) +
                               ": injected: no space left on device");
    }
    return base_.Write(std::move(batch), durability);
  }

  Result<std::string> Get(Table table, std::string_view key) override {
    return Break(table, base_.Get(table, key));
  }

  std::vector<Result<std::string>> MultiGet(Table table,
                                            const std::vector<std::string>& keys) override {
    std::vector<Result<std::string>> results = base_.MultiGet(table, keys);
    for (auto& result : results) result = Break(table, std::move(result));
    return results;
  }

  Status Scan(Table table, std::string_view begin, std::string_view end,
              const std::function<bool(std::string_view, std::string_view)>& visit) override {
    return base_.Scan(table, begin, end, visit);
  }
  Status Reclaim(Table table) override { return base_.Reclaim(table); }
  Status Compact() override { return base_.Compact(); }
  Result<uint64_t> TableBytes(Table table) override { return base_.TableBytes(table); }
  Result<uint64_t> DiskBytes() override { return base_.DiskBytes(); }

 private:
  Result<std::string> Break(Table table, Result<std::string> result) {
    const uint64_t n = ++gets_;
    if (plan_.fail_get_after != 0 && n >= plan_.fail_get_after) {
      return DataLoss("read " + std::to_string(n) + ": injected: bytes are corrupt");
    }
    if (plan_.corrupt_get_every == 0 || table != Table::kBlocks || !result.ok() || result->empty())
      return result;
    const uint64_t value_count = ++block_values_;
    if (value_count % plan_.corrupt_get_every != 0) return result;
    const uint64_t bit = Mix(plan_.seed ^ Mix(value_count)) % (result->size() * 8);
    (*result)[bit / 8] = static_cast<char>((*result)[bit / 8] ^ (1 << bit % 8));
    return result;
  }

  ColdStore& base_;
  const FaultPlan plan_;
  std::atomic<uint64_t> writes_{0};
  std::atomic<uint64_t> gets_{0};
  std::atomic<uint64_t> block_values_{0};
};

}  // namespace

std::unique_ptr<ColdStore> NewFaultyStore(ColdStore* base, const FaultPlan& plan) {
  return std::make_unique<FaultyStore>(base, plan);
}

}  // namespace longhold
