#include "memory/engine.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "base/durable_file.h"
#include "base/parallel.h"
#include "base/text.h"
#include "memory/engine_planned.h"
#include "memory/ingest/ingest.h"
#include "store/rocks_store.h"
#include "store/sealed_store.h"

namespace longhold {

namespace {

namespace fs = std::filesystem;

// A small budget gives the store less to gather before it writes, which makes more and smaller
// files.
RocksOptions StoreOptions(const std::string& path, uint64_t budget_bytes) {
  RocksOptions rocks;
  rocks.path = path;
  rocks.cache_bytes = std::min(rocks.cache_bytes, budget_bytes / 32);
  rocks.write_buffers_bytes_max = std::min(rocks.write_buffers_bytes_max, budget_bytes / 8);
  rocks.write_buffer_bytes = std::min(rocks.write_buffer_bytes, rocks.write_buffers_bytes_max / 3);
  return rocks;
}

// Changes when another process writes to the store: its files by name, size and time.
std::string StampOf(const std::string& path) {
  std::vector<std::string> files;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(path, ec)) {
    std::error_code gone;
    const uintmax_t size = entry.file_size(gone);
    const auto time = entry.last_write_time(gone).time_since_epoch().count();
    files.push_back(entry.path().filename().string() + " " + std::to_string(size) + " " +
                    std::to_string(time) + "\n");
  }
  std::sort(files.begin(), files.end());
  std::string stamp;
  for (const std::string& file : files) stamp += file;
  return stamp;
}

// Of the files in a directory.
uint64_t FileBytes(const fs::path& directory) {
  uint64_t bytes = 0;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(directory, ec)) {
    std::error_code gone;  // files come and go
    const uintmax_t size = entry.file_size(gone);
    if (!gone) bytes += size;
  }
  return bytes;
}

// An import holds a value and a batch, each up to four times while they are written (ImportStore),
// beside the store's own buffers: at budget / 12 for a value, and as much for a batch at most, all
// of it stays within the budget.
constexpr uint64_t kImportValueShare = 12, kImportCopies = 4;

// RAM of an open store.
uint64_t StoreBytes(const RocksOptions& rocks) {
  return rocks.cache_bytes + (rocks.read_only ? 0 : rocks.write_buffers_bytes_max);
}

}  // namespace

struct Engine::OpenMemory {
  std::string name;
  bool writable = false;
  bool with_model = false;
  // by an ingest that lets others have the model: nobody else may use it
  bool being_written = false;
  // of its files before it was opened for reading, which sees them as they were then
  std::string stamp;
  MemoryReservation store_memory;
  std::unique_ptr<Memory> memory;
};

Engine::Engine(EngineOptions options)
    : options_(std::move(options)), budget_(options_.memory_budget_bytes) {
  LH_CHECK(IsCodecName(options_.codec));
}
Engine::~Engine() = default;

Status Engine::UseModel(LanguageModel* model, const RecallProfile* profile) {
  const ModelInfo& info = model->info();
  auto used =
      std::make_unique<RecallProfile>(profile == nullptr ? RecallProfile::For(info) : *profile);
  for (const RecallHead& head : used->heads) {
    const auto& layers = info.geometry.layers;
    if (std::find(layers.begin(), layers.end(), head.layer) == layers.end() ||
        head.kv_head >= info.geometry.kv_heads) {
      return InvalidArgument("recall profile " + used->name + ": layer " +
                             std::to_string(head.layer) + " head " + std::to_string(head.kv_head) +
                             " is not an attention head that longhold serves in " + info.name);
    }
  }
  model_memory_.Release();
  LH_ASSIGN_OR_RETURN(model_memory_,
                      budget_.Reserve(info.buffer_bytes, "the buffers of model " + info.name));
  model_ = model;
  open_.reset();
  profile_ = std::move(used);
  vocabulary_ = std::make_unique<const LexicalVocabulary>(TokenPieces(*model));
  related_.reset();
  if (info.embedding_width > 0) {
    related_ = std::make_unique<const QueryExpansion>(
        *vocabulary_, info.embedding_width,
        [model](std::span<const TokenId> tokens, float* out) { model->Embed(tokens, out); });
  }
  return OkStatus();
}

