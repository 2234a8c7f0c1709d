// Texts as vectors whose inner product says how alike they are: the embedding model of the
// retrieval baseline.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace longhold {

// A text is read up to this many tokens, [CLS] and [SEP] included, as all-MiniLM-L6-v2 was trained;
// what follows is cut off.
inline constexpr uint32_t kEmbedTokensMax = 256;

// Owner: whoever loads it. Thread use: *confined*.
class TextEmbedder {
 public:
  virtual ~TextEmbedder() = default;

  virtual uint32_t dim() const = 0;
  // [texts, dim], each row of length 1. A row does not depend on the texts beside it, up to
  // rounding. Errors: invalid_argument (a text above 1 MiB), internal (the model failed).
  virtual Result<std::vector<float>> EmbedAll(std::span<const std::string_view> texts) = 0;
  // How many texts so far were longer than kEmbedTokensMax and cut: a figure that says whether
  // passages are too long.
  virtual uint64_t cut_count() const = 0;
  // Tokens that were read so far.
  virtual uint64_t token_count() const = 0;

  // [dim]
  Result<std::vector<float>> Embed(std::string_view text) { return EmbedAll(std::span(&text, 1)); }
};

struct EmbedderOptions {
  std::string path;  // GGUF of an encoder with mean pooling; the catalog's minilm-l6
  uint32_t threads = 2;
};

// Errors: not_found, invalid_argument (not a GGUF, truncated), unimplemented (not an encoder with
// mean pooling), failed_precondition (the processor lacks the instruction set that libllama was
// built for).
Result<std::unique_ptr<TextEmbedder>> LoadEmbedder(const EmbedderOptions& options);

}  // namespace longhold
