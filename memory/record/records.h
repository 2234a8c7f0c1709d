// The records in which a memory describes itself and its documents, as value types. The bytes are
// specified in docs/formats/records.md. Generated flatbuffers code is used only in records.cc.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"

namespace longhold {

// A memory is indexed for at most so many recall heads.
inline constexpr uint32_t kScanHeadsMax = 64;

// Tokens between two commits, and of one index segment. The stored index depends on this number.
inline constexpr uint32_t kCommitTokens = 4096;

// Upper bounds of stored numbers. A reader reports a larger number as damage: these numbers decide
// what is allocated and indexed, and they may come from an untrusted export.
inline constexpr uint32_t kTappedLayersMax = 1024;
inline constexpr uint32_t kKvHeadsMax = 1024;
// Attention keys and values of 64 tokens: 128 MiB as fp16.
inline constexpr uint64_t kBlockElementsMax = 1u << 26;
inline constexpr uint32_t kDocumentIdsMax = 1u << 31;
// Text bytes of one chunk. A chunk ends after the last newline within this limit, if there is one.
inline constexpr size_t kChunkBytesMax = 32u << 10;
// A tokenizer produces one token for a byte, rarely two.
inline constexpr uint64_t kChunkTokensMax = 2 * kChunkBytesMax;
// A text chunk's record, also when decompressed.
inline constexpr size_t kTextRecordBytesMax = 1u << 20;

// One per memory. All other stored bytes depend on it.
struct Manifest {
  std::string name;
  std::string model_name, model_architecture, model_fingerprint;
  std::vector<uint32_t> layers;
  uint32_t q_heads = 0, kv_heads = 0, head_dim = 0;
  std::string codec;
  std::string profile;                               // the profile whose heads the scan index holds
  std::vector<uint32_t> scan_layers, scan_kv_heads;  // [heads]
  uint32_t sink_tokens = 0, window_tokens = 0;
  uint32_t next_document = 1;
  // Scan segments of this generation are valid. Reindexing for other heads starts the next one.
  uint32_t index_generation = 0;
};

struct DocumentRecord {
  DocumentId id{};
  std::string name;
  // Other names under which the same content was ingested. Only complete documents have any.
  std::vector<std::string> aliases;
  std::string sha256;  // of the text
  uint32_t version = 1;
  uint64_t bytes = 0;
  uint64_t tokens = 0;
  // The model has read everything before this token: its blocks, the index segments of its keys and
  // the resume state are in the store.
  uint64_t committed_tokens = 0;
  // Everything before this token is found by its words, and by its meaning where there is an
  // embedding model. At least committed_tokens; a text is searchable before it is read.
  uint64_t searchable_tokens = 0;
  std::vector<uint64_t> chunk_tokens;  // first token of each text chunk, ascending
  // Tokens of one forward pass during ingest: a power of two in [64, kCommitTokens]. Attention keys
  // and values depend slightly on it.
  uint32_t pass_tokens = 512;
  // The first token of assistant text, which is always at the document's end. 0: there is none.
  uint64_t assistant_begin = 0;

  // The model has read all of it.
  bool complete() const { return committed_tokens == tokens; }
  // All of it is found.
  bool searchable() const { return searchable_tokens == tokens; }
  bool HasName(std::string_view wanted) const {
    return name == wanted || std::find(aliases.begin(), aliases.end(), wanted) != aliases.end();
  }
};

// A part of a document's text with its tokens. Everything else can be rebuilt from these records.
struct TextChunk {
  uint64_t byte_begin = 0;
  uint64_t line_begin = 0;  // number of line ends before this chunk
  uint64_t token_begin = 0;
  std::string text;
  std::vector<TokenId> tokens;
  std::vector<uint16_t> token_bytes;  // [tokens]; their sum is text.size()
};

// What an interrupted ingest needs to continue, in addition to the stored blocks.
struct ResumeRecord {
  uint64_t tokens = 0;
  std::string native;  // LanguageModel::NativeSave
  // The blocks of the window before `tokens`, oldest first. Each is encoded by the exact codec; all
  // have the same size. Empty in a memory whose codec is exact.
  std::string window;
  // SegmentKeys::Save of the unfinished index segment. Empty when `window` is empty.
  std::string keys;
};

// A block that the model has read out of order, for a question, before it has read the document up
// to there. A block that is read in order replaces it.
struct ProvisionalRecord {
  uint32_t run_up = 0;  // tokens right before the block that were read with it
  uint32_t tokens = 0;  // that the block holds; the last one that was read may hold fewer than 64
  std::string block;    // as block.md has it
};

// Format: "LHR" and a codec digit, XXH3-64 of the rest, then a flatbuffer (zstd for text chunks).
std::string Encode(const Manifest& record);
std::string Encode(const DocumentRecord& record);
std::string Encode(const TextChunk& record);
std::string Encode(const ResumeRecord& record);
std::string Encode(const ProvisionalRecord& record);
// Errors: data_loss on anything wrong, including numbers beyond the bounds above. Hostile bytes
// never cause a crash. Allocates a few times bytes.size(), and at most kTextRecordBytesMax for
// compressed data.
Result<Manifest> DecodeManifest(std::string_view bytes);
Result<DocumentRecord> DecodeDocument(std::string_view bytes);
Result<TextChunk> DecodeTextChunk(std::string_view bytes);
Result<ResumeRecord> DecodeResume(std::string_view bytes);
Result<ProvisionalRecord> DecodeProvisional(std::string_view bytes);

}  // namespace longhold
