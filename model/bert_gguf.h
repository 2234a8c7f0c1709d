// A BERT encoder as its trainers publish it becomes the GGUF file that libllama runs.
//
// The safetensors file gives the shapes (layers, width, positions), the vocabulary the WordPiece
// tokens; head count and norm epsilon are in neither and have to be said. Matrices are stored as
// float16, norms, biases, positions and token types as float32: for all-MiniLM-L6-v2 the cosine
// with a float64 reference is above 0.999997 (11 texts, tests/model/bert_reference.py), and q8_0
// would be no faster (6,000 tokens/s either way). The pooler is left out: embeddings are the mean
// over the tokens.
//
// libllama's tokenizer marks the beginning of a word where WordPiece marks its continuation, so
// "##ing" is stored as "ing" and "ing" as "\u2581ing"; tokens in brackets that steer the model
// ([CLS] and its like) stay as they are.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace longhold {

struct BertConversion {
  // a safetensors file of float32 with vocab.txt (one token a line, in the order of ids) appended
  // to it
  std::string from;
  std::string to;    // GGUF; written beside it first, then renamed
  std::string name;  // general.name
  std::string licence;
  uint32_t heads = 0;
  float norm_epsilon = 1e-12f;
};

// Deterministic: the same source yields the same bytes. Errors: not_found, invalid_argument (not
// readable, or not such a file), data_loss (tensors that are missing, of another shape, or beyond
// the file's end), unimplemented (tensors that are not float32), resource_exhausted (a source above
// 1 GiB, or the disk is full).
Status ConvertBert(const BertConversion& conversion);

}  // namespace longhold
