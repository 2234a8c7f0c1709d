#include "store/rocks_provider.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "base/durable_file.h"
#include "store/memory_name.h"
#include "store/rocks_store.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;

class RocksProvider final : public StoreProvider {
 public:
  explicit RocksProvider(std::string home) : home_(std::move(home)) {}

  const std::string& place() const override { return home_; }

  Status Exists(const std::string& name) override {
    std::error_code ec;
    const bool exists = fs::exists(PathOf(name), ec);
    if (ec) {
      return InvalidArgument("home " + home_ + ": cannot be read (" + ec.message() +
                             "); check its permissions, or choose another with --home");
    }
    return exists ? OkStatus() : NotFound("no store at " + PathOf(name).string());
  }

  Result<std::unique_ptr<ColdStore>> Open(const std::string& name, StoreMode mode,
                                          uint64_t budget_bytes) override {
    if (mode == StoreMode::kCreate) LH_RETURN_IF_ERROR(MakeDirectories(name));
    return OpenRocksStore(OptionsFor(PathOf(name), mode, budget_bytes));
  }

  uint64_t RamBytes(StoreMode mode, uint64_t budget_bytes) const override {
    const RocksOptions rocks = OptionsFor("", mode, budget_bytes);
    return rocks.cache_bytes + (rocks.read_only ? 0 : rocks.write_buffers_bytes_max);
  }

  Result<std::vector<std::string>> List(const std::string& tenant) override {
    std::vector<std::string> names;
    std::error_code ec;
    for (const auto& entry : fs::directory_iterator(DirectoryOf(tenant), ec)) {
      const std::string name =
          (tenant.empty() ? "" : tenant + "/") + entry.path().filename().string();
      if (entry.is_directory() && CheckMemoryName(name).ok()) names.push_back(name);
    }
    if (ec && ec != std::errc::no_such_file_or_directory && ec != std::errc::not_a_directory) {
      return InvalidArgument("home " + home_ + ": cannot be read (" + ec.message() +
                             "); choose another with --home");
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  std::vector<std::string> Tenants() override {
    std::vector<std::string> tenants;
    std::error_code ec;  // without that directory there are none
    for (const auto& entry : fs::directory_iterator(fs::path(home_) / "tenants", ec))
      tenants.push_back(entry.path().filename().string());
    std::sort(tenants.begin(), tenants.end());
    return tenants;
  }

  Status Remove(const std::string& name) override { return RemoveRocksStore(PathOf(name)); }

  Result<std::unique_ptr<ColdStore>> Stage(const std::string& name,
                                           uint64_t budget_bytes) override {
    LH_RETURN_IF_ERROR(MakeDirectories(name));
    const fs::path path = StagePathOf(name);
    std::error_code ec;
    if (fs::exists(path, ec)) LH_RETURN_IF_ERROR(RemoveRocksStore(path));
    return OpenRocksStore(OptionsFor(path, StoreMode::kCreate, budget_bytes));
  }

  Status Publish(const std::string& name) override {
    std::error_code ec;
    fs::rename(StagePathOf(name), PathOf(name), ec);
    return ec ? Internal("cannot be given its name (" + ec.message() + ")") : OkStatus();
  }

  void Discard(const std::string& name) override { (void)RemoveRocksStore(StagePathOf(name)); }

  uint64_t DiskBytes(const std::string& name) const override {
    uint64_t bytes = 0;
    std::error_code ec;
    for (const auto& entry : fs::directory_iterator(PathOf(name), ec)) {
      std::error_code gone;  // files come and go
      const uintmax_t size = entry.file_size(gone);
      if (!gone) bytes += size;
    }
    return bytes;
  }

  uint64_t WriteStalls() const override { return RocksStalls(); }

  // The store's files by name, size and time.
  std::string Stamp(const std::string& name) const override {
    std::vector<std::string> files;
    std::error_code ec;
    for (const auto& entry : fs::directory_iterator(PathOf(name), ec)) {
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

 private:
  fs::path DirectoryOf(const std::string& tenant) const {
    const fs::path home(home_);
    return (tenant.empty() ? home : home / "tenants" / tenant) / "memories";
  }
  fs::path PathOf(const std::string& name) const {
    const MemoryName parts = SplitMemoryName(name);
    return DirectoryOf(parts.tenant) / parts.name;
  }
  // No memory can have a name that begins with a dot.
  fs::path StagePathOf(const std::string& name) const {
    const fs::path path = PathOf(name);
    return path.parent_path() / (".import-" + path.filename().string());
  }
  RocksOptions OptionsFor(const fs::path& path, StoreMode mode, uint64_t budget_bytes) const {
    RocksOptions rocks;
    rocks.path = path.string();
    rocks.read_only = mode == StoreMode::kRead;
    rocks.create_if_missing = mode == StoreMode::kCreate;
    rocks.cache_bytes = std::min(rocks.cache_bytes, budget_bytes / 32);
    rocks.write_buffers_bytes_max = std::min(rocks.write_buffers_bytes_max, budget_bytes / 8);
    rocks.write_buffer_bytes =
        std::min(rocks.write_buffer_bytes, rocks.write_buffers_bytes_max / 3);
    return rocks;
  }
  Status MakeDirectories(const std::string& name) const {
    const std::string tenant = SplitMemoryName(name).tenant;
    std::error_code ec;
    if (!tenant.empty()) ec = MakePrivateDirectory((fs::path(home_) / "tenants").string());
    if (!ec) ec = MakePrivateDirectory(DirectoryOf(tenant).string());
    if (!ec) return OkStatus();
    return InvalidArgument("home " + home_ + ": cannot be written (" + ec.message() +
                           "); choose another with --home or LONGHOLD_HOME");
  }

  const std::string home_;
};

}  // namespace

std::unique_ptr<StoreProvider> NewRocksProvider(const std::string& home) {
  return std::make_unique<RocksProvider>(home);
}

}  // namespace longhold
