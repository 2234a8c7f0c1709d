// What a memory stores about itself and its documents, as values; the bytes are
// docs/formats/records.md. Generated flatbuffers code stops at records.cc.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"

namespace longhold {

// Tokens between two commits, and of one index segment. A contract of the stored index.
inline constexpr uint32_t kCommitTokens = 4096;

// What a stored number may be, at most. A reader refuses anything beyond as damage: these numbers
// size what is allocated and indexed, and may come from a stranger's export.
inline constexpr uint32_t kTappedLayersMax = 1024;
inline constexpr uint32_t kKvHeadsMax = 1024;
// keys and values of 64 tokens: 128 MiB as halves
inline constexpr uint64_t kBlockElementsMax = 1u << 26;
inline constexpr uint32_t kDocumentIdsMax = 1u << 31;
// text bytes of one chunk; chunks end at a line's end where there is one
inline constexpr size_t kChunkBytesMax = 32u << 10;
// a tokenizer gives a byte one token, rarely a second one
inline constexpr uint64_t kChunkTokensMax = 2 * kChunkBytesMax;
// a text chunk's record, also unpacked
inline constexpr size_t kTextRecordBytesMax = 1u << 20;

// Once per memory. Everything that later bytes depend on.
struct Manifest {
  std::string name;
  std::string model_name, model_architecture, model_fingerprint;
  std::vector<uint32_t> layers;
  uint32_t q_heads = 0, kv_heads = 0, head_dim = 0;
  std::string codec;
  std::string profile;                               // whose heads the scan index holds
  std::vector<uint32_t> scan_layers, scan_kv_heads;  // [heads]
  uint32_t sink_tokens = 0, window_tokens = 0;
  uint32_t next_document = 1;
  // which scan segments count; reindexing for other heads makes the next
  uint32_t index_generation = 0;
};

struct DocumentRecord {
  DocumentId id{};
  std::string name;
  // other names under which the same content was ingested; only of complete documents
  std::vector<std::string> aliases;
  std::string sha256;  // of the text
  uint32_t version = 1;
  uint64_t bytes = 0;
  uint64_t tokens = 0;
  // everything before is in the store: blocks, index segments, resume state
  uint64_t committed_tokens = 0;
  std::vector<uint64_t> chunk_tokens;  // first token of each text chunk, ascending
  // Tokens of one forward pass while it is read: a power of two in [64, kCommitTokens]. Keys and
  // values depend on it a little.
  uint32_t pass_tokens = 512;
  // the first token of the model's own words, which end the text; 0: there are none
  uint64_t assistant_begin = 0;

  bool complete() const { return committed_tokens == tokens; }
  bool HasName(std::string_view wanted) const {
    return name == wanted || std::find(aliases.begin(), aliases.end(), wanted) != aliases.end();
  }
};

// A piece of a document's text with its tokens: the record from which everything else can be
// rebuilt.
struct TextChunk {
  uint64_t byte_begin = 0;
  uint64_t line_begin = 0;  // lines that ended before this chunk
  uint64_t token_begin = 0;
  std::string text;
  std::vector<TokenId> tokens;
  std::vector<uint16_t> token_bytes;  // [tokens]; they add up to text.size()
};

// What a killed ingest needs beside the blocks.
struct ResumeRecord {
  uint64_t tokens = 0;
  std::string native;  // LanguageModel::NativeSave
  // The blocks of the window before `tokens`, oldest first, each as the exact codec encodes it and
  // all of one size; empty in a memory whose blocks are exact themselves.
  std::string window;
  // SegmentKeys::Save of the open index segment; empty where `window` is.
  std::string keys;
};

// Bytes: "LHR" and a codec digit, XXH3-64 of the rest, then a flatbuffer (zstd for text chunks).
std::string Encode(const Manifest& record);
std::string Encode(const DocumentRecord& record);
std::string Encode(const TextChunk& record);
std::string Encode(const ResumeRecord& record);
// Errors: data_loss on anything wrong, numbers out of the bounds above included; never crashes on
// hostile bytes. Allocates a few times bytes.size(), and at most kTextRecordBytesMax for what is
// packed.
Result<Manifest> DecodeManifest(std::string_view bytes);
Result<DocumentRecord> DecodeDocument(std::string_view bytes);
Result<TextChunk> DecodeTextChunk(std::string_view bytes);
Result<ResumeRecord> DecodeResume(std::string_view bytes);

}  // namespace longhold
