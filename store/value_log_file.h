// The bytes of a value log's log file: its header, the heads of its records, and its table of
// contents. docs/formats/values.md specifies them.
//
// Thread use: pure functions; ScanLogFile reads a file. Internal to store/.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/seal.h"
#include "base/secret.h"
#include "base/status.h"

namespace longhold {

inline constexpr size_t kLogFileHeadBytesMax = 512;
inline constexpr size_t kRecordHeadBytes = 48;
inline constexpr size_t kTableEndBytes = 16;

// The header of a log file. Value type.
struct LogFileHead {
  uint64_t nonce = 0;        // random; part of each checksum of a head
  std::optional<Seal> seal;  // set if the log file is sealed

  // A header with fresh random numbers. With a key the log file is sealed. `name` says whose values
  // these are; a sealed log file opens only under the same name. Sets `*bytes` to the bytes of the
  // file.
  static LogFileHead Make(const Secret& master, std::string_view name, std::string* bytes);
  // Reads the header at the beginning of a file and sets `*bytes` to its length. Errors: data_loss;
  // failed_precondition (sealed, and the key is missing or wrong, or another name).
  static Result<LogFileHead> Parse(std::string_view file, const Secret& master,
                                   std::string_view name, size_t* bytes);
};

// The head of a record, which stands before key and value. Value type.
struct RecordHead {
  enum class Kind : uint32_t { kPut = 1, kDelete = 2, kTable = 3 } kind = Kind::kPut;
  uint32_t key_bytes = 0;    // as stored
  uint64_t value_bytes = 0;  // as stored
  int64_t expires_ms = 0;    // as ValueChange::expires_ms
  uint64_t value_hash = 0;   // Hash64 of the stored value

  uint64_t record_bytes() const { return kRecordHeadBytes + key_bytes + value_bytes; }
};

// The bytes of head and key. Must hold: key.size() == head.key_bytes.
std::string EncodeRecordHead(const RecordHead& head, std::string_view key, uint64_t nonce);
// Reads a head without its checksum, which covers the key. Nothing if the bytes cannot be a head:
// a wrong magic number or a length above the bounds. Must hold: bytes.size() >= kRecordHeadBytes.
std::optional<RecordHead> ParseRecordHead(std::string_view bytes);
// Whether the checksum of head and key is right. `bytes` has exactly these.
bool IsRecordHead(std::string_view bytes, uint64_t nonce);

// What stands behind the table of contents, at the end of a file: where the table's record begins.
std::string EncodeTableEnd(uint64_t offset, uint64_t nonce);
std::optional<uint64_t> ParseTableEnd(std::string_view bytes, uint64_t nonce);

// What a scan of a log file found. Value type.
struct ScannedLogFile {
  uint64_t end = 0;  // of the last whole record
  // What follows is no record: the end of the file, zeros that were allocated in advance, or a
  // table of contents whose end is missing. Otherwise it is a damaged or incomplete record.
  bool good_end = false;
  bool has_table = false;  // the log file was finished: nothing may be appended
};

// Calls `visit` for each put and delete of the log file, in order, with its head, its stored key
// and the offset of its head. Uses the table of contents if there is a good one, else reads the
// heads one after the other up to the first that is damaged or incomplete. `may_end_in_a_write`:
// this is the last log file, so a process may have been killed while it wrote the last record,
// whose value is then checked, too. Errors: internal (the file cannot be read).
Result<ScannedLogFile> ScanLogFile(
    int fd, uint64_t file_bytes, uint64_t head_bytes, uint64_t nonce, bool may_end_in_a_write,
    const std::function<void(const RecordHead& head, std::string_view key, uint64_t offset)>&
        visit);

}  // namespace longhold
