// A store's values as one stream of bytes, and back: what `longhold export` writes. docs/formats/export.md.
//
// Thread use: free functions, *confined* to the store's owner.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

class ColdStore;

// Takes the next bytes of a stream. What it returns other than ok ends the export with that.
using ByteSink = std::function<Status(std::string_view bytes)>;
// Fills `out` with the next bytes, as many as there are; 0 at the end.
using ByteSource = std::function<Result<size_t>(std::span<char> out)>;

struct TransferReport {
  std::string name;     // of the memory
  uint64_t values = 0;
  uint64_t bytes = 0;   // of the stream
};

// Writes everything that `store` holds, under the memory's `name` of at most 255 bytes. Values are taken as they are: damage is exported,
// and found by whoever reads the value.
Result<TransferReport> ExportStore(ColdStore& store, std::string_view name, const ByteSink& sink);

// Reads the stream's beginning: the memory's name. Errors: invalid_argument (no export, or another version's).
Result<std::string> ReadExportName(const ByteSource& source);
// Reads all that follows it into an empty store. Needs memory for one value and 16 MiB, whatever the stream says. Errors: data_loss (damaged
// or cut off), those of the store and the source; the store then holds a part.
Result<TransferReport> ImportStore(const ByteSource& source, ColdStore& store);

}  // namespace longhold
