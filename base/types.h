// The engine's small value types: tokens, blocks, spans, documents. All other folders use them.
//
// Thread use: value types; *immutable* use.
#pragma once

#include <compare>
#include <cstdint>

namespace longhold {

// A token id in the model's vocabulary.
using TokenId = int32_t;

// Tokens per block. A block holds the keys and values of all tapped layers for these tokens. The
// on-disk formats depend on this number.
inline constexpr uint32_t kBlockTokens = 64;

// A document within its memory. An id is never reused in a memory, even after its
// document was forgotten.
enum class DocumentId : uint32_t {};

// A half-open range of token indices in one document.
struct TokenSpan {
  uint64_t begin = 0;
  uint64_t end = 0;

  uint64_t size() const { return end - begin; }
  bool empty() const { return begin >= end; }
  bool Contains(uint64_t token) const { return begin <= token && token < end; }
  friend auto operator<=>(const TokenSpan&, const TokenSpan&) = default;
};

// Identifies one block: tokens [64 * block, 64 * block + 64) of a document.
struct BlockKey {
  DocumentId document{};
  uint32_t block = 0;

  friend auto operator<=>(const BlockKey&, const BlockKey&) = default;
};

// A half-open range of bytes in one document's text.
struct ByteSpan {
  uint64_t begin = 0;
  uint64_t end = 0;

  uint64_t size() const { return end - begin; }
  friend auto operator<=>(const ByteSpan&, const ByteSpan&) = default;
};

}  // namespace longhold
