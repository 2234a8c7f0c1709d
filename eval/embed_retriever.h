// The baseline `rag-embed`: ranks passages by the inner product of their embedding with that of the
// question.
//
// Measured with minilm-l6 on the whole King James Bible (31,102 verses, 37 questions). Number of
// questions with the right verse in the first 1, 4, 8 and 32 passages:
//   pairs of verses without labels                        20, 25, 27, 34
//   pairs of verses with labels ("Ge1:1 ...")             20, 23, 27, 33
//   pairs of lines or sentences (CutPassages), labels     22, 22, 27, 30
// Embedding takes 7 to 8 minutes on two cores.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>

#include "eval/passages.h"
#include "eval/retriever.h"
#include "memory/model/text_embedder.h"

namespace longhold {

struct EmbedRetrieverOptions {
  // Overlapping pairs of lines. In a text of verses these are pairs of verses.
  PassageOptions passages{.units = 2, .stride = 1};
  const std::atomic<bool>* stop = nullptr;  // checked every 64 passages
  // Receives the number of embedded passages, several times a second. May be empty.
  std::function<void(size_t done, size_t total)> on_progress;
};

// Embeds every passage of `text`, which takes minutes for a million tokens. The vectors are kept in
// a flat FAISS index. Its search is exact, so the baseline's errors come from the embedding model
// only. Must hold: `text` and `embedder` outlive the retriever. Errors: invalid_argument (a text
// without passages), cancelled, resource_exhausted (no memory for the index: 4 bytes * dimensions
// per passage), and those of the embedder.
Result<std::unique_ptr<Retriever>> BuildEmbedRetriever(std::string_view text,
                                                       TextEmbedder& embedder,
                                                       const EmbedRetrieverOptions& options);

}  // namespace longhold
