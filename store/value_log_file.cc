#include "store/value_log_file.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/hash.h"
#include "store/code_bytes.h"
#include "store/value_store.h"

namespace longhold {
namespace {

constexpr std::string_view kMagic = "LHVALUES";
constexpr uint32_t kVersion = 1;
constexpr uint32_t kSealedFlag = 1;
// Magic, version, flags, nonce, length of what follows up to the checksum.
constexpr size_t kFixedBytes = 8 + 4 + 4 + 8 + 4;
constexpr uint32_t kRecordMagic = 0x31524c56;  // "VLR1"
constexpr std::string_view kPurpose = "longhold values", kNameCheck = "owner of the values";
// A table of contents above this is not read; the writer's bound is below it.
constexpr uint64_t kTableBytesMax = 64ull << 20;
// Of a scan: what one read takes when records follow closely, and when they do not.
constexpr uint64_t kNearBytes = 128 << 10, kFarBytes = 4 << 10;

template <typename T>
T NumberAt(std::string_view bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

// The checksum of two parts, for this log file only.
uint64_t CheckOf(uint64_t nonce, std::string_view first, std::string_view second = {}) {
  std::string all;
  all.reserve(sizeof nonce + first.size() + second.size());
  AppendNumber(&all, nonce);
  all.append(first);
  all.append(second);
  return Hash64(all);
}

// A part of a file in RAM that follows a scan forward.
class Window {
 public:
  Window(int fd, uint64_t file_bytes) : fd_(fd), file_bytes_(file_bytes) {}

  // The bytes at [offset, offset + bytes), fewer at the end of the file. Valid until the next call.
  Result<std::string_view> At(uint64_t offset, uint64_t bytes) {
    if (offset < begin_ || offset + bytes > begin_ + buffer_.size()) {
      const bool near = offset <= begin_ + buffer_.size() + kNearBytes;
      const uint64_t want = std::max(bytes, near ? kNearBytes : kFarBytes);
      buffer_.resize(std::min(want, file_bytes_ - std::min(offset, file_bytes_)));
      begin_ = offset;
      for (size_t have = 0; have < buffer_.size();) {
        const ssize_t n = pread(fd_, buffer_.data() + have, buffer_.size() - have,
                                static_cast<off_t>(begin_ + have));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
          return Internal(std::string("read a log file of values: ") + std::strerror(errno));
        if (n == 0) buffer_.resize(have);
        have += static_cast<size_t>(n);
      }
    }
    const std::string_view all = buffer_;
    return all.substr(std::min<uint64_t>(offset - begin_, all.size()), bytes);
  }

 private:
  const int fd_;
  const uint64_t file_bytes_;
  std::string buffer_;
  uint64_t begin_ = 0;
};

// The heads and keys of a good table of contents, and where its record begins; nothing if there is
// none.
Result<std::optional<std::pair<std::string, uint64_t>>> ReadTable(Window& window,
                                                                  uint64_t file_bytes,
                                                                  uint64_t head_bytes,
                                                                  uint64_t nonce) {
  using None = std::optional<std::pair<std::string, uint64_t>>;
  if (file_bytes < head_bytes + kRecordHeadBytes + kTableEndBytes) return None();
  LH_ASSIGN_OR_RETURN(const std::string_view end,
                      window.At(file_bytes - kTableEndBytes, kTableEndBytes));
  if (end.size() < kTableEndBytes) return None();
  const std::optional<uint64_t> offset = ParseTableEnd(end, nonce);
  if (!offset.has_value() || *offset < head_bytes ||
      *offset > file_bytes - kTableEndBytes - kRecordHeadBytes ||
      file_bytes - *offset > kTableBytesMax)
    return None();
  LH_ASSIGN_OR_RETURN(const std::string_view record,
                      window.At(*offset, file_bytes - kTableEndBytes - *offset));
  if (record.size() < kRecordHeadBytes) return None();
  const std::string_view head_part = record.substr(0, kRecordHeadBytes);
  const std::optional<RecordHead> head = ParseRecordHead(head_part);
  if (!head.has_value() || head->kind != RecordHead::Kind::kTable || head->key_bytes != 0 ||
      head->record_bytes() != record.size() || !IsRecordHead(head_part, nonce) ||
      Hash64(record.substr(kRecordHeadBytes)) != head->value_hash)
    return None();
  return None({std::string(record.substr(kRecordHeadBytes)), *offset});
}

}  // namespace

LogFileHead LogFileHead::Make(const Secret& master, std::string_view name, std::string* bytes) {
  LogFileHead head;
  const std::string random = RandomBytes(sizeof head.nonce);
  std::memcpy(&head.nonce, random.data(), sizeof head.nonce);
  std::string sealed;
  if (!master.empty()) {
    const std::string salt = RandomBytes(kSealSaltBytes);
    head.seal = Seal::Derive(master, salt, kPurpose);
    Result<std::string> closed = head.seal->Close(name, kNameCheck);
    LH_CHECK(closed.ok());  // only a name longer than 2^36 bytes is refused
    sealed = salt + *closed;
  }
  *bytes = kMagic;
  AppendNumber(bytes, kVersion);
  AppendNumber(bytes, head.seal.has_value() ? kSealedFlag : 0u);
  AppendNumber(bytes, head.nonce);
  AppendNumber(bytes, static_cast<uint32_t>(sealed.size()));
  bytes->append(sealed);
  AppendNumber(bytes, Hash64(*bytes));
  LH_CHECK(bytes->size() <= kLogFileHeadBytesMax);
  return head;
}

Result<LogFileHead> LogFileHead::Parse(std::string_view file, const Secret& master,
                                       std::string_view name, size_t* bytes) {
  if (file.size() < kFixedBytes + sizeof(uint64_t) || !file.starts_with(kMagic))
    return DataLoss("is no log file of values");
  const uint32_t version = NumberAt<uint32_t>(file, 8), flags = NumberAt<uint32_t>(file, 12);
  const uint32_t sealed_bytes = NumberAt<uint32_t>(file, 24);
  if (version != kVersion || (flags & ~kSealedFlag) != 0)
    return FailedPrecondition("was written by another version of longhold");
  if (sealed_bytes > kLogFileHeadBytesMax ||
      file.size() < kFixedBytes + sealed_bytes + sizeof(uint64_t))
    return DataLoss("its header is damaged");
  const size_t checked = kFixedBytes + sealed_bytes;
  if (Hash64(file.substr(0, checked)) != NumberAt<uint64_t>(file, checked))
    return DataLoss("its header is damaged");
  *bytes = checked + sizeof(uint64_t);
  LogFileHead head;
  head.nonce = NumberAt<uint64_t>(file, 16);
  if (flags == 0) return head;
  if (master.empty())
    return FailedPrecondition("is encrypted; give the key with --encryption-key FILE");
  const std::string_view sealed = file.substr(kFixedBytes, sealed_bytes);
  if (sealed.size() < kSealSaltBytes) return DataLoss("its header is damaged");
  head.seal = Seal::Derive(master, sealed.substr(0, kSealSaltBytes), kPurpose);
  const Result<std::string> opened = head.seal->Open(sealed.substr(kSealSaltBytes), kNameCheck);
  if (!opened.ok())
    return FailedPrecondition("is encrypted with another key, or its header is damaged");
  if (*opened != name)
    return FailedPrecondition("holds values of another tenant; move the file back");
  return head;
}

std::string EncodeRecordHead(const RecordHead& head, std::string_view key, uint64_t nonce) {
  LH_CHECK(key.size() == head.key_bytes);
  std::string bytes;
  bytes.reserve(kRecordHeadBytes + key.size());
  AppendNumber(&bytes, kRecordMagic);
  AppendNumber(&bytes, static_cast<uint32_t>(head.kind));
  AppendNumber(&bytes, head.key_bytes);
  AppendNumber(&bytes, uint32_t{0});
  AppendNumber(&bytes, head.value_bytes);
  AppendNumber(&bytes, head.expires_ms);
  AppendNumber(&bytes, head.value_hash);
  AppendNumber(&bytes, CheckOf(nonce, bytes, key));
  bytes.append(key);
  return bytes;
}

std::optional<RecordHead> ParseRecordHead(std::string_view bytes) {
  const uint32_t kind = NumberAt<uint32_t>(bytes, 4);
  RecordHead head{.kind = static_cast<RecordHead::Kind>(kind),
                  .key_bytes = NumberAt<uint32_t>(bytes, 8),
                  .value_bytes = NumberAt<uint64_t>(bytes, 16),
                  .expires_ms = NumberAt<int64_t>(bytes, 24),
                  .value_hash = NumberAt<uint64_t>(bytes, 32)};
  if (NumberAt<uint32_t>(bytes, 0) != kRecordMagic || NumberAt<uint32_t>(bytes, 12) != 0)
    return std::nullopt;
  if (kind < 1 || kind > 3 || head.expires_ms < 0 ||
      head.key_bytes > kValueKeyBytesMax + kSealExtraBytes ||
      head.value_bytes > kValueBytesMax + kSealExtraBytes)
    return std::nullopt;
  return head;
}

bool IsRecordHead(std::string_view bytes, uint64_t nonce) {
  constexpr size_t kCheckAt = kRecordHeadBytes - sizeof(uint64_t);
  return CheckOf(nonce, bytes.substr(0, kCheckAt), bytes.substr(kRecordHeadBytes)) ==
         NumberAt<uint64_t>(bytes, kCheckAt);
}

std::string EncodeTableEnd(uint64_t offset, uint64_t nonce) {
  std::string bytes;
  AppendNumber(&bytes, offset);
  AppendNumber(&bytes, CheckOf(nonce, bytes));
  return bytes;
}

std::optional<uint64_t> ParseTableEnd(std::string_view bytes, uint64_t nonce) {
  if (CheckOf(nonce, bytes.substr(0, sizeof(uint64_t))) !=
      NumberAt<uint64_t>(bytes, sizeof(uint64_t)))
    return std::nullopt;
  return NumberAt<uint64_t>(bytes, 0);
}

Result<ScannedLogFile> ScanLogFile(
    int fd, uint64_t file_bytes, uint64_t head_bytes, uint64_t nonce, bool may_end_in_a_write,
    const std::function<void(const RecordHead&, std::string_view, uint64_t)>& visit) {
  Window window(fd, file_bytes);
  LH_ASSIGN_OR_RETURN(const auto table, ReadTable(window, file_bytes, head_bytes, nonce));
  const uint64_t records_end = table.has_value() ? table->second : file_bytes;
  uint64_t offset = head_bytes;  // of the record in the file
  uint64_t at = 0;               // of its head in the table
  bool good_end = false;
  // The latest record, not yet visited. A process that is killed while it writes leaves a good head
  // and a part of the value, and zeros that were allocated in advance where the rest would be.
  struct Latest {
    RecordHead head;
    std::string key;
    uint64_t offset;
  };
  std::optional<Latest> latest;
  for (;;) {
    const auto part = [&](uint64_t bytes) -> Result<std::string_view> {
      if (!table.has_value()) return window.At(offset, bytes);
      return std::string_view(table->first)
          .substr(std::min<uint64_t>(at, table->first.size()), bytes);
    };
    LH_ASSIGN_OR_RETURN(const std::string_view fixed, part(kRecordHeadBytes));
    good_end = fixed.find_first_not_of('\0') == std::string_view::npos;
    if (fixed.size() < kRecordHeadBytes) break;
    const std::optional<RecordHead> head = ParseRecordHead(fixed);
    if (!head.has_value() || head->record_bytes() > records_end - offset) break;
    LH_ASSIGN_OR_RETURN(const std::string_view whole, part(kRecordHeadBytes + head->key_bytes));
    if (whole.size() < kRecordHeadBytes + head->key_bytes || !IsRecordHead(whole, nonce)) break;
    // A table without the end behind it: the process ended while it finished the log file.
    good_end = head->kind == RecordHead::Kind::kTable;
    if (good_end) break;
    if (latest) visit(latest->head, latest->key, latest->offset);
    latest = Latest{*head, std::string(whole.substr(kRecordHeadBytes)), offset};
    offset += head->record_bytes();
    at += whole.size();
  }
  if (latest) {
    bool whole = true;
    if (may_end_in_a_write && !table.has_value() && latest->head.kind == RecordHead::Kind::kPut) {
      LH_ASSIGN_OR_RETURN(const std::string_view value,
                          window.At(latest->offset + kRecordHeadBytes + latest->head.key_bytes,
                                    latest->head.value_bytes));
      whole = Hash64(value) == latest->head.value_hash;
    }
    if (whole) {
      visit(latest->head, latest->key, latest->offset);
    } else {
      offset = latest->offset;
      good_end = false;
    }
  }
  return ScannedLogFile{.end = offset, .good_end = good_end, .has_table = table.has_value()};
}

}  // namespace longhold
