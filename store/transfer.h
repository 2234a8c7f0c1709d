// A store's values as one stream of bytes, and back: what `longhold export` writes.
// docs/formats/export.md.
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

// Takes the next bytes of a stream. What it returns other than ok ends the export with that.
using ByteSink = std::function<Status(std::string_view bytes)>;
// Fills `out` with the next bytes, as many as there are; 0 at the end.
using ByteSource = std::function<Result<size_t>(std::span<char> out)>;

struct TransferReport {
  std::string name;  // of the memory
  uint64_t values = 0;
  uint64_t bytes = 0;     // of the stream
  uint64_t left_out = 0;  // values that an import read past, as ImportRules::admit has it
};

// A store's values as a stream that is read a piece at a time, as fast as somebody takes it. Values
// are taken as they are: damage is exported, and found by whoever reads the value.
class ExportStream {
 public:
  // Under the memory's `name` of at most 255 bytes. Borrows `store`, which nobody may write to
  // until the stream's end.
  ExportStream(ColdStore* store, std::string_view name);
  // The next bytes: some 64 KiB, or one value where that is longer. Empty at the end, and from then
  // on. Errors: the store's; data_loss (a key or value is longer than the format has room for).
  Result<std::string> Next();
  // Of what was read so far.
  const TransferReport& report() const { return report_; }

 private:
  void AppendFrame(Table table, std::string_view key, std::string_view value, std::string* out);

  ColdStore* const store_;
  TransferReport report_;
  uint64_t chain_ = 0;
  // whose values are read; -1: the head comes first; kTableCount: the end was given
  int table_ = -1;
  std::string next_key_;  // not read yet
};

// All of it.
Result<TransferReport> ExportStore(ColdStore& store, std::string_view name, const ByteSink& sink);

// Reads the stream's beginning: the memory's name. Errors: invalid_argument (no export, or another
// version's).
Result<std::string> ReadExportName(const ByteSource& source);

struct ImportRules {
  // Asked for each value before it is read: whether it is kept. One that is not is read past. An
  // error ends the import. Empty: all are kept.
  std::function<Result<bool>(Table table, std::string_view key, uint64_t value_bytes)> admit;
  size_t batch_bytes = 16u << 20;  // that are held before they are written
};

// Reads all that follows it into an empty store. What it holds at a time is one value and
// batch_bytes, some four times while they are written; how long a value may be is for `admit` to
// say. Errors: data_loss (damaged or cut off), those of the rules, the store and the source; the
// store then holds a part.
Result<TransferReport> ImportStore(const ByteSource& source, ColdStore& store,
                                   const ImportRules& rules = {});

}  // namespace longhold
