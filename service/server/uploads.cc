#include "service/server/uploads.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <memory>
#include <utility>

#include "base/clock.h"
#include "base/durable_file.h"
#include "base/file_descriptor.h"
#include "base/hash.h"
#include "base/seal.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;

constexpr size_t kTenantMax = 16, kAllMax = 256;
constexpr uint64_t kLengthMax = 1ull << 40;
// Disk space that uploads leave free for memories and accepted texts. Of the rest, one tenant's
// uploads may take half, so that it cannot take the space of all others.
constexpr uint64_t kDiskReserve = 1ull << 30;
constexpr int64_t kKeptSeconds = 24 * 3600;
constexpr size_t kIdDigits = 32;
// Records of an encrypted file: the length of the plain text in four bytes, least significant
// first, then the encrypted text.
constexpr size_t kRecordHead = 4, kRecordMax = 1 << 20;
constexpr std::string_view kPurpose = "longhold upload";

Status FileError(const std::string& doing, int error) {
  const std::string what = doing + ": " + std::strerror(error);
  return error == ENOSPC || error == EDQUOT || error == EFBIG
             ? ResourceExhausted(what + "; free some space")
             : Internal(what);
}

Status WriteAll(int file, std::string_view bytes, uint64_t at) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t n =
        pwrite(file, bytes.data() + done, bytes.size() - done, static_cast<off_t>(at + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError("upload", errno);
    done += static_cast<size_t>(n);
  }
  return OkStatus();
}

// Returns false when the file ends before `bytes` are read.
Result<bool> ReadAll(int file, char* out, size_t bytes, uint64_t at) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t n = pread(file, out + done, bytes - done, static_cast<off_t>(at + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError("upload", errno);
    if (n == 0) return false;
    done += static_cast<size_t>(n);
  }
  return true;
}

uint32_t RecordBytes(const char (&head)[kRecordHead]) {
  uint32_t bytes = 0;
  for (size_t i = 0; i < kRecordHead; ++i)
    bytes |= static_cast<uint32_t>(static_cast<unsigned char>(head[i])) << (8 * i);
  return bytes;
}

Status NoKey(const std::string& id) {
  return FailedPrecondition("upload '" + id + "': is encrypted, and there is no --encryption-key");
}

// Binds a record to its upload, tenant and offset. The name of the file has the tenant, too, but
// anybody who can write to the directory can rename the file.
std::string RecordContext(const std::string& id, const std::string& tenant, uint64_t offset) {
  return id + "." + tenant + "@" + std::to_string(offset);
}

Result<std::string> SealedRecords(const Seal& seal, const std::string& id,
                                  const std::string& tenant, uint64_t offset,
                                  std::string_view bytes) {
  std::string records;
  while (!bytes.empty()) {
    const std::string_view text = bytes.substr(0, kRecordMax);
    for (size_t i = 0; i < kRecordHead; ++i)
      records += static_cast<char>(text.size() >> (8 * i) & 0xff);
    LH_ASSIGN_OR_RETURN(const std::string sealed,
                        seal.Close(text, RecordContext(id, tenant, offset)));
    records += sealed;
    bytes.remove_prefix(text.size());
    offset += text.size();
  }
  return records;
}

// Reads the plain text of an encrypted file.
class RecordReader {
 public:
  RecordReader(FileDescriptor file, Seal seal, const Upload& upload, const std::string& tenant)
      : file_(std::move(file)), seal_(std::move(seal)), upload_(upload), tenant_(tenant) {}

  Result<size_t> Read(std::span<char> out) {
    if (taken_ == text_.size()) LH_RETURN_IF_ERROR(Next());
    const size_t n = std::min(out.size(), text_.size() - taken_);
    std::copy_n(text_.data() + taken_, n, out.data());
    taken_ += n;
    return n;
  }

 private:
  // Decrypts the next record. text_ is empty at the end.
  Status Next() {
    offset_ += text_.size();
    text_.clear();
    taken_ = 0;
    char head[kRecordHead];
    if (offset_ == upload_.length) return OkStatus();
    const Status cut_off = DataLoss("upload '" + upload_.id + "': is truncated; send it again");
    LH_ASSIGN_OR_RETURN(const bool more, ReadAll(file_.get(), head, sizeof head, at_));
    if (!more) return cut_off;
    const size_t bytes = RecordBytes(head);
    std::string sealed(std::min(bytes, kRecordMax) + kSealExtraBytes, '\0');
    LH_ASSIGN_OR_RETURN(const bool whole,
                        ReadAll(file_.get(), sealed.data(), sealed.size(), at_ + kRecordHead));
    if (!whole) return cut_off;
    Result<std::string> text = seal_.Open(sealed, RecordContext(upload_.id, tenant_, offset_));
    if (!text.ok())
      return DataLoss("upload '" + upload_.id + "': " + text.status().message() +
                      "; send it again");
    text_ = std::move(*text);
    at_ += kRecordHead + sealed.size();
    return OkStatus();
  }

