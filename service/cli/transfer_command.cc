// `longhold export` and `longhold import`: a memory as one file.
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "base/format.h"
#include "service/cli/commands.h"
#include "service/cli/progress.h"
#include "service/common/render.h"

namespace longhold {
namespace {

// Progress is printed from this size on. Smaller transfers finish too quickly to need it.
constexpr uint64_t kShownFrom = 64u << 20;

struct CloseFile {
  void operator()(std::FILE* file) const { (void)std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

Status FileError(const std::string& path, int error) {
  const std::string what = path + ": " + std::strerror(error);
  if (error == ENOENT) return NotFound(what);
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) return ResourceExhausted(what);
  return InvalidArgument(what);
}

// An output file that appears under its name only when it is complete. Until then it is PATH.part,
// which the destructor deletes. A pipe or a device is written directly.
class OutputFile {
 public:
  static Result<OutputFile> Create(const std::string& path) {
    OutputFile out;
    struct stat there;
    const bool exists = ::stat(path.c_str(), &there) == 0;
    if (exists && S_ISDIR(there.st_mode))
      return InvalidArgument(path + ": is a directory; name a file");
    if (exists && S_ISREG(there.st_mode))
      return AlreadyExists(path + ": already exists; name another file, or remove it first");
    out.path_ = path;
    out.part_ = exists ? path : path + ".part";
    out.file_.reset(std::fopen(out.part_.c_str(), "wb"));
    if (out.file_ == nullptr) return FileError(out.part_, errno);
    return out;
  }
  OutputFile(OutputFile&&) = default;
  ~OutputFile() {
    if (file_ != nullptr && part_ != path_) (void)::unlink(part_.c_str());
  }

  Status Write(std::string_view bytes) {
    return std::fwrite(bytes.data(), 1, bytes.size(), file_.get()) == bytes.size()
               ? OkStatus()
               : FileError(path_, errno);
  }
  Status Close() {
    if (std::fflush(file_.get()) != 0) return FileError(path_, errno);
    // Only regular files are synced: fsync fails on pipes and devices.
    if (part_ != path_ &&
        (::fsync(::fileno(file_.get())) != 0 || std::rename(part_.c_str(), path_.c_str()) != 0))
      return FileError(path_, errno);
    file_.reset();
    return OkStatus();
  }

 private:
  OutputFile() = default;
  std::string path_, part_;
  File file_;
};

}  // namespace

Status RunExportCommand(const ExportCommand& command, const CommandContext& c) {
  LH_RETURN_IF_ERROR(c.engine.Exists(command.memory));
  const std::atomic<bool>* stop = c.catch_signals();
  const bool to_stdout = command.file == "-";
  std::optional<OutputFile> file;
  if (!to_stdout) {
    LH_ASSIGN_OR_RETURN(OutputFile created, OutputFile::Create(command.file));
    file.emplace(std::move(created));
  } else if (c.terminal.out_is_terminal()) {
    return InvalidArgument("export to a terminal: name a file, or redirect stdout");
  }
  TransferReport report;
  {
    StatusLine line(&c.terminal);
    uint64_t done = 0;
    LH_ASSIGN_OR_RETURN(
        report, c.engine.Export(command.memory, [&](std::string_view bytes) -> Status {
          if (stop != nullptr && stop->load())
            return Cancelled("export of " + command.memory + ": stopped");
          if (to_stdout) {
            c.terminal.Out(bytes);
            if (c.terminal.out_closed())
              return Cancelled("export of " + command.memory + ": the reader closed the pipe");
            LH_RETURN_IF_ERROR(c.terminal.out_status());
          } else {
            LH_RETURN_IF_ERROR(file->Write(bytes));
          }
          done += bytes.size();
          if (done >= kShownFrom)
            line.Show("export", command.memory + ": " + FormatBytes(done) + " written");
          return OkStatus();
        }));
  }
  if (to_stdout) return OkStatus();
  LH_RETURN_IF_ERROR(file->Close());
  c.terminal.Out(c.json ? TransferJson(report, command.file) + "\n"
                        : command.memory + ": " + FormatBytes(report.bytes) + " in " +
                              command.file + "\n");
  return OkStatus();
}

Status RunImportCommand(const ImportCommand& command, const CommandContext& c) {
  const bool from_stdin = command.file == "-";
  File owned(from_stdin ? nullptr : std::fopen(command.file.c_str(), "rb"));
  std::FILE* file = from_stdin ? stdin : owned.get();
  if (file == nullptr) return FileError(command.file, errno);
  const std::atomic<bool>* stop = c.catch_signals();
  TransferReport report;
  {
    StatusLine line(&c.terminal);
    uint64_t done = 0;
    LH_ASSIGN_OR_RETURN(
        report,
        c.engine.Import(
            [&](std::span<char> out) -> Result<size_t> {
              if (stop != nullptr && stop->load())
                return Cancelled("import of " + command.file + ": stopped, nothing was imported");
              const size_t got = std::fread(out.data(), 1, out.size(), file);
              if (got == 0 && std::ferror(file) != 0) return FileError(command.file, errno);
              done += got;
              if (done >= kShownFrom)
                line.Show("import", command.file + ": " + FormatBytes(done) + " read");
              return got;
            },
            command.into));
  }
  if (c.json) {
    c.terminal.Out(TransferJson(report, command.file) + "\n");
    return OkStatus();
  }
  LH_ASSIGN_OR_RETURN(const MemoryInfo info, c.engine.Show(report.name));
  c.terminal.Out(report.name + ": " + FormatCount(info.tokens) + " tokens of " + info.model + "\n");
  return OkStatus();
}

}  // namespace longhold