Status Engine::UseCodec(std::string_view name) {
  if (!IsCodecName(name)) {
    return InvalidArgument("codec " + std::string(name) + ": unknown; choose one of " +
                           CodecList());
  }
  options_.codec = name;
  codec_chosen_ = true;
  return OkStatus();
}

const ModelInfo& Engine::model_info() const {
  LH_CHECK(model_ != nullptr);
  return model_->info();
}

const RecallProfile& Engine::profile() const {
  LH_CHECK(profile_ != nullptr);
  return *profile_;
}

Status Engine::CheckName(std::string_view name) {
  const size_t slash = name.find('/');
  const auto good = [](std::string_view part) {
    return !part.empty() && part.size() <= 64 && part[0] != '.' && part[0] != '-' &&
           std::all_of(part.begin(), part.end(), IsNameByte);
  };
  if (slash == std::string_view::npos ? good(name)
                                      : good(name.substr(0, slash)) && good(name.substr(slash + 1)))
    return OkStatus();
  return InvalidArgument("memory name \"" + std::string(name) +
                         "\": use 1 to 64 letters, digits, dots, dashes or underscores, starting "
                         "with a letter or digit");
}

std::pair<std::string, std::string> Engine::SplitName(const std::string& memory) {
  const size_t slash = memory.find('/');
  if (slash == std::string::npos) return {"", memory};
  return {memory.substr(0, slash), memory.substr(slash + 1)};
}

std::string Engine::PathOf(const std::string& memory) const {
  const auto [tenant, name] = SplitName(memory);
  return (fs::path(DirectoryOf(tenant)) / name).string();
}

std::string Engine::DirectoryOf(const std::string& tenant) const {
  const fs::path home(options_.home);
  return ((tenant.empty() ? home : home / "tenants" / tenant) / "memories").string();
}

void Engine::Note(const std::string& note) {
  if (told_.insert(note).second) notes_.push_back(note);
}

std::vector<std::string> Engine::TakeNotes() { return std::exchange(notes_, {}); }

Status Engine::Exists(const std::string& name) {
  LH_RETURN_IF_ERROR(CheckName(name));
  std::error_code ec;
  const bool exists = fs::exists(PathOf(name), ec);
  if (ec) {
    return InvalidArgument("home " + options_.home + ": cannot be read (" + ec.message() +
                           "); check its permissions, or choose another with --home");
  }
  if (exists) return OkStatus();
  return NotFound("memory " + name + ": not found in " + options_.home +
                  "; 'longhold list' shows the memories there are");
}

Result<Memory*> Engine::Open(const std::string& name, Access access, bool with_model) {
  if (access != Access::kRead) {
    for (const std::weak_ptr<OpenMemory>& lent : lent_) {
      const std::shared_ptr<OpenMemory> other = lent.lock();
      const bool in_use = other != nullptr && other.use_count() > (other == open_ ? 2 : 1);
      if (in_use && other->name == name && other->writable)
        return Unavailable("memory " + name +
                           ": is in use by another answer; write to it in a while");
    }
  }
  if (IsOpen(open_.get(), name, access, with_model)) return open_->memory.get();
  open_.reset();
  for (const std::weak_ptr<OpenMemory>& lent : lent_) {
    const std::shared_ptr<OpenMemory> other = lent.lock();
    if (IsOpen(other.get(), name, access, with_model)) open_ = other;
  }
  if (open_ == nullptr) {
    LH_ASSIGN_OR_RETURN(open_, OpenAnew(name, access, with_model));
    ++opens_;
  }
  return open_->memory.get();
}