  const FileDescriptor file_;
  const Seal seal_;
  const Upload upload_;
  const std::string tenant_;
  uint64_t at_ = 0, offset_ = 0;  // of the next record in the file, and of text_ in the upload
  std::string text_;
  size_t taken_ = 0;
};

}  // namespace

struct Uploads::Entry {
  Upload upload;
  std::string tenant, path;
  bool sealed = false;
  uint64_t end = 0;     // end of the complete data in the file
  int64_t changed = 0;  // seconds since 1970
};

Uploads::Extent Uploads::ExtentOf(const std::string& id, const std::string& path,
                                  uint64_t file_bytes) const {
  const std::lock_guard lock(extents_mutex_);
  Extent& extent = extents_[id];
  if (extent.end == file_bytes) return extent;
  extent = {};
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  for (char head[kRecordHead]; file.get() >= 0;) {
    const Result<bool> more = ReadAll(file.get(), head, sizeof head, extent.end);
    if (!more.ok() || !*more) break;
    const uint64_t bytes = RecordBytes(head),
                   end = extent.end + kRecordHead + bytes + kSealExtraBytes;
    if (bytes == 0 || bytes > kRecordMax || end > file_bytes) break;
    extent = {extent.plain + bytes, end};
  }
  return extent;
}

std::vector<Uploads::Entry> Uploads::Entries(const std::string& id) const {
  std::vector<Entry> entries;
  std::error_code ec;
  for (const fs::directory_entry& file : fs::directory_iterator(directory_, ec)) {
    const std::string name = file.path().filename();
    const size_t tenant = name.find('.', kIdDigits + 1);
    if (name.size() <= kIdDigits || name[kIdDigits] != '.' || tenant == std::string::npos) continue;
    Entry entry;
    entry.upload.id = name.substr(0, kIdDigits);
    if (!id.empty() && entry.upload.id != id) continue;
    entry.tenant = name.substr(tenant + 1);
    entry.path = file.path();
    entry.sealed = name[tenant - 1] == 's';
    const char* const end = name.data() + tenant - (entry.sealed ? 1 : 0);
    const auto [parsed, error] =
        std::from_chars(name.data() + kIdDigits + 1, end, entry.upload.length);
    struct stat state;
    if (error != std::errc() || parsed != end || lstat(entry.path.c_str(), &state) != 0 ||
        !S_ISREG(state.st_mode))
      continue;
    const auto bytes = static_cast<uint64_t>(state.st_size);
    const Extent extent =
        entry.sealed ? ExtentOf(entry.upload.id, entry.path, bytes) : Extent{bytes, bytes};
    entry.upload.offset = extent.plain;
    entry.end = extent.end;
    entry.changed = state.st_mtime;
    entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.upload.id < b.upload.id; });
  return entries;
}

Status Uploads::FindEntry(const std::string& id, const std::string& tenant, Entry* found) const {
  for (const Entry& entry : Entries(id)) {
    if (entry.upload.id != id || entry.tenant != tenant) continue;
    *found = entry;
    return OkStatus();
  }
  return NotFound("upload '" + id +
                  "' is not known; it was used or removed, or it got no data for a day");
}

