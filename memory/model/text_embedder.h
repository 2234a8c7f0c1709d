// The interface through which the engine and the evaluation use a text embedding model
// (an encoder). model/embedder.h implements it with libllama. Tests use a toy one.
//
// Such a model maps a text to a vector; the inner product of two vectors measures how similar the
// texts are in meaning, also where they share no word.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace longhold {

// At most this many tokens of a text are read, including [CLS] and [SEP], as all-MiniLM-L6-v2 was
// trained. The rest is cut off.
inline constexpr uint32_t kEmbedTokensMax = 256;

// A text that is read at once, in parts that get a vector each. Borrows its texts for the call.
struct TextParts {
  std::string_view context;                 // read before the parts; gets no vector. May be empty
  std::span<const std::string_view> parts;  // in the text's order
};

// An embedding model. Owner: whoever loads it. Thread use: *confined*.
class TextEmbedder {
 public:
  virtual ~TextEmbedder() = default;

  virtual uint32_t dim() const = 0;
  // Changes with weights and tokenizer. Vectors of models with different fingerprints cannot be
  // compared.
  virtual uint64_t fingerprint() const = 0;
  // Embeds the parts of the texts: [parts, dim], each row of length 1. The model reads a text as a
  // whole, and a part's vector is the mean over its own tokens (late chunking, Guenther et al.
  // 2024, arXiv 2409.04701). So "he" knows who he is, and yet a part on another subject keeps a
  // vector of its own. Where a text is longer than kEmbedTokensMax, the parts beyond are read as
  // another text, with the same context. A row does not depend on the other texts, up to rounding.
  // Errors: invalid_argument (a part larger than 1 MiB), internal (the model failed).
  virtual Result<std::vector<float>> EmbedParts(std::span<const TextParts> texts) = 0;
  // How many parts so far were longer than kEmbedTokensMax and were cut. Shows whether passages are
  // too long.
  virtual uint64_t cut_count() const = 0;
  // How many tokens were read so far.
  virtual uint64_t token_count() const = 0;

  // Embeds whole texts: [texts, dim].
  Result<std::vector<float>> EmbedAll(std::span<const std::string_view> texts) {
    std::vector<TextParts> all;
    for (const std::string_view& text : texts) all.push_back({{}, std::span(&text, 1)});
    return EmbedParts(all);
  }
  // Embeds one text: [dim].
  Result<std::vector<float>> Embed(std::string_view text) { return EmbedAll(std::span(&text, 1)); }
};

}  // namespace longhold
