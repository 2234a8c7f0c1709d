#include "store/sync_mark.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/hash.h"

namespace longhold {
namespace {

constexpr size_t kNumberBytes = 8, kMarkBytes = 16;

void AppendLittleEndian64(std::string* out, uint64_t value) {
  for (int shift = 0; shift < 64; shift += 8) out->push_back(static_cast<char>(value >> shift & 0xff));
}

std::string MarkOf(uint64_t number) {
  std::string mark;
  AppendLittleEndian64(&mark, number);
  AppendLittleEndian64(&mark, Hash64(mark));
  return mark;
}

}  // namespace

uint64_t ReadSyncMark(const std::string& directory) {
  const FileDescriptor file(open((directory + "/" + kSyncMarkName).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  std::string mark(kMarkBytes, '\0');
  if (file.get() < 0 || pread(file.get(), mark.data(), mark.size(), 0) != static_cast<ssize_t>(mark.size())) return 0;
  uint64_t number = 0;
  for (size_t i = 0; i < kNumberBytes; ++i) number |= uint64_t{static_cast<unsigned char>(mark[i])} << (8 * i);
  return mark == MarkOf(number) ? number : 0;
}

SyncMark::SyncMark(const std::string& directory) : file_(open((directory + "/" + kSyncMarkName).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644)) {}

void SyncMark::Raise(uint64_t number) {
  const std::lock_guard lock(mutex_);
  if (number <= number_) return;
  number_ = number;
  const std::string mark = MarkOf(number);
  // Within one page: a reader sees all of it or nothing.
  static_cast<void>(!pwrite(file_.get(), mark.data(), mark.size(), 0));
}

}  // namespace longhold
