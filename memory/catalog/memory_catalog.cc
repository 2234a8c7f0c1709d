#include "memory/catalog/memory_catalog.h"

#include <algorithm>

#include "base/parallel.h"
#include "store/memory_name.h"
#include "store/sealed_store.h"

namespace longhold {
namespace {

// An import holds a value and a batch, each up to four times while they are written (ImportStore),
// beside the store's own buffers. With budget / 12 for a value, and at most as much for a batch,
// all of it stays within the budget.
constexpr uint64_t kImportValueShare = 12, kImportCopies = 4;

StoreMode ModeOf(MemoryCatalog::Access access) {
  switch (access) {
    case MemoryCatalog::Access::kRead: return StoreMode::kRead;
    case MemoryCatalog::Access::kAmend:
    case MemoryCatalog::Access::kWrite: return StoreMode::kWrite;
    case MemoryCatalog::Access::kCreate: return StoreMode::kCreate;
  }
  return StoreMode::kRead;
}

Status Named(const std::string& name, const Status& status) {
  return Status(status.code(), "memory " + name + ": " + status.message());
}

Status CheckCodec(std::string_view codec) {
  if (IsCodecName(codec)) return OkStatus();
  return InvalidArgument("codec " + std::string(codec) + ": unknown; choose one of " + CodecList());
}

}  // namespace

void NoteOtherHeads(const Memory& memory, const RecallProfile& profile, Notes* notes) {
  if (profile.heads.empty() || memory.HasHeadsOf(profile)) return;
  notes->Add("memory " + memory.name() +
             " was indexed for other recall heads than those of profile " + profile.name +
             "; 'longhold reindex " + memory.name() +
             "' brings them and does not read the text again");
}

MemoryCatalog::MemoryCatalog(StoreProvider* stores, MemoryBudget* budget, Notes* notes,
                             CatalogOptions options)
    : stores_(stores), budget_(budget), notes_(notes), options_(std::move(options)) {
  LH_CHECK(IsCodecName(options_.codec));
}
MemoryCatalog::~MemoryCatalog() = default;

void MemoryCatalog::UseModel(const ModelContext* model) {
  model_ = model;
  Close();
}

Status MemoryCatalog::UseCodec(std::string_view name) {
  LH_RETURN_IF_ERROR(CheckCodec(name));
  options_.codec = name;
  return OkStatus();
}

Status MemoryCatalog::Exists(const std::string& name) const {
  LH_RETURN_IF_ERROR(CheckMemoryName(name));
  const Status exists = stores_->Exists(name);
  if (exists.code() != StatusCode::kNotFound) return exists;
  return NotFound("memory " + name + ": not found in " + stores_->place() +
                  "; 'longhold list' shows the memories there are");
}

bool MemoryCatalog::Serves(const OpenMemory* open, const std::string& name, Access access,
                           Reader reader) const {
  if (open == nullptr || open->exclusive || open->name != name) return false;
  if (reader == Reader::kModel && !open->with_model) return false;
  if (open->writable) return !open->small_buffers || access <= Access::kAmend;
  return access == Access::kRead && open->stamp == stores_->Stamp(name);
}

Result<MemoryLease> MemoryCatalog::Lease(const std::string& name, Access access, Reader reader) {
  std::erase_if(leased_, [](const std::weak_ptr<OpenMemory>& open) { return open.expired(); });
  if (access != Access::kRead) {
    for (const std::weak_ptr<OpenMemory>& weak : leased_) {
      const std::shared_ptr<OpenMemory> open = weak.lock();
      if (open->leases > 0 && open->name == name && open->writable) {
        return Unavailable("memory " + name +
                           ": is in use by another answer; write to it in a while");
      }
    }
  }
  if (!Serves(last_.get(), name, access, reader)) {
    last_.reset();
    for (const std::weak_ptr<OpenMemory>& weak : leased_) {
      const std::shared_ptr<OpenMemory> open = weak.lock();
      if (Serves(open.get(), name, access, reader)) last_ = open;
    }
  }
  if (last_ == nullptr) {
    LH_ASSIGN_OR_RETURN(last_, OpenAnew(name, access, reader, ""));
    leased_.push_back(last_);
    ++opens_;
  }
  return MemoryLease(last_);
}

Result<MemoryLease> MemoryCatalog::LeaseToShow(const std::string& name) {
  if (Serves(last_.get(), name, Access::kRead, Reader::kNone)) return MemoryLease(last_);
  Result<std::shared_ptr<OpenMemory>> opened = OpenAnew(name, Access::kRead, Reader::kNone, "");
  if (opened.status().code() == StatusCode::kResourceExhausted) {
    Close();  // there is no room for both
    opened = OpenAnew(name, Access::kRead, Reader::kNone, "");
  }
  if (!opened.ok()) return opened.status();
  return MemoryLease(std::move(*opened));
}

Result<std::unique_ptr<ColdStore>> MemoryCatalog::Unseal(std::unique_ptr<ColdStore> store,
                                                         const std::string& name, bool read_only) {
  Result<OpenedStore> opened = OpenSealed(std::move(store), {.master = options_.encryption_key,
                                                             .name = name,
                                                             .read_only = read_only,
                                                             .name_inside = Memory::NameInside});
  if (!opened.ok()) return Named(name, opened.status());
  if (!opened->sealed && !options_.encryption_key.empty()) {
    notes_->Add("memory " + name +
                " was made without encryption and stays so; export it, and import it under "
                "another name, to have it encrypted");
  }
  return std::move(opened->store);
}

Result<std::shared_ptr<OpenMemory>> MemoryCatalog::OpenAnew(const std::string& name, Access access,
                                                            Reader reader,
                                                            const std::string& codec) {
  const Status exists = Exists(name);
  if (!exists.ok() && (exists.code() != StatusCode::kNotFound || access != Access::kCreate))
    return exists;
  const StoreMode mode = ModeOf(access);
  auto open = std::make_shared<OpenMemory>();
  if (mode == StoreMode::kRead) open->stamp = stores_->Stamp(name);
  open->small_buffers = access == Access::kAmend;
  const uint64_t store_budget = budget_->limit_bytes() / (open->small_buffers ? 8 : 1);
  LH_ASSIGN_OR_RETURN(open->store_memory, budget_->Reserve(stores_->RamBytes(mode, store_budget),
                                                           "the store of memory " + name));
  LH_ASSIGN_OR_RETURN(std::unique_ptr<ColdStore> plain, stores_->Open(name, mode, store_budget));
  LH_ASSIGN_OR_RETURN(std::unique_ptr<ColdStore> store,
                      Unseal(std::move(plain), name, mode == StoreMode::kRead));
  open->name = name;
  open->writable = mode != StoreMode::kRead;
  open->with_model = reader == Reader::kModel;
  const ModelInfo* info = open->with_model ? &model_->info() : nullptr;
  if (!Memory::Exists(*store) && access == Access::kCreate) {
    LH_ASSIGN_OR_RETURN(open->memory, Memory::Create(std::move(store), name, *info, model_->profile,
                                                     codec.empty() ? options_.codec : codec));
  } else {
    LH_ASSIGN_OR_RETURN(open->memory, Memory::Open(std::move(store), name, info));
  }
  LH_RETURN_IF_ERROR(open->memory->UseBudget(budget_));
  if (open->with_model) {
    open->memory->UseVocabulary(model_->vocabulary.get());
    open->memory->UseEmbedder(model_->embedder);
  }
  return open;
}

Status MemoryCatalog::Create(const std::string& name, const std::string& codec) {
  LH_CHECK(model_ != nullptr);
  if (!codec.empty()) LH_RETURN_IF_ERROR(CheckCodec(codec));
  const Status exists = Exists(name);
  if (exists.ok()) return AlreadyExists("memory " + name + ": is there already");
  if (exists.code() != StatusCode::kNotFound) return exists;
  Close();
  return OpenAnew(name, Access::kCreate, Reader::kModel, codec).status();
}

Result<MemoryInfo> MemoryCatalog::Show(const std::string& name) {
  LH_ASSIGN_OR_RETURN(const MemoryLease memory, LeaseToShow(name));
  MemoryInfo info;
  info.name = name;
  info.model = memory->manifest().model_name;
  info.model_fingerprint = memory->manifest().model_fingerprint;
  info.codec = memory->manifest().codec;
  for (const DocumentRecord& d : memory->documents()) {
    info.documents.push_back({d.id, d.name, d.aliases, d.bytes, d.tokens, d.searchable_tokens,
                              d.committed_tokens, d.version});
  }
  info.tokens = memory->searchable_tokens();
  info.tokens_read = memory->committed_tokens();
  LH_ASSIGN_OR_RETURN(info.disk_bytes, memory->store().DiskBytes());
  return info;
}

Result<TierReport> MemoryCatalog::Tiers(const std::string& name) {
  LH_ASSIGN_OR_RETURN(const MemoryLease memory, LeaseToShow(name));
  TierReport report;
  report.tokens = memory->committed_tokens();
  report.exact_bytes =
      report.tokens * memory->block_shape().Elements() / kBlockTokens * sizeof(uint16_t);
  report.open = memory.open_ == last_;
  report.ram_index_bytes = memory->index_bytes();
  report.codec = memory->manifest().codec;
  ColdStore& store = memory->store();
  LH_ASSIGN_OR_RETURN(report.blocks_bytes, store.TableBytes(Table::kBlocks));
  LH_ASSIGN_OR_RETURN(report.index_bytes, store.TableBytes(Table::kIndex));
  LH_ASSIGN_OR_RETURN(report.text_bytes, store.TableBytes(Table::kText));
  LH_ASSIGN_OR_RETURN(const uint64_t disk_bytes, store.DiskBytes());
  report.other_bytes = disk_bytes - std::min(disk_bytes, report.blocks_bytes + report.index_bytes +
                                                             report.text_bytes);
  return report;
}

Result<std::vector<MemoryInfo>> MemoryCatalog::List(const std::string& tenant) {
  std::vector<MemoryInfo> list;
  LH_RETURN_IF_ERROR(ListInto(tenant, &list));
  if (!tenant.empty()) return list;
  for (const std::string& one : stores_->Tenants()) LH_RETURN_IF_ERROR(ListInto(one, &list));
  return list;
}

Status MemoryCatalog::ListInto(const std::string& tenant, std::vector<MemoryInfo>* list) {
  LH_ASSIGN_OR_RETURN(const std::vector<std::string> names, stores_->List(tenant));
  for (const std::string& name : names) {
    Result<MemoryInfo> info = Show(name);
    if (info.ok()) {
      list->push_back(std::move(*info));
    } else if (info.status().code() != StatusCode::kNotFound) {
      MemoryInfo damaged;
      damaged.name = name;
      damaged.status = info.status();
      damaged.disk_bytes = stores_->DiskBytes(name);
      list->push_back(std::move(damaged));
    }
  }
  return OkStatus();
}

uint64_t MemoryCatalog::DiskBytes(const std::string& tenant, const std::string& except) const {
  uint64_t bytes = 0;
  const Result<std::vector<std::string>> names = stores_->List(tenant);
  if (!names.ok()) return 0;
  for (const std::string& name : *names) {
    if (name != except) bytes += stores_->DiskBytes(name);
  }
  return bytes;
}

Status MemoryCatalog::Forget(const std::string& name, const std::string& document, bool compact) {
  if (document.empty()) {
    // Nothing of it is decoded: what is damaged, or another model's, can go as well.
    LH_RETURN_IF_ERROR(Exists(name));
    Close();
    const Status removed = stores_->Remove(name);
    return removed.ok() ? removed : Named(name, removed);
  }
  LH_ASSIGN_OR_RETURN(const MemoryLease memory, Lease(name, Access::kWrite, Reader::kNone));
  bool found = false;
  for (const DocumentRecord* d = memory->Find(document); d != nullptr; d = memory->Find(document)) {
    found = true;
    const DocumentId id = d->id;
    LH_RETURN_IF_ERROR(memory->Forget(id, document));
    for (const DocumentRecord& kept : memory->documents()) {
      if (kept.id == id) notes_->Add("memory " + name + ": the text stays, as " + kept.name);
    }
  }
  if (!found) {
    return NotFound("memory " + name + ": has no document " + document + "; 'longhold show " +
                    name + "' lists them");
  }
  return compact ? memory->store().Compact() : OkStatus();
}

Status MemoryCatalog::Compact(const std::string& name) {
  LH_ASSIGN_OR_RETURN(const MemoryLease memory, Lease(name, Access::kWrite, Reader::kNone));
  LH_RETURN_IF_ERROR(memory->BuildLists(ThreadsFor));
  return memory->store().Compact();
}

Result<RecodeReport> MemoryCatalog::Recode(
    const std::string& name, std::string_view codec, const std::atomic<bool>* stop,
    const std::function<void(uint64_t done, uint64_t total)>& on_progress) {
  LH_RETURN_IF_ERROR(CheckCodec(codec));
  LH_ASSIGN_OR_RETURN(const MemoryLease memory, Lease(name, Access::kWrite, Reader::kNone));
  return memory->Recode(codec, ThreadsFor, stop, [&](uint64_t done, uint64_t total) {
    if (on_progress) on_progress(done, total);
  });
}

Status MemoryCatalog::Verify(const std::string& name) {
  LH_ASSIGN_OR_RETURN(const MemoryLease memory, Lease(name, Access::kRead, Reader::kNone));
  return memory->Verify();
}

Result<std::unique_ptr<MemoryExport>> MemoryCatalog::OpenExport(const std::string& name) {
  LH_ASSIGN_OR_RETURN(MemoryLease memory, Lease(name, Access::kRead, Reader::kNone));
  // Whose it is stays here.
  return std::make_unique<MemoryExport>(std::move(memory), SplitMemoryName(name).name);
}

Result<TransferReport> MemoryCatalog::Export(const std::string& name, const ByteSink& sink) {
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<MemoryExport> stream, OpenExport(name));
  for (;;) {
    const Result<std::string> bytes = stream->Next();
    if (bytes.status().code() == StatusCode::kDataLoss) return Named(name, bytes.status());
    if (!bytes.ok()) return bytes.status();
    if (bytes->empty()) return stream->report();
    LH_RETURN_IF_ERROR(sink(*bytes));
  }
}

