#include "service/uploads.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <filesystem>

#include "base/clock.h"
#include "base/durable_file.h"
#include "base/hash.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;

constexpr size_t kOwnMax = 16, kAllMax = 256;
constexpr uint64_t kLengthMax = 1ull << 40;
constexpr int64_t kKeptSeconds = 24 * 3600;
constexpr size_t kIdDigits = 32;

Status FileError(const std::string& doing, int error) {
  const std::string what = doing + ": " + std::strerror(error);
  return error == ENOSPC || error == EDQUOT || error == EFBIG ? ResourceExhausted(what + "; free some space") : Internal(what);
}

}  // namespace

struct Uploads::Entry {
  Upload upload;
  std::string tenant, path;
  int64_t changed = 0;  // seconds since 1970
};

std::vector<Uploads::Entry> Uploads::Entries() const {
  std::vector<Entry> entries;
  std::error_code ec;
  for (const fs::directory_entry& file : fs::directory_iterator(directory_, ec)) {
    const std::string name = file.path().filename();
    const size_t tenant = name.find('.', kIdDigits + 1);
    if (name.size() <= kIdDigits || name[kIdDigits] != '.' || tenant == std::string::npos) continue;
    Entry entry;
    entry.upload.id = name.substr(0, kIdDigits);
    entry.tenant = name.substr(tenant + 1);
    entry.path = file.path();
    const char* const end = name.data() + tenant;
    const auto [parsed, error] = std::from_chars(name.data() + kIdDigits + 1, end, entry.upload.length);
    struct stat state;
    if (error != std::errc() || parsed != end || lstat(entry.path.c_str(), &state) != 0 || !S_ISREG(state.st_mode)) continue;
    entry.upload.offset = static_cast<uint64_t>(state.st_size);
    entry.changed = state.st_mtime;
    entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.upload.id < b.upload.id; });
  return entries;
}

Status Uploads::FindEntry(const std::string& id, const std::string& tenant, Entry* found) const {
  for (const Entry& entry : Entries()) {
    if (entry.upload.id != id || entry.tenant != tenant) continue;
    *found = entry;
    return OkStatus();
  }
  return NotFound("upload '" + id + "' is not known; it was used or removed, or nothing came for a day");
}

Result<Upload> Uploads::Create(const std::string& tenant, uint64_t length, uint64_t own_bytes_max) {
  if (length == 0 || length > kLengthMax) return InvalidArgument("Upload-Length: must be 1 to " + std::to_string(kLengthMax) + " bytes");
  if (const std::error_code ec = MakePrivateDirectory(directory_)) return FileError("uploads", ec.value());
  const std::lock_guard lock(mutex_);
  size_t all = 0, own = 0;
  uint64_t promised = length, own_bytes = length;
  for (const Entry& entry : Entries()) {
    if (entry.changed + kKeptSeconds < UnixSeconds() && !busy_.contains(entry.upload.id)) {
      (void)unlink(entry.path.c_str());
      continue;
    }
    ++all;
    own += entry.tenant == tenant;
    own_bytes += entry.tenant == tenant ? entry.upload.length : 0;
    promised += entry.upload.length - std::min(entry.upload.length, entry.upload.offset);
  }
  if (own >= kOwnMax || all >= kAllMax) return ResourceExhausted("too many uploads that are not used yet; use some, or remove them");
  if (own_bytes_max > 0 && own_bytes > own_bytes_max) {
    return FailedPrecondition("tenant " + tenant + " may have uploads of " + std::to_string(own_bytes_max) + " bytes in all; use some, or ask the operator for more");
  }
  struct statvfs disk;
  if (statvfs(directory_.c_str(), &disk) == 0 && promised > uint64_t{disk.f_bavail} * disk.f_frsize) {
    return FailedPrecondition("the disk has no room for " + std::to_string(length) + " bytes more");
  }
  Upload upload;
  upload.id = RandomHex(kIdDigits / 2);
  upload.length = length;
  const std::string path = directory_ + "/" + upload.id + "." + std::to_string(length) + "." + tenant;
  const FileDescriptor file(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (file.get() < 0) return FileError("upload", errno);
  return upload;
}

std::vector<Upload> Uploads::List(const std::string& tenant) const {
  std::vector<Upload> list;
  for (const Entry& entry : Entries()) {
    if (entry.tenant == tenant) list.push_back(entry.upload);
  }
  return list;
}

Result<Upload> Uploads::Find(const std::string& id, const std::string& tenant) const {
  Entry entry;
  LH_RETURN_IF_ERROR(FindEntry(id, tenant, &entry));
  return entry.upload;
}

Result<Upload> Uploads::Append(const std::string& id, const std::string& tenant, uint64_t offset, std::string_view bytes) {
  {
    const std::lock_guard lock(mutex_);
    if (!busy_.insert(id).second) return FailedPrecondition("upload '" + id + "': another part is being added; ask for its offset, and go on from there");
  }
  Result<Upload> appended = [&]() -> Result<Upload> {
    Entry entry;
    LH_RETURN_IF_ERROR(FindEntry(id, tenant, &entry));
    Upload& upload = entry.upload;
    if (offset != upload.offset) {
      return FailedPrecondition("upload '" + id + "': has " + std::to_string(upload.offset) + " bytes, and this part begins at " + std::to_string(offset) +
                                "; go on from where it is");
    }
    if (bytes.size() > upload.length - std::min(upload.length, offset)) {
      return InvalidArgument("upload '" + id + "': this part ends behind its length of " + std::to_string(upload.length) + " bytes");
    }
    const FileDescriptor file(open(entry.path.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
    if (file.get() < 0) return FileError("upload", errno);
    const auto undo = [&](int error) {
      if (ftruncate(file.get(), static_cast<off_t>(offset)) != 0) return FileError("upload", errno);
      return FileError("upload", error);
    };
    for (size_t done = 0; done < bytes.size();) {
      const ssize_t n = pwrite(file.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return undo(errno);
      done += static_cast<size_t>(n);
    }
    if (fdatasync(file.get()) != 0) return undo(errno);
    upload.offset += bytes.size();
    return upload;
  }();
  const std::lock_guard lock(mutex_);
  busy_.erase(id);
  return appended;
}

Result<FileDescriptor> Uploads::Open(const std::string& id, const std::string& tenant) const {
  Entry entry;
  LH_RETURN_IF_ERROR(FindEntry(id, tenant, &entry));
  if (entry.upload.offset < entry.upload.length) {
    return FailedPrecondition("upload '" + id + "': " + std::to_string(entry.upload.offset) + " of " + std::to_string(entry.upload.length) +
                              " bytes have come; send the rest first");
  }
  FileDescriptor file(open(entry.path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (file.get() < 0) return FileError("upload", errno);
  return file;
}

Status Uploads::Remove(const std::string& id, const std::string& tenant) {
  Entry entry;
  LH_RETURN_IF_ERROR(FindEntry(id, tenant, &entry));
  if (unlink(entry.path.c_str()) != 0 && errno != ENOENT) return FileError("upload", errno);
  return OkStatus();
}

}  // namespace longhold
