#include "service/wire/payload.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string>
#include <system_error>

namespace longhold::wire {
namespace {

std::string ErrorText() { return std::generic_category().message(errno); }

// Errors: invalid_argument.
Status CheckMemfd(int memfd, uint64_t bytes) {
  const int seals = fcntl(memfd, F_GET_SEALS);
  struct statfs system {};
  // Huge pages can run out at an access, which is SIGBUS.
  if (seals < 0 || fstatfs(memfd, &system) != 0 || system.f_type != TMPFS_MAGIC)
    return InvalidArgument("the descriptor is not a memfd of ordinary pages");
  if ((seals & F_SEAL_SHRINK) == 0)
    return InvalidArgument("the memfd is not sealed; seal it with F_SEAL_SHRINK");
  // After the seals: from now on it does not become shorter.
  struct stat info {};
  if (fstat(memfd, &info) != 0 || info.st_size < 0 || static_cast<uint64_t>(info.st_size) < bytes)
    return InvalidArgument("the memfd has " + std::to_string(info.st_size) +
                           " bytes, and the payload " + std::to_string(bytes));
  return OkStatus();
}

}  // namespace

Payload& Payload::operator=(Payload&& other) noexcept {
  Release();
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  mapped_ = std::exchange(other.mapped_, false);
  return *this;
}

void Payload::Release() {
  if (mapped_) {
    (void)munmap(data_, size_);
  } else {
    std::free(data_);
  }
  data_ = nullptr;
  size_ = 0;
  mapped_ = false;
}

Result<Payload> Payload::OfSize(uint64_t bytes) {
  Payload payload;
  if (bytes == 0) return payload;
  payload.data_ = static_cast<char*>(std::malloc(bytes));
  if (payload.data_ == nullptr)
    return ResourceExhausted("a payload of " + std::to_string(bytes) + " bytes: out of memory");
  payload.size_ = bytes;
  return payload;
}

Result<Payload> Payload::CopyOf(std::string_view bytes) {
  LH_ASSIGN_OR_RETURN(Payload payload, OfSize(bytes.size()));
  std::copy(bytes.begin(), bytes.end(), payload.data_);
  return payload;
}

Result<Payload> Payload::Map(int memfd, uint64_t bytes, bool writable) {
  LH_RETURN_IF_ERROR(CheckMemfd(memfd, bytes));
  Payload payload;
  if (bytes == 0) return payload;
  void* at = mmap(nullptr, bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                  MAP_SHARED | MAP_POPULATE, memfd, 0);
  if (at == MAP_FAILED) {
    const std::string what = "a memfd cannot be mapped: " + ErrorText();
    return errno == ENOMEM ? ResourceExhausted(what) : InvalidArgument(what);
  }
  payload.data_ = static_cast<char*>(at);
  payload.size_ = bytes;
  payload.mapped_ = true;
  return payload;
}

Result<FileDescriptor> MakeMemfd(uint64_t bytes) {
  FileDescriptor memfd(memfd_create("longhold-payload", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (memfd.get() < 0 || ftruncate(memfd.get(), static_cast<off_t>(bytes)) != 0 ||
      fcntl(memfd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return ResourceExhausted("a memfd of " + std::to_string(bytes) +
                             " bytes cannot be made: " + ErrorText());
  return memfd;
}

void PunchOut(int memfd, uint64_t bytes) {
  (void)fallocate(memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes));
}

}  // namespace longhold::wire