std::shared_ptr<Engine::OpenMemory> Engine::Lend() {
  std::erase_if(lent_, [&](const std::weak_ptr<OpenMemory>& lent) {
    return lent.expired() || lent.lock() == open_;
  });
  lent_.push_back(open_);
  return open_;
}

bool Engine::IsOpen(const OpenMemory* open, const std::string& name, Access access,
                    bool with_model) const {
  if (open == nullptr || open->being_written || open->name != name ||
      (with_model && !open->with_model))
    return false;
  return open->writable || (access == Access::kRead && open->stamp == StampOf(PathOf(name)));
}

bool Engine::HasRoomForAnother() const {
  const KvGeometry& geometry = model_->info().geometry;
  const uint64_t spans =
      uint64_t{profile_->spans_max} + profile_->hop_spans + profile_->generation_spans;
  const uint64_t stored = spans * SpanTokensMax(*profile_),
                 passed = 2 * kAnswerTokensMin + profile_->reencode_tokens;
  const uint64_t blocks = spans * 2 + stored / kBlockTokens;  // a span begins and ends within one
  const BlockShape shape{static_cast<uint32_t>(geometry.layers.size()), geometry.kv_width()};
  return budget_.RoomFor(1, WorkingSet::Bytes(geometry, passed, stored) +
                                blocks * shape.Elements() * sizeof(uint16_t)) == 1;
}

Result<std::unique_ptr<ColdStore>> Engine::OpenStore(const RocksOptions& rocks,
                                                     const std::string& name) {
  LH_ASSIGN_OR_RETURN(std::unique_ptr<ColdStore> plain, OpenRocksStore(rocks));
  Result<OpenedStore> opened = OpenSealed(std::move(plain), {.master = options_.encryption_key,
                                                             .name = name,
                                                             .read_only = rocks.read_only,
                                                             .name_inside = Memory::NameInside});
  if (!opened.ok())
    return Status(opened.status().code(), "memory " + name + ": " + opened.status().message());
  if (!opened->sealed && !options_.encryption_key.empty()) {
    Note("memory " + name +
         " was made without encryption and stays so; export it, and import it under another name, "
         "to have it encrypted");
  }
  return std::move(opened->store);
}

Result<std::shared_ptr<Engine::OpenMemory>> Engine::OpenAnew(const std::string& name, Access access,
                                                             bool with_model) {
  LH_RETURN_IF_ERROR(CheckName(name));
  const bool write = access != Access::kRead;
  const fs::path path = PathOf(name);
  const Status exists = Exists(name);
  if (!exists.ok() && (exists.code() != StatusCode::kNotFound || access != Access::kCreate))
    return exists;
  if (!exists.ok()) LH_RETURN_IF_ERROR(MakeMemoriesDirectory(name));
  RocksOptions rocks = StoreOptions(path.string(), options_.memory_budget_bytes);
  rocks.read_only = !write;
  rocks.create_if_missing = access == Access::kCreate;
  auto open = std::make_shared<OpenMemory>();
  if (!write) open->stamp = StampOf(path.string());
  LH_ASSIGN_OR_RETURN(open->store_memory,
                      budget_.Reserve(StoreBytes(rocks), "the store of memory " + name));
  LH_ASSIGN_OR_RETURN(std::unique_ptr<ColdStore> store, OpenStore(rocks, name));
  open->name = name;
  open->writable = write;
  open->with_model = with_model;
  const ModelInfo* info = with_model ? &model_->info() : nullptr;
  if (!Memory::Exists(*store) && access == Access::kCreate) {
    LH_ASSIGN_OR_RETURN(open->memory,
                        Memory::Create(std::move(store), name, *info, *profile_, options_.codec));
  } else {
    LH_ASSIGN_OR_RETURN(open->memory, Memory::Open(std::move(store), name, info));
  }
  LH_RETURN_IF_ERROR(open->memory->UseBudget(&budget_));
  if (with_model) {
    open->memory->UseVocabulary(vocabulary_.get());
    if (!profile_->heads.empty() && !open->memory->HasHeadsOf(*profile_)) {
      Note("memory " + name + " was indexed for other recall heads than those of profile " +
           profile_->name + "; 'longhold reindex " + name +
           "' brings them and does not read the text again");
    }
  }
  return open;
}

