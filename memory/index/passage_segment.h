// The embedding vectors of the sentences of consecutive tokens of one document.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"
#include "memory/model/text_embedder.h"
#include "memory/text/passages.h"

namespace longhold {

inline constexpr uint32_t kPassageSegmentTokensMax = 65536;
inline constexpr uint32_t kPassageDimMax = 4096;
// Codes cover components from -kPassageRange to kPassageRange. Components of unit vectors of 384
// dimensions are below 0.3; larger ones are clamped. The error of an inner product is about 0.001.
inline constexpr float kPassageRange = 0.5f;
// Bytes of a document's name that the model reads before each passage.
inline constexpr size_t kPassageContextBytesMax = 48;

// Passages are contiguous and cover the segment; each has one or more sentences, and each sentence
// a vector (memory/text/passages.h). Memory seals one segment every 4,096 tokens.
// Value type; published once, immutable from then on. Persisted by Memory as bytes
// (docs/formats/index.md): dim + 2 bytes per sentence; with 384 dimensions 13 to 24 bytes per
// token.
struct PassageSegment {
  DocumentId document{};
  uint64_t token_begin = 0;  // first token of the segment in its document; a multiple of 64
  uint32_t token_count = 0;  // 1..kPassageSegmentTokensMax
  uint64_t embedder = 0;     // TextEmbedder::fingerprint of the model that made the vectors
  uint32_t dim = 0;
  std::vector<uint16_t> sentences;  // [sentences] first token within the segment, ascending from 0
  std::vector<uint16_t> passages;   // [passages] first sentence of each, ascending from 0
  // [sentences, dim] component = (2 * code - 254) / 255 * kPassageRange
  std::vector<uint8_t> codes;

  uint64_t token_end() const { return token_begin + token_count; }
  // The tokens of a sentence, and of a passage, within the document.
  TokenSpan Sentence(uint32_t sentence) const;
  TokenSpan Passage(uint32_t passage) const;

  // Cuts and embeds `text`, the text of the segment's tokens. The model reads each passage with the
  // end of the document's name before it, so that a file's path counts for its functions. Must
  // hold: token_begin is a multiple of 64, and there are 1..kPassageSegmentTokensMax tokens.
  // Errors: the embedder's; internal (it did not give a vector of 1..kPassageDimMax components for
  // each sentence).
  static Result<PassageSegment> Build(TextEmbedder& embedder, DocumentId document,
                                      std::string_view document_name, uint64_t token_begin,
                                      const TokenText& text);
  std::string Encode() const;
  // Errors: data_loss on anything wrong; failed_precondition when another version wrote the format
  // or cut the passages by other rules (kPassageRules).
  // Allocates at most bytes.size() plus a small constant.
  static Result<PassageSegment> Decode(std::string_view bytes);

  // Checks what every reader relies on. Returns null if all is well, else a description of the
  // fault.
  const char* Fault() const;

  friend bool operator==(const PassageSegment&, const PassageSegment&) = default;
};

// The code of each component. Must hold: all are finite.
void EncodeComponents(std::span<const float> components, uint8_t* codes);

}  // namespace longhold
