// The disk quota of a memory's owner while a document is written, by a model that reads it
// (ingest.h) or by another engine that puts its rows (memory/sidecar/document_writer.h).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "memory/core/memory.h"

namespace longhold {

// How many bytes a memory may have on the disk. Asked from the thread that writes; an error ends
// the writing. Empty: as many as the disk has.
using DiskBytesMax = std::function<Result<uint64_t>()>;

// The least and most bytes that a codec's blocks take, relative to 16 bits per element. Limits of
// disk space use it until the first block is written. See docs/figures.md, "Codecs". Value type.
struct StoredShare {
  double least = 1, most = 1;
};
StoredShare StoredShareOf(std::string_view codec);

// Compares the quota with the bytes in use and the bytes still to come. Asking costs a look at all
// memories of the owner, so the last reply counts until the next Ask. Owner: who writes the
// document. Thread use: *confined*.
class DiskAllowance {
 public:
  // Borrows `memory`. `document`: its name, for errors.
  DiskAllowance(DiskBytesMax bytes_max, std::string document, const Memory& memory);

  // Asks again how many bytes the owner may use. Errors: those of the reply.
  Status Ask();
  // Whether `tokens` more may be written. `all`: these are all remaining tokens; a text that cannot
  // fit is not started. Errors: failed_precondition.
  Status Admit(uint64_t tokens, bool all) const;
  // `tokens` more have been written.
  void Wrote(uint64_t tokens) { written_ += tokens; }

 private:
  const DiskBytesMax ask_;
  const std::string document_;
  const Memory& memory_;
  const uint64_t begun_bytes_;
  const double exact_token_bytes_;
  uint64_t bytes_max_ = UINT64_MAX, written_ = 0;
};

}  // namespace longhold