Result<TransferReport> MemoryCatalog::Import(const ByteSource& source, const std::string& name,
                                             const ImportLimits& limits) {
  LH_ASSIGN_OR_RETURN(const std::string exported, ReadExportName(source));
  const std::string own = name.empty() ? exported : name;
  LH_RETURN_IF_ERROR(CheckMemoryName(own));
  const Status exists = Exists(own);
  if (exists.ok()) {
    return AlreadyExists("memory " + own +
                         ": is there already; import under another name with --into, or forget it "
                         "first");
  }
  if (exists.code() != StatusCode::kNotFound) return exists;
  Close();
  const uint64_t value_bytes_max = budget_->limit_bytes() / kImportValueShare;
  const ImportRules rules = RulesOf(limits, value_bytes_max);
  LH_ASSIGN_OR_RETURN(
      const MemoryReservation reserved,
      budget_->Reserve(stores_->RamBytes(StoreMode::kCreate, budget_->limit_bytes()) +
                           kImportCopies * (value_bytes_max + rules.batch_bytes),
                       "importing memory " + own));
  TransferReport report;
  const Status imported = [&]() -> Status {
    LH_ASSIGN_OR_RETURN(std::unique_ptr<ColdStore> plain,
                        stores_->Stage(own, budget_->limit_bytes()));
    LH_ASSIGN_OR_RETURN(std::unique_ptr<ColdStore> store, Unseal(std::move(plain), own, false));
    LH_ASSIGN_OR_RETURN(report, ImportStore(source, *store, rules));
    LH_ASSIGN_OR_RETURN(const std::unique_ptr<Memory> memory,
                        Memory::Open(std::move(store), own, nullptr));
    if (limits.model != nullptr &&
        memory->manifest().model_fingerprint == limits.model->fingerprint)
      LH_RETURN_IF_ERROR(memory->CheckModel(*limits.model));
    return memory->Rename(own);
  }();
  if (!imported.ok()) {
    stores_->Discard(own);
    return imported;
  }
  if (report.left_out > 0) {
    notes_->Add("memory " + own + ": " + std::to_string(report.left_out) +
                " resume states and lists were left out; a text that was not read to its end is "
                "read anew, and 'longhold reindex " +
                own + "' makes lists again");
  }
  const Status published = stores_->Publish(own);
  if (!published.ok()) return Named(own, published);
  report.name = own;
  return report;
}

}  // namespace longhold
