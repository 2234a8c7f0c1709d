#include "base/durable_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

namespace longhold {
namespace {

bool WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

// A file's name is stored in its directory, so the directory must be synced as well.
bool SyncDirectory(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const int fd = open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool good = fsync(fd) == 0;
  close(fd);
  return good;
}

}  // namespace

Status WriteFileDurably(const std::string& path, std::initializer_list<std::string_view> parts,
                        unsigned mode, const std::string& what) {
  const std::string beside = path + ".part";
  int error = 0;
  const int fd =
      open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, static_cast<mode_t>(mode));
  if (fd < 0) error = errno;
  for (const std::string_view part : parts) {
    if (error == 0 && !WriteAll(fd, part)) error = errno;
  }
  if (error == 0 && fsync(fd) != 0) error = errno;
  if (fd >= 0 && close(fd) != 0 && error == 0) error = errno;
  if (error == 0 && std::rename(beside.c_str(), path.c_str()) != 0) error = errno;
  if (error == 0 && !SyncDirectory(path)) error = errno;
  if (error == 0) return OkStatus();
  unlink(beside.c_str());
  const std::string why = what + " " + path + ": cannot be written (" + std::strerror(error) +
                          "); check the disk and its permissions";
  return error == ENOSPC || error == EDQUOT ? ResourceExhausted(why) : InvalidArgument(why);
}

std::error_code MakePrivateDirectory(const std::string& path) {
  std::error_code ec;
  if (std::filesystem::create_directories(path, ec))
    std::filesystem::permissions(path, std::filesystem::perms::owner_all, ec);
  return ec;
}

}  // namespace longhold
