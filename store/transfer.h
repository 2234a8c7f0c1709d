// Export and import: converts a store to one stream of bytes and back. `longhold export` writes
// such a stream. docs/formats/export.md specifies the format.
//
// Thread use: *confined* to the store's owner.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"
#include "store/cold_store.h"

namespace longhold {

// Receives the next bytes of a stream. If it returns an error, the export stops and
// returns that error.
using ByteSink = std::function<Status(std::string_view bytes)>;
// Fills `out` with the next bytes of a stream and returns how many there are. 0 means the end.
using ByteSource = std::function<Result<size_t>(std::span<char> out)>;

// What was exported or imported so far. Value type.
struct TransferReport {
  std::string name;  // the memory's name
  uint64_t values = 0;
  uint64_t bytes = 0;     // length of the stream so far
  uint64_t left_out = 0;  // values that the import skipped because of ImportRules::admit
};

// Produces the stream piece by piece, as fast as the caller reads it. Values are copied without a
// check. If one is damaged, whoever reads it after the import finds the damage.
class ExportStream {
 public:
  // Exports `store` as the memory `name`, which has at most 255 bytes. Borrows `store`; nobody may
  // write to it until the end of the stream.
  ExportStream(ColdStore* store, std::string_view name);
  // Returns the next bytes: about 64 KiB, or one value if that is longer. Empty at the end and from
  // then on. Errors: those of the store, and data_loss (a key or value is too long for the format).
  Result<std::string> Next();
  // What was returned so far.
  const TransferReport& report() const { return report_; }

 private:
  void AppendFrame(Table table, std::string_view key, std::string_view value, std::string* out);

  ColdStore* const store_;
  TransferReport report_;
  uint64_t chain_ = 0;
  // The table that is being read. -1: nothing was returned yet. kTableCount: the end was returned.
  int table_ = -1;
  std::string next_key_;  // the first key that was not read yet
};

// Exports the whole store to `sink`.
Result<TransferReport> ExportStore(ColdStore& store, std::string_view name, const ByteSink& sink);

// Reads the beginning of a stream and returns the memory's name. Call it before ImportStore.
// Errors: invalid_argument (not an export, or another version).
Result<std::string> ReadExportName(const ByteSource& source);

struct ImportRules {
  // Called for each value before it is read. Returns whether to keep the value; otherwise it is
  // skipped. An error ends the import. If empty, all values are kept.
  std::function<Result<bool>(Table table, std::string_view key, uint64_t value_bytes)> admit;
  size_t batch_bytes = 16u << 20;  // values are collected up to this size, then written
};

// Reads the rest of the stream, after ReadExportName, into the empty `store`.
//
// Memory: one value plus batch_bytes, about four times that while they are written. A value has no
// length limit here; `admit` must enforce one.
//
// Errors: data_loss (damaged or truncated), and the errors of the rules, the store and the source.
// The store then holds a part of the values.
Result<TransferReport> ImportStore(const ByteSource& source, ColdStore& store,
                                   const ImportRules& rules = {});

}  // namespace longhold
