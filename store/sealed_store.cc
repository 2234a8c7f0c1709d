#include "store/sealed_store.h"

#include <utility>

#include "base/seal.h"

namespace longhold {
namespace {

// The encryption record, stored in kMeta and not sealed itself: a version byte, the salt, and a
// sealed text that tells whether a key is the right one. The text is the memory's name, or empty in
// version 1. The zero byte sorts this key before all others.
constexpr std::string_view kRecordKey{"\0seal", 5};
constexpr char kUnnamed = 1, kNamed = 2;
constexpr std::string_view kPurpose = "longhold store";
constexpr std::string_view kCheck = "key check", kNameCheck = "name of the memory";

// The context of a value is its table and key, so a value cannot be moved to another key.
std::string ContextOf(Table table, std::string_view key) {
  return std::string(1, static_cast<char>(table)) + std::string(key);
}

bool IsRecord(Table table, std::string_view key) {
  return table == Table::kMeta && key == kRecordKey;
}

class SealedStore final : public ColdStore {
 public:
  SealedStore(std::unique_ptr<ColdStore> base, Seal seal)
      : base_(std::move(base)), seal_(std::move(seal)) {}

  Status Write(WriteBatch batch, Durability durability) override {
    WriteBatch sealed;
    for (WriteBatch::Change& change : batch.changes()) {
      switch (change.kind) {
        case WriteBatch::Change::Kind::kPut: {
          LH_ASSIGN_OR_RETURN(std::string value,
                              seal_.Close(change.value, ContextOf(change.table, change.key)));
          sealed.Put(change.table, change.key, std::move(value));
          change.value = std::string();
          break;
        }
        case WriteBatch::Change::Kind::kDelete: sealed.Delete(change.table, change.key); break;
        // A range that includes the record's key must not delete the record.
        case WriteBatch::Change::Kind::kDeleteRange:
          if (change.table == Table::kMeta && change.key <= kRecordKey &&
              change.value > kRecordKey) {
            sealed.DeleteRange(change.table, change.key, kRecordKey);
            sealed.DeleteRange(change.table, std::string(kRecordKey) + '\0', change.value);
          } else {
            sealed.DeleteRange(change.table, change.key, change.value);
          }
          break;
      }
    }
    return base_->Write(std::move(sealed), durability);
  }
  Result<std::string> Get(Table table, std::string_view key) override {
    return Opened(table, key, base_->Get(table, key));
  }
  std::vector<Result<std::string>> MultiGet(Table table,
                                            const std::vector<std::string>& keys) override {
    std::vector<Result<std::string>> results = base_->MultiGet(table, keys);
    for (size_t i = 0; i < keys.size(); ++i)
      results[i] = Opened(table, keys[i], std::move(results[i]));
    return results;
  }
  Status Scan(
      Table table, std::string_view begin, std::string_view end,
      const std::function<bool(std::string_view key, std::string_view value)>& visit) override {
    Status damaged;
    LH_RETURN_IF_ERROR(
        base_->Scan(table, begin, end, [&](std::string_view key, std::string_view value) {
          if (IsRecord(table, key)) return true;
          const Result<std::string> plain = seal_.Open(value, ContextOf(table, key));
          if (plain.ok()) return visit(key, *plain);
          damaged = plain.status();
          return false;
        }));
    return damaged;
  }
  Status Reclaim(Table table) override { return base_->Reclaim(table); }
  Status Compact() override { return base_->Compact(); }
  Result<uint64_t> DiskBytes() override { return base_->DiskBytes(); }
  Result<uint64_t> TableBytes(Table table) override { return base_->TableBytes(table); }

 private:
  Result<std::string> Opened(Table table, std::string_view key, Result<std::string> value) const {
    if (IsRecord(table, key)) return NotFound("no such key");
    if (!value.ok()) return value;
    return seal_.Open(*value, ContextOf(table, key));
  }

  const std::unique_ptr<ColdStore> base_;
  const Seal seal_;
};

Result<bool> IsEmpty(ColdStore& store) {
  bool empty = true;
  for (int table = 0; table < kTableCount && empty; ++table) {
    LH_RETURN_IF_ERROR(
        store.Scan(static_cast<Table>(table), "", "\xff\xff\xff\xff\xff\xff\xff\xff\xff",
                   [&](std::string_view, std::string_view) { return empty = false; }));
  }
  return empty;
}

Status WriteRecord(ColdStore& base, std::string_view salt, const Seal& seal,
                   const std::string& name) {
  LH_ASSIGN_OR_RETURN(const std::string sealed_name, seal.Close(name, kNameCheck));
  WriteBatch batch;
  batch.Put(Table::kMeta, kRecordKey, std::string(1, kNamed) + std::string(salt) + sealed_name);
  return base.Write(std::move(batch), Durability::kSynced);
}

Status IsAnotherMemory(const std::string& was, const std::string& name) {
  return FailedPrecondition("it was sealed as memory " + was +
                            "; rename its directory back to that name, or use export and import to "
                            "make a memory " +
                            name);
}

}  // namespace

Result<OpenedStore> OpenSealed(std::unique_ptr<ColdStore> base, const SealedOptions& options) {
  const Result<std::string> record = base->Get(Table::kMeta, kRecordKey);
  if (!record.ok() && record.status().code() != StatusCode::kNotFound) return record.status();
  const auto sealed = [&](Seal seal) {
    return OpenedStore{std::make_unique<SealedStore>(std::move(base), std::move(seal)), true};
  };
  if (!record.ok()) {
    if (options.master.empty()) return OpenedStore{std::move(base), false};
    LH_ASSIGN_OR_RETURN(const bool empty, IsEmpty(*base));
    if (!empty) return OpenedStore{std::move(base), false};
    const std::string salt = RandomBytes(kSealSaltBytes);
    Seal seal = Seal::Derive(options.master, salt, kPurpose);
    LH_RETURN_IF_ERROR(WriteRecord(*base, salt, seal, options.name));
    return sealed(std::move(seal));
  }
  const std::string_view bytes = *record;
  if (bytes.size() < 1 + kSealSaltBytes + kSealExtraBytes)
    return DataLoss("its encryption record is damaged");
  if (bytes[0] != kUnnamed && bytes[0] != kNamed)
    return FailedPrecondition("it was encrypted by another version of longhold");
  if (options.master.empty())
    return FailedPrecondition("it is encrypted; give the key with --encryption-key FILE");
  const std::string_view salt = bytes.substr(1, kSealSaltBytes);
  Seal seal = Seal::Derive(options.master, salt, kPurpose);
  const Result<std::string> opened =
      seal.Open(bytes.substr(1 + kSealSaltBytes), bytes[0] == kNamed ? kNameCheck : kCheck);
  if (!opened.ok())
    return FailedPrecondition(
        "it is encrypted with another key, or its encryption record is damaged");
  if (bytes[0] == kNamed)
    return *opened == options.name ? Result<OpenedStore>(sealed(std::move(seal)))
                                   : IsAnotherMemory(*opened, options.name);

  ColdStore& beneath = *base;
  const Seal same = seal;
  OpenedStore unnamed = sealed(std::move(seal));
  const Result<std::string> inside = options.name_inside(*unnamed.store);
  if (!inside.ok() && inside.status().code() != StatusCode::kNotFound) return inside.status();
  if (inside.ok() && *inside != options.name) return IsAnotherMemory(*inside, options.name);
  if (!options.read_only) LH_RETURN_IF_ERROR(WriteRecord(beneath, salt, same, options.name));
  return unnamed;
}

}  // namespace longhold