void Engine::CloseMemory() { open_.reset(); }

Result<IngestReport> Engine::Ingest(const std::string& memory_name, const IngestInput& input,
                                    const std::atomic<bool>* stop,
                                    const std::function<void(const IngestProgress&)>& on_progress) {
  LH_CHECK(model_ != nullptr);
  if (input.text.empty())
    return InvalidArgument(input.name + ": is empty; there is nothing to remember");
  LH_ASSIGN_OR_RETURN(Memory * memory, Open(memory_name, Access::kCreate, true));
  if (codec_chosen_ && memory->manifest().codec != options_.codec) {
    Note("memory " + memory_name + ": has codec " + memory->manifest().codec +
         " and keeps it; 'longhold compact " + memory_name + " --codec " + options_.codec +
         "' changes it");
  }
  const HotWindowOptions window{memory->manifest().sink_tokens, memory->manifest().window_tokens,
                                model_->batch_tokens()};
  LH_ASSIGN_OR_RETURN(
      const MemoryReservation reading,
      budget_.Reserve(IngestBytes(model_->info().geometry, window, input.text.size()),
                      "reading " + input.name));
  struct Writing {
    explicit Writing(std::shared_ptr<OpenMemory> held) : open(std::move(held)) {
      open->being_written = true;
    }
    ~Writing() { open->being_written = false; }
    const std::shared_ptr<OpenMemory> open;
  } writing(Lend());
  return IngestDocument(*model_, *memory, *vocabulary_, input, stop, on_progress);
}

Result<std::shared_ptr<Engine::OpenMemory>> Engine::OpenToShow(const std::string& name) {
  if (IsOpen(open_.get(), name, Access::kRead, false)) return open_;
  Result<std::shared_ptr<OpenMemory>> opened = OpenAnew(name, Access::kRead, false);
  if (opened.status().code() != StatusCode::kResourceExhausted) return opened;
  open_.reset();  // there is no room for both
  return OpenAnew(name, Access::kRead, false);
}

Result<TierReport> Engine::Tiers(const std::string& name) {
  LH_ASSIGN_OR_RETURN(const std::shared_ptr<OpenMemory> open, OpenToShow(name));
  Memory& memory = *open->memory;
  TierReport report;
  report.tokens = memory.committed_tokens();
  report.exact_bytes =
      report.tokens * memory.block_shape().Elements() / kBlockTokens * sizeof(uint16_t);
  report.open = open == open_;
  report.ram_index_bytes = memory.index_bytes();
  report.codec = memory.manifest().codec;
  LH_ASSIGN_OR_RETURN(report.blocks_bytes, memory.store().TableBytes(Table::kBlocks));
  LH_ASSIGN_OR_RETURN(report.index_bytes, memory.store().TableBytes(Table::kIndex));
  LH_ASSIGN_OR_RETURN(report.text_bytes, memory.store().TableBytes(Table::kText));
  LH_ASSIGN_OR_RETURN(const uint64_t disk_bytes, memory.store().DiskBytes());
  report.other_bytes = disk_bytes - std::min(disk_bytes, report.blocks_bytes + report.index_bytes +
                                                             report.text_bytes);
  return report;
}

Status Engine::Create(const std::string& name, const std::string& codec) {
  LH_CHECK(model_ != nullptr);
  if (!codec.empty() && !IsCodecName(codec))
    return InvalidArgument("codec " + codec + ": unknown; choose one of " + CodecList());
  const Status exists = Exists(name);
  if (exists.ok()) return AlreadyExists("memory " + name + ": is there already");
  if (exists.code() != StatusCode::kNotFound) return exists;
  const std::string usual = options_.codec;
  if (!codec.empty()) options_.codec = codec;
  const Status made = Open(name, Access::kCreate, true).status();
  options_.codec = usual;
  CloseMemory();
  return made;
}

