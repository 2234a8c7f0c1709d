#include "store/rocks_files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "base/file_descriptor.h"
#include "store/rocks_store.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;

// Our own lock file, in addition to RocksDB's LOCK. flock reports another holder without string
// matching, also between two stores of one process. It stays held while Compact closes and
// reopens the database.
constexpr const char* kWriterLockName = "WRITER";

// CURRENT and IDENTITY each contain one short name.
constexpr uint64_t kNameFileBytesMax = 256;

// The first line of CURRENT. Empty if there is no such file, or if RocksDB cannot have written it.
Result<std::string> ReadCurrent(const std::string& path) {
  // O_NONBLOCK: opening a FIFO would otherwise wait for its other end.
  const FileDescriptor file(
      open((path + "/CURRENT").c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (file.get() < 0 && (errno == ENOENT || errno == ELOOP)) return std::string();
  if (file.get() < 0) return FromErrno("open memory store " + path, path, errno);
  struct stat info;
  if (fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) return std::string();
  char bytes[kNameFileBytesMax];
  const ssize_t n = read(file.get(), bytes, sizeof bytes);
  if (n < 0) return FromErrno("open memory store " + path, path, errno);
  const std::string_view text(bytes, static_cast<size_t>(n));
  return std::string(text.substr(0, text.find('\n')));
}

bool HasSuffix(const std::string& s, std::string_view suffix) {
  return s.size() >= suffix.size() &&
         std::string_view(s).substr(s.size() - suffix.size()) == suffix;
}

}  // namespace

uint64_t FreeBytes(const std::string& path) {
  struct statvfs info;
  if (statvfs(path.c_str(), &info) != 0) return 0;
  return uint64_t{info.f_bavail} * info.f_frsize;
}

Status DiskFull(const std::string& doing, const std::string& path, const std::string& why) {
  return ResourceExhausted(doing + ": " + why + "; " + std::to_string(FreeBytes(path)) +
                           " bytes are free: free some space, then open it again");
}

Status NoPermission(const std::string& doing, const std::string& why) {
  return InvalidArgument(doing + ": " + why +
                         "; change the permissions of this directory or name another one");
}

Status FromErrno(const std::string& doing, const std::string& path, int error) {
  const std::string why = std::strerror(error);
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return DiskFull(doing, path, why);
    case EMFILE:
    case ENFILE:
    case ENOMEM: return ResourceExhausted(doing + ": " + why);
    case EIO: return DataLoss(doing + ": " + why);
    case ENOENT: return NotFound(doing + ": " + why);
    default: return NoPermission(doing, why);
  }
}

WriterLock::~WriterLock() {
  if (fd_ >= 0) close(fd_);
}

Status WriterLock::Take(const std::string& store_path) {
  const std::string path = store_path + "/" + kWriterLockName;
  fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (fd_ < 0) return FromErrno("open memory store " + store_path, store_path, errno);
  if (flock(fd_, LOCK_EX | LOCK_NB) == 0) return OkStatus();
  if (errno == EWOULDBLOCK) {
    return FailedPrecondition("memory store " + store_path +
                              " is in use by another process; wait for it or stop it");
  }
  return FromErrno("lock memory store " + store_path, store_path, errno);
}

Status CheckFiles(const std::string& path) {
  const std::string doing = "open memory store " + path;
  std::error_code error;
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename();
    struct stat info;
    // files may appear and disappear meanwhile
    if (lstat(it->path().c_str(), &info) != 0) continue;
    if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) {
      return DataLoss(doing + ": " + name +
                      " is a link, a pipe or a device, which a store must not contain; put the "
                      "file itself in its place, or import a copy");
    }
    if ((name == "CURRENT" || name == "IDENTITY") &&
        info.st_size > static_cast<off_t>(kNameFileBytesMax)) {
      return DataLoss(doing + ": the file " + name + " is damaged: it has " +
                      std::to_string(info.st_size) + " bytes; restore it or import a copy");
    }
  }
  return error && error != std::errc::no_such_file_or_directory
             ? FromErrno(doing, path, error.value())
             : OkStatus();
}

Result<DirectoryState> DirectoryState::Of(const std::string& path) {
  DirectoryState state;
  std::error_code error;
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename();
    if (HasSuffix(name, ".log")) state.logs.push_back(name);
    if (HasSuffix(name, ".log") || HasSuffix(name, ".sst") || HasSuffix(name, ".blob"))
      state.has_data = true;
  }
  if (error) return FromErrno("open memory store " + path, path, error.value());
  std::sort(state.logs.begin(), state.logs.end());
  LH_ASSIGN_OR_RETURN(state.manifest, ReadCurrent(path));
  const auto bytes = fs::file_size(path + "/" + state.manifest, error);
  state.manifest_bytes = error ? 0 : bytes;
  return state;
}

Status RemoveRocksStore(const std::string& path) {
  const std::string doing = "remove memory store " + path;
  return Guarded(doing, [&]() -> Status {
    LH_ASSIGN_OR_RETURN(const DirectoryState state, DirectoryState::Of(path));
    // A directory that is not a store is not ours to remove.
    if (state.manifest.empty() && !state.has_data) return NotFound(doing + ": it does not exist");
    WriterLock lock;
    LH_RETURN_IF_ERROR(lock.Take(path));
    const fs::path from(path);
    const fs::path doomed = from.parent_path() / (".forgotten-" + from.filename().string());
    std::error_code error;
    fs::remove_all(doomed, error);
    fs::rename(from, doomed, error);
    if (!error) fs::remove_all(doomed, error);
    return error ? FromErrno(doing, path, error.value()) : OkStatus();
  });
}

}  // namespace longhold
