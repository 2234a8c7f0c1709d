// Puts a document whose keys and values another engine computed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "memory/catalog/memory_catalog.h"
#include "memory/core/model_context.h"
#include "memory/ingest/disk_allowance.h"
#include "memory/ingest/segment_writer.h"
#include "memory/sidecar/kv_rows.h"

namespace longhold {

// A text with the tokens that the engine read. Borrows text and tokens for the call.
struct GivenDocument {
  std::string_view name;
  std::string_view text;  // valid UTF-8, not empty
  std::span<const TokenId> tokens;
  // [tokens] bytes of text that each has; their sum is text.size(). Empty: those of its piece.
  std::span<const uint16_t> token_bytes;
  // How many bytes the memory may have on the disk. Copied: the writer asks at its begin, and once
  // more per 512 tokens.
  DiskBytesMax disk_bytes_max;
};

// The text and its tokens as chunks of at most kChunkBytesMax, cut between tokens: after a line
// break where there is one. Errors: invalid_argument (the tokens do not add up to the text; a token
// is not in the vocabulary).
Result<std::vector<TextChunk>> CutGivenText(std::span<const std::string> pieces,
                                            const GivenDocument& document);

// Owner: the caller, who must not outlive the memory's catalog. Thread use: *confined*. Memory: the
// rows of 512 tokens, and SegmentWriter's.
class DocumentWriter {
 public:
  // Adds the document, or continues one that was interrupted. Borrows `context`. Errors:
  // invalid_argument; the store's.
  static Result<std::unique_ptr<DocumentWriter>> Begin(MemoryLease memory,
                                                       const ModelContext& context,
                                                       const GivenDocument& document);

  DocumentId document() const { return id_; }
  uint64_t tokens() const { return tokens_; }
  // Tokens whose rows are here: the next rows are those of this token.
  uint64_t position() const { return position_; }
  // Appends `count` rows, the first of which has its key at `rotary_position`. Commits at multiples
  // of kCommitTokens. On an error, position() says how many rows were taken. Errors:
  // invalid_argument, resource_exhausted; failed_precondition (the disk quota; no row is taken).
  Status Append(const KvArrays<const void>& arrays, size_t count, int64_t rotary_position);
  // Commits what is here. Where rows are missing, that is up to the last whole block, and the
  // document stays unfinished. Must be the last call.
  Status Finish();

 private:
  DocumentWriter(MemoryLease memory, const ModelContext& context)
      : memory_(std::move(memory)), context_(context) {}
  // Hands whole blocks to the writer, and with `last` the last one, too.
  Status Flush(bool last);

  MemoryLease memory_;
  const ModelContext& context_;
  std::optional<SegmentWriter> writer_;  // none: the memory has the content already
  DocumentId id_{};
  std::optional<DocumentId> retire_;
  std::optional<DiskAllowance> allowance_;  // set if writer_ is
  uint64_t tokens_ = 0;
  uint64_t position_ = 0;
  std::vector<KvBlock> blocks_;  // not yet stored; all but the last are full
};

}  // namespace longhold
