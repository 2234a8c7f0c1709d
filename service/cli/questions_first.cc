#include "service/cli/questions_first.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <chrono>
#include <thread>

namespace longhold {
namespace {

constexpr std::chrono::milliseconds kLookAgain{20};

int OpenLock(const std::string& home) {
  return open((home + "/questions.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
}

}  // namespace

QuestionGoesFirst::QuestionGoesFirst(const std::string& home) : fd_(OpenLock(home)) {
  if (fd_ >= 0) flock(fd_, LOCK_SH);  // a reader has it for a moment only
}

QuestionGoesFirst::~QuestionGoesFirst() {
  if (fd_ >= 0) close(fd_);
}

void WaitForQuestions(const std::string& home, const std::atomic<bool>& stop) {
  const int fd = OpenLock(home);
  if (fd < 0) return;
  while (!stop && flock(fd, LOCK_EX | LOCK_NB) != 0) std::this_thread::sleep_for(kLookAgain);
  close(fd);
}

}  // namespace longhold
