// The baseline `rag-embed`: passages ranked by the inner product of their embeddings with the
// question's.
//
// Measured with minilm-l6 over the whole King James Bible (31,102 verses, 37 questions), right
// verse within the first 1, 4, 8 and 32 passages: pairs of verses without their labels 20, 25, 27,
// 34; with labels ("Ge1:1 ...") 20, 23, 27, 33; pairs of lines or sentences as CutPassages makes
// them, with labels, 22, 22, 27, 30. Embedding takes 7 to 8 minutes on two cores.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>

#include "eval/passages.h"
#include "eval/retriever.h"
#include "model/embedder.h"

namespace longhold {

struct EmbedRetrieverOptions {
  // pairs of lines that overlap: of verse texts, pairs of verses
  PassageOptions passages{.units = 2, .stride = 1};
  const std::atomic<bool>* stop = nullptr;  // checked every 64 passages
  // passages embedded, several times a second
  std::function<void(size_t done, size_t total)> on_progress;
};

// Embeds every passage of `text` now, which takes minutes for a million tokens, and keeps the
// vectors in a flat FAISS index: exact, because the baseline is to lose by its model and not by its
// index. `text` and `embedder` outlive the retriever. Errors: invalid_argument (a text without
// passages), cancelled, resource_exhausted (no memory for the index: 4 bytes x dim a passage), and
// those of the embedder.
Result<std::unique_ptr<Retriever>> BuildEmbedRetriever(std::string_view text,
                                                       TextEmbedder& embedder,
                                                       const EmbedRetrieverOptions& options);

}  // namespace longhold
