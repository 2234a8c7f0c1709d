#include "store/sync_mark.h"

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "base/hash.h"

namespace longhold {
namespace {

constexpr size_t kNumberBytes = 8, kMarkBytes = 16;
// A reader may read while the mark is being written.
constexpr int kReadAttemptsMax = 10;
constexpr std::chrono::milliseconds kReadPause{1};

void AppendLittleEndian64(std::string* out, uint64_t value) {
  for (int shift = 0; shift < 64; shift += 8)
    out->push_back(static_cast<char>(value >> shift & 0xff));
}

std::string MarkOf(uint64_t number) {
  std::string mark;
  AppendLittleEndian64(&mark, number);
  AppendLittleEndian64(&mark, Hash64(mark));
  return mark;
}

}  // namespace

Result<uint64_t> ReadSyncMark(const std::string& directory) {
  const FileDescriptor file(open((directory + "/" + kSyncMarkName).c_str(),
                                 O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (file.get() < 0) return 0;
  for (int attempt = 0; attempt < kReadAttemptsMax; ++attempt) {
    if (attempt > 0) std::this_thread::sleep_for(kReadPause);
    std::string mark(kMarkBytes, '\0');
    const ssize_t bytes = pread(file.get(), mark.data(), mark.size(), 0);
    if (bytes < 0 || mark.find_first_not_of('\0') == std::string::npos) return 0;
    uint64_t number = 0;
    for (size_t i = 0; i < kNumberBytes; ++i)
      number |= uint64_t{static_cast<unsigned char>(mark[i])} << (8 * i);
    if (bytes == static_cast<ssize_t>(kMarkBytes) && mark == MarkOf(number)) return number;
  }
  return DataLoss(std::string("its file ") + kSyncMarkName +
                  " is damaged, so it is unknown whether the last writes are there; restore the "
                  "memory or import a copy, or remove that file to go on with the data that is "
                  "left");
}

SyncMark::SyncMark(const std::string& directory)
    : file_(open((directory + "/" + kSyncMarkName).c_str(),
                 O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644)) {}

void SyncMark::Raise(uint64_t number) {
  const std::lock_guard lock(mutex_);
  if (number <= number_) return;
  number_ = number;
  const std::string mark = MarkOf(number);
  // The mark lies within one page, so a reader sees either all of it or nothing of it.
  static_cast<void>(!pwrite(file_.get(), mark.data(), mark.size(), 0));
}

}  // namespace longhold