Result<MemoryInfo> Engine::Show(const std::string& name) {
  LH_ASSIGN_OR_RETURN(const std::shared_ptr<OpenMemory> open, OpenToShow(name));
  Memory* const memory = open->memory.get();
  MemoryInfo info;
  info.name = name;
  info.model = memory->manifest().model_name;
  info.model_fingerprint = memory->manifest().model_fingerprint;
  info.codec = memory->manifest().codec;
  for (const DocumentRecord& d : memory->documents()) {
    info.documents.push_back(
        {d.id, d.name, d.aliases, d.bytes, d.tokens, d.committed_tokens, d.version});
  }
  info.tokens = memory->committed_tokens();
  LH_ASSIGN_OR_RETURN(info.disk_bytes, memory->store().DiskBytes());
  return info;
}

Result<std::vector<MemoryInfo>> Engine::List(const std::string& tenant) {
  std::vector<MemoryInfo> list;
  LH_RETURN_IF_ERROR(ListOf(tenant, &list));
  if (!tenant.empty()) return list;
  std::vector<std::string> tenants;
  std::error_code ec;  // without that directory there are none
  for (const auto& entry : fs::directory_iterator(fs::path(options_.home) / "tenants", ec))
    tenants.push_back(entry.path().filename().string());
  std::sort(tenants.begin(), tenants.end());
  for (const std::string& one : tenants) LH_RETURN_IF_ERROR(ListOf(one, &list));
  return list;
}

Status Engine::ListOf(const std::string& tenant, std::vector<MemoryInfo>* list) {
  std::vector<std::string> names;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(DirectoryOf(tenant), ec)) {
    const std::string name =
        (tenant.empty() ? "" : tenant + "/") + entry.path().filename().string();
    if (entry.is_directory() && CheckName(name).ok()) names.push_back(name);
  }
  if (ec && ec != std::errc::no_such_file_or_directory && ec != std::errc::not_a_directory) {
    return InvalidArgument("home " + options_.home + ": cannot be read (" + ec.message() +
                           "); choose another with --home");
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    Result<MemoryInfo> info = Show(name);
    if (info.ok()) {
      list->push_back(std::move(*info));
    } else if (info.status().code() != StatusCode::kNotFound) {
      MemoryInfo damaged;
      damaged.name = name;
      damaged.status = info.status();
      damaged.disk_bytes = FileBytes(PathOf(name));
      list->push_back(std::move(damaged));
    }
  }
  return OkStatus();
}

uint64_t Engine::DiskBytes(const std::string& tenant, const std::string& but_for) const {
  uint64_t bytes = 0;
  std::error_code ec;
  for (const auto& memory : fs::directory_iterator(DirectoryOf(tenant), ec)) {
    if (but_for.empty() || memory.path() != fs::path(PathOf(but_for)))
      bytes += FileBytes(memory.path());
  }
  return bytes;
}

