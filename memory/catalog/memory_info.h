// What can be said about a memory without its model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/types.h"

namespace longhold {

// Value type.
struct DocumentInfo {
  DocumentId id{};
  std::string name;
  std::vector<std::string> aliases;  // other names under which the same content was ingested
  uint64_t bytes = 0;
  uint64_t tokens = 0;
  uint64_t searchable_tokens = 0;  // found; less than `tokens` while the text is indexed
  uint64_t committed_tokens = 0;   // read by the model; less than `tokens` until all of it is read
  uint32_t version = 1;
};

// Value type.
struct MemoryInfo {
  std::string name;
  // Why the memory cannot be read; then only `name` and `disk_bytes` are known. Ok from Show.
  Status status;
  std::string model;  // the model's name
  std::string model_fingerprint;
  std::string codec;
  std::vector<DocumentInfo> documents;
  uint64_t tokens = 0;       // searchable, over all documents
  uint64_t tokens_read = 0;  // by the model, of these
  uint64_t disk_bytes = 0;
};

// Where a memory's bytes are (docs/architecture.md, tiers). Value type.
struct TierReport {
  uint64_t tokens = 0;
  uint64_t exact_bytes = 0;      // of their keys and values in fp16
  bool open = false;             // the engine holds the memory open, with its indexes in RAM
  uint64_t ram_index_bytes = 0;  // of those indexes
  std::string codec;             // of the blocks
  // on the disk
  uint64_t blocks_bytes = 0, index_bytes = 0, text_bytes = 0, other_bytes = 0;
};

}  // namespace longhold
