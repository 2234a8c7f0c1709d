// Embeds texts as vectors whose inner product measures how similar the texts are. The retrieval
// baseline uses it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace longhold {

// At most this many tokens of a text are read, including [CLS] and [SEP], as all-MiniLM-L6-v2 was
// trained. The rest is cut off.
inline constexpr uint32_t kEmbedTokensMax = 256;

// An embedding model. Owner: whoever loads it. Thread use: *confined*.
class TextEmbedder {
 public:
  virtual ~TextEmbedder() = default;

  virtual uint32_t dim() const = 0;
  // Embeds the texts: [texts, dim], each row of length 1. A row does not depend on the other
  // texts, up to rounding. Errors: invalid_argument (a text larger than 1 MiB), internal
  // (the model failed).
  virtual Result<std::vector<float>> EmbedAll(std::span<const std::string_view> texts) = 0;
  // How many texts so far were longer than kEmbedTokensMax and were cut. Shows whether passages
  // are too long.
  virtual uint64_t cut_count() const = 0;
  // How many tokens were read so far.
  virtual uint64_t token_count() const = 0;

  // Embeds one text: [dim].
  Result<std::vector<float>> Embed(std::string_view text) { return EmbedAll(std::span(&text, 1)); }
};

struct EmbedderOptions {
  std::string path;  // GGUF of an encoder with mean pooling, such as the catalog's minilm-l6
  uint32_t threads = 2;
};

// Errors: not_found, invalid_argument (not a GGUF file, or truncated), unimplemented (not an
// encoder with mean pooling), failed_precondition (the processor lacks the instruction set that
// libllama was built for).
Result<std::unique_ptr<TextEmbedder>> LoadEmbedder(const EmbedderOptions& options);

}  // namespace longhold
