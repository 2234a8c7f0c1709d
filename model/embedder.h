// Loads text embedding models (memory/model/text_embedder.h) with libllama.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "memory/model/text_embedder.h"

namespace longhold {

struct EmbedderOptions {
  std::string path;  // GGUF of an encoder with mean pooling, such as the catalog's minilm-l6
  uint32_t threads = 2;
};

// Errors: not_found, invalid_argument (not a GGUF file, or truncated), unimplemented (not an
// encoder with mean pooling), failed_precondition (the processor lacks the instruction set that
// libllama was built for).
Result<std::unique_ptr<TextEmbedder>> LoadEmbedder(const EmbedderOptions& options);

}  // namespace longhold