Result<Upload> Uploads::Create(const std::string& tenant, uint64_t length, uint64_t own_bytes_max) {
  if (length == 0 || length > kLengthMax)
    return InvalidArgument("Upload-Length: must be 1 to " + std::to_string(kLengthMax) + " bytes");
  if (const std::error_code ec = MakePrivateDirectory(directory_))
    return FileError("uploads", ec.value());
  const std::lock_guard lock(mutex_);
  size_t all = 0, own = 0;
  // promised: bytes that have not arrived yet
  uint64_t promised = length, own_promised = length, own_bytes = length;
  for (const Entry& entry : Entries()) {
    if (entry.changed + kKeptSeconds < UnixSeconds() && !busy_.contains(entry.upload.id)) {
      (void)unlink(entry.path.c_str());
      const std::lock_guard extents_lock(extents_mutex_);
      extents_.erase(entry.upload.id);
      continue;
    }
    ++all;
    own += entry.tenant == tenant;
    own_bytes += entry.tenant == tenant ? entry.upload.length : 0;
    const uint64_t to_come =
        entry.upload.length - std::min(entry.upload.length, entry.upload.offset);
    promised += to_come;
    own_promised += entry.tenant == tenant ? to_come : 0;
  }
  if (own >= kTenantMax || all >= kAllMax)
    return ResourceExhausted("too many unused uploads; use or remove some");
  if (own_bytes_max > 0 && own_bytes > own_bytes_max) {
    return FailedPrecondition("the limit for the uploads of tenant " + tenant + " is " +
                              std::to_string(own_bytes_max) +
                              " bytes; use some, or ask the operator for a higher limit");
  }
  struct statvfs disk;
  if (statvfs(directory_.c_str(), &disk) == 0) {
    const uint64_t free = uint64_t{disk.f_bavail} * disk.f_frsize,
                   room = free - std::min(free, kDiskReserve);
    if (promised > room || (!tenant.empty() && own_promised > room / 2)) {
      return FailedPrecondition("the disk has no space for " + std::to_string(length) +
                                " more bytes; send less, or ask the operator to free some space");
    }
  }
  Upload upload;
  upload.id = RandomHex(kIdDigits / 2);
  upload.length = length;
  const std::string path = directory_ + "/" + upload.id + "." + std::to_string(length) +
                           (encryption_key_.empty() ? "." : "s.") + tenant;
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

Result<Upload> Uploads::Append(const std::string& id, const std::string& tenant, uint64_t offset,
                               std::string_view bytes) {
  {
    const std::lock_guard lock(mutex_);
    if (!busy_.insert(id).second)
      return FailedPrecondition(
          "upload '" + id +
          "': another part is being added; get its offset, and continue from there");
  }
  Result<Upload> appended = [&]() -> Result<Upload> {
    Entry entry;
    LH_RETURN_IF_ERROR(FindEntry(id, tenant, &entry));
    Upload& upload = entry.upload;
    if (offset != upload.offset) {
      return FailedPrecondition("upload '" + id + "': has " + std::to_string(upload.offset) +
                                " bytes, but this part begins at " + std::to_string(offset) +
                                "; continue at the offset of the upload");
    }
    if (bytes.size() > upload.length - std::min(upload.length, offset)) {
      return InvalidArgument("upload '" + id + "': this part exceeds its length of " +
                             std::to_string(upload.length) + " bytes");
    }
    if (entry.sealed && encryption_key_.empty()) return NoKey(id);
    if (!entry.sealed && !encryption_key_.empty()) {
      return FailedPrecondition(
          "upload '" + id +
          "': was begun without encryption, but this server encrypts uploads; "
          "remove it, and begin another");
    }
    const FileDescriptor file(open(entry.path.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
    if (file.get() < 0) return FileError("upload", errno);
    const auto truncate = [&] {
      return ftruncate(file.get(), static_cast<off_t>(entry.end)) == 0 ? OkStatus()
                                                                       : FileError("upload", errno);
    };
    LH_RETURN_IF_ERROR(truncate());  // removes what a crash may have left of a part
    std::string sealed;
    if (entry.sealed) {
      LH_ASSIGN_OR_RETURN(sealed, SealedRecords(Seal::Derive(encryption_key_, id, kPurpose), id,
                                                tenant, offset, bytes));
    }
    const std::string_view written = entry.sealed ? std::string_view(sealed) : bytes;
    Status status = WriteAll(file.get(), written, entry.end);
    if (status.ok() && fdatasync(file.get()) != 0) status = FileError("upload", errno);
    if (!status.ok()) {
      LH_RETURN_IF_ERROR(truncate());
      return status;
    }
    upload.offset += bytes.size();
    if (entry.sealed) {
      const std::lock_guard extents_lock(extents_mutex_);
      extents_[id] = {upload.offset, entry.end + written.size()};
    }
    return upload;
  }();
  const std::lock_guard lock(mutex_);
  busy_.erase(id);
  return appended;
}

Result<ByteSource> Uploads::Open(const std::string& id, const std::string& tenant) const {
  Entry entry;
  LH_RETURN_IF_ERROR(FindEntry(id, tenant, &entry));
  if (entry.upload.offset < entry.upload.length) {
    return FailedPrecondition("upload '" + id + "': " + std::to_string(entry.upload.offset) +
                              " of " + std::to_string(entry.upload.length) +
                              " bytes have arrived; send the rest first");
  }
  FileDescriptor file(open(entry.path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (file.get() < 0) return FileError("upload", errno);
  if (entry.sealed) {
    if (encryption_key_.empty()) return NoKey(id);
    const auto reader = std::make_shared<RecordReader>(
        std::move(file), Seal::Derive(encryption_key_, id, kPurpose), entry.upload, tenant);
    return ByteSource([reader](std::span<char> out) { return reader->Read(out); });
  }
  const auto held = std::make_shared<const FileDescriptor>(std::move(file));
  return ByteSource([held](std::span<char> out) -> Result<size_t> {
    for (;;) {
      const ssize_t n = read(held->get(), out.data(), out.size());
      if (n >= 0) return static_cast<size_t>(n);
      if (errno != EINTR) return FileError("upload", errno);
    }
  });
}

Status Uploads::Remove(const std::string& id, const std::string& tenant) {
  Entry entry;
  LH_RETURN_IF_ERROR(FindEntry(id, tenant, &entry));
  if (unlink(entry.path.c_str()) != 0 && errno != ENOENT) return FileError("upload", errno);
  const std::lock_guard lock(extents_mutex_);
  extents_.erase(id);
  return OkStatus();
}

}  // namespace longhold
