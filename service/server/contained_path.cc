#include "service/server/contained_path.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/file_descriptor.h"
#include "service/common/text_input.h"

namespace longhold {

Result<std::string> ReadContained(const std::string& root, const std::string& path,
                                  uint64_t bytes_max) {
  const std::string name = "path '" + path + "'";
  const FileDescriptor directory(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() < 0)
    return Internal("the directory of --ingest-root cannot be opened (" +
                    std::string(std::strerror(errno)) + ")");
  open_how how{};
  // O_NONBLOCK: opening a pipe without a writer must not block the thread
  how.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  const FileDescriptor file(
      static_cast<int>(syscall(SYS_openat2, directory.get(), path.c_str(), &how, sizeof how)));
  if (file.get() < 0) {
    const int error = errno;
    if (error == ENOSYS) return Unimplemented("files by path need Linux 5.6 or later");
    if (error == EXDEV)
      return InvalidArgument(name + ": is outside the directory of --ingest-root");
    if (error == ENOENT || error == ENOTDIR)
      return NotFound(name + ": there is no such file below --ingest-root");
    return InvalidArgument(name + ": " + std::strerror(error));
  }
  struct stat state;
  if (fstat(file.get(), &state) != 0 || !S_ISREG(state.st_mode))
    return InvalidArgument(name + ": is not a regular file");
  return ReadDescriptor(file.get(), name, bytes_max);
}

}  // namespace longhold
