// Converts a BERT encoder from the form in which it was published (safetensors) to the GGUF file
// that libllama runs.
//
// The safetensors file gives the shapes (layers, width, positions); the vocabulary gives
// the WordPiece tokens. Neither contains the head count and the norm epsilon, so the caller
// must pass them.
//
// Matrices are stored as fp16; norms, biases, positions and token types as float32. For
// all-MiniLM-L6-v2, the cosine similarity to a float64 reference is above 0.999997 (11 texts,
// tests/model/bert_reference.py). q8_0 would not be faster (6,000 tokens/s in both cases). The
// pooler is left out: an embedding is the mean over the tokens.
//
// libllama's tokenizer marks the start of a word, while WordPiece marks its continuation. So
// "##ing" is stored as "ing", and "ing" as "\u2581ing". Control tokens in brackets, such as
// [CLS], are unchanged.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace longhold {

struct BertConversion {
  // A safetensors file of float32, followed by vocab.txt (one token per line, in the order of ids).
  std::string from;
  std::string to;    // GGUF; written to a temporary file next to it, then renamed
  std::string name;  // general.name
  std::string licence;
  uint32_t heads = 0;
  float norm_epsilon = 1e-12f;
};

// Deterministic: the same source gives the same bytes. Errors:
//   not_found           no such source
//   invalid_argument    the source is not readable, or is not such a file
//   data_loss           tensors are missing, have another shape, or lie beyond the file's end
//   unimplemented       tensors are not float32
//   resource_exhausted  the source is larger than 1 GiB, or the disk is full
Status ConvertBert(const BertConversion& conversion);

}  // namespace longhold
