// The baseline `rag-hybrid`: BM25 and embeddings over the same passages, fused by their ranks. This
// is what retrieval stacks do by default today.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "eval/retriever.h"

namespace longhold {

// Reciprocal rank fusion (Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms
// Condorcet and individual Rank Learning Methods", SIGIR 2009):
//   score(p) = sum over the retrievers that return p of 1 / (60 + rank of p), ranks from 1
// Each retriever gives its best 100 passages. Of equal scores the earlier passage comes first.
class HybridRetriever final : public Retriever {
 public:
  // Must hold: all retrievers use the same passages of one text; there is at least one.
  explicit HybridRetriever(std::vector<std::unique_ptr<Retriever>> retrievers)
      : retrievers_(std::move(retrievers)) {}

  // Errors: those of the retrievers.
  Result<std::vector<Passage>> Retrieve(std::string_view question, size_t count) override;
  uint64_t ram_bytes() const override;

 private:
  const std::vector<std::unique_ptr<Retriever>> retrievers_;
};

}  // namespace longhold