Result<ReindexReport> Engine::Reindex(
    const std::string& name, const std::atomic<bool>* stop,
    const std::function<void(const IngestProgress&)>& on_progress) {
  LH_CHECK(model_ != nullptr);
  const EngineClock::time_point start = EngineClock::now();
  const size_t notes = notes_.size();
  LH_ASSIGN_OR_RETURN(Memory * memory, Open(name, Access::kWrite, true));
  notes_.resize(notes);  // what Open has to say is what this call is for
  ReindexReport report;
  report.other_heads = !memory->HasHeadsOf(*profile_);
  LH_ASSIGN_OR_RETURN(
      const IndexReport index,
      memory->Reindex(*profile_, WorkersOf(*model_), stop, [&](uint64_t done, uint64_t total) {
        const double seconds = Milliseconds(start, EngineClock::now()) / 1000;
        if (on_progress)
          on_progress({name, done, total, seconds > 0 ? static_cast<double>(done) / seconds : 0});
      }));
  LH_RETURN_IF_ERROR(memory->BuildLists(WorkersOf(*model_)));
  for (const DocumentRecord& d : memory->documents()) {
    for (uint32_t n = 0; uint64_t{n} * kCommitTokens < d.committed_tokens; ++n) {
      if (stop != nullptr && stop->load())
        return Cancelled("reindexing of memory " + name +
                         ": stopped; faithful attention will have to read its blocks");
      uint64_t lost = 0;  // told of the index already
      LH_RETURN_IF_ERROR(
          memory->SummariesOf(d.id, n, model_->info().geometry, WorkersOf(*model_), &lost)
              .status());
    }
  }
  report.tokens = memory->committed_tokens();
  report.segments = index.segments;
  report.segments_rebuilt = index.segments_rebuilt;
  report.segments_lost = index.segments_lost;
  report.blocks_lost = index.blocks_lost;
  report.seconds = Milliseconds(start, EngineClock::now()) / 1000;
  return report;
}

Status Engine::Forget(const std::string& name, const std::string& document, bool compact) {
  if (document.empty()) {
    // Nothing of it is decoded: what is damaged, or another model's, can go as well.
    LH_RETURN_IF_ERROR(Exists(name));
    open_.reset();
    const Status removed = RemoveRocksStore(PathOf(name));
    return removed.ok() ? removed
                        : Status(removed.code(), "memory " + name + ": " + removed.message());
  }
  LH_ASSIGN_OR_RETURN(Memory * memory, Open(name, Access::kWrite, false));
  bool found = false;
  for (const DocumentRecord* d = memory->Find(document); d != nullptr; d = memory->Find(document)) {
    found = true;
    const DocumentId id = d->id;
    LH_RETURN_IF_ERROR(memory->Forget(id, document));
    for (const DocumentRecord& kept : memory->documents()) {
      if (kept.id == id) Note("memory " + name + ": the text stays, as " + kept.name);
    }
  }
  if (!found) {
    return NotFound("memory " + name + ": has no document " + document + "; 'longhold show " +
                    name + "' lists them");
  }
  return compact ? memory->store().Compact() : OkStatus();
}

Status Engine::Compact(const std::string& name) {
  LH_ASSIGN_OR_RETURN(Memory * memory, Open(name, Access::kWrite, false));
  LH_RETURN_IF_ERROR(memory->BuildLists(ThreadsFor));
  return memory->store().Compact();
}

Result<RecodeReport> Engine::Recode(const std::string& name, std::string_view codec,
                                    const std::atomic<bool>* stop,
                                    const std::function<void(const IngestProgress&)>& on_progress) {
  if (!IsCodecName(codec))
    return InvalidArgument("codec " + std::string(codec) + ": unknown; choose one of " +
                           CodecList());
  const EngineClock::time_point start = EngineClock::now();
  LH_ASSIGN_OR_RETURN(Memory * memory, Open(name, Access::kWrite, false));
  return memory->Recode(codec, ThreadsFor, stop, [&](uint64_t done, uint64_t total) {
    const double seconds = Milliseconds(start, EngineClock::now()) / 1000;
    const double tokens = static_cast<double>(done * kBlockTokens);
    if (on_progress)
      on_progress(
          {name, done * kBlockTokens, total * kBlockTokens, seconds > 0 ? tokens / seconds : 0});
  });
}

Result<std::unique_ptr<ExportStream>> Engine::OpenExport(const std::string& name) {
  LH_ASSIGN_OR_RETURN(Memory * memory, Open(name, Access::kRead, false));
  // Whose it is stays here.
  return std::make_unique<ExportStream>(&memory->store(), SplitName(name).second);
}

