// A file descriptor that its owner closes.
#pragma once

#include <unistd.h>

#include <utility>

namespace longhold {

// Move-only. A negative value means no file. Thread use: *external*.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) (void)close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace longhold