Result<TransferReport> Engine::Export(const std::string& name, const ByteSink& sink) {
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<ExportStream> stream, OpenExport(name));
  for (;;) {
    const Result<std::string> bytes = stream->Next();
    if (bytes.status().code() == StatusCode::kDataLoss)
      return DataLoss("memory " + name + ": " + bytes.status().message());
    if (!bytes.ok()) return bytes.status();
    if (bytes->empty()) return stream->report();
    LH_RETURN_IF_ERROR(sink(*bytes));
  }
}

Status Engine::MakeMemoriesDirectory(const std::string& memory) const {
  const std::string tenant = SplitName(memory).first;
  std::error_code ec;
  if (!tenant.empty()) ec = MakePrivateDirectory((fs::path(options_.home) / "tenants").string());
  if (!ec) ec = MakePrivateDirectory(DirectoryOf(tenant));
  if (!ec) return OkStatus();
  return InvalidArgument("home " + options_.home + ": cannot be written (" + ec.message() +
                         "); choose another with --home or LONGHOLD_HOME");
}

Result<TransferReport> Engine::Import(const ByteSource& source, const std::string& name,
                                      const ImportLimits& limits) {
  LH_ASSIGN_OR_RETURN(TransferReport report, [&]() -> Result<TransferReport> {
    TransferReport named;
    LH_ASSIGN_OR_RETURN(named.name, ReadExportName(source));
    return named;
  }());
  const std::string own = name.empty() ? report.name : name;
  LH_RETURN_IF_ERROR(CheckName(own));
  const Status exists = Exists(own);
  if (exists.ok())
    return AlreadyExists(
        "memory " + own +
        ": is there already; import under another name with --into, or forget it first");
  if (exists.code() != StatusCode::kNotFound) return exists;
  open_.reset();
  // Under a name that no memory can have until it is whole.
  const fs::path path = PathOf(own);
  const std::string hidden =
      (path.parent_path() / (".import-" + path.filename().string())).string();
  LH_RETURN_IF_ERROR(MakeMemoriesDirectory(own));
  std::error_code ec;
  // of an import that was killed
  if (fs::exists(hidden, ec)) LH_RETURN_IF_ERROR(RemoveRocksStore(hidden));
  RocksOptions rocks = StoreOptions(hidden, options_.memory_budget_bytes);
  rocks.create_if_missing = true;
  const uint64_t value_bytes_max = options_.memory_budget_bytes / kImportValueShare;
  const ImportRules rules = RulesOf(limits, value_bytes_max);
  LH_ASSIGN_OR_RETURN(
      const MemoryReservation reserved,
      budget_.Reserve(StoreBytes(rocks) + kImportCopies * (value_bytes_max + rules.batch_bytes),
                      "importing memory " + own));
  const Status imported = [&]() -> Status {
    LH_ASSIGN_OR_RETURN(std::unique_ptr<ColdStore> store, OpenStore(rocks, own));
    LH_ASSIGN_OR_RETURN(report, ImportStore(source, *store, rules));
    LH_ASSIGN_OR_RETURN(const std::unique_ptr<Memory> memory,
                        Memory::Open(std::move(store), own, nullptr));
    if (limits.model != nullptr &&
        memory->manifest().model_fingerprint == limits.model->fingerprint)
      LH_RETURN_IF_ERROR(memory->CheckModel(*limits.model));
    return memory->Rename(own);
  }();
  if (!imported.ok()) {
    (void)RemoveRocksStore(hidden);
    return imported;
  }
  if (report.left_out > 0)
    Note("memory " + own + ": " + std::to_string(report.left_out) +
         " resume states and lists were left out; a text that was not read to its end is read "
         "anew, and 'longhold reindex " +
         own + "' makes lists again");
  fs::rename(hidden, path, ec);
  if (ec) return Internal("memory " + own + ": cannot be given its name (" + ec.message() + ")");
  report.name = own;
  return report;
}

Status Engine::Verify(const std::string& name) {
  LH_ASSIGN_OR_RETURN(Memory * memory, Open(name, Access::kRead, false));
  return memory->Verify();
}

}  // namespace longhold
