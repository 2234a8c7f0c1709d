// Finds places by the meaning of a question: the sentences whose embedding vectors are nearest to
// the question's.
//
// FAISS types and exceptions stay in passage_index.cc. FAISS's own threads are never used: callers
// pass theirs as a ParallelFor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/parallel.h"
#include "base/status.h"
#include "memory/index/passage_segment.h"

namespace longhold {

// A sentence with its similarity to a question. Value type.
struct PassageMatch {
  DocumentId document{};
  TokenSpan sentence;
  TokenSpan passage;          // holds the sentence
  double cosine = 0;          // of the sentence, -1..1
  double passage_cosine = 0;  // of the mean of the passage's vectors, -1..1
};

// A flat index of int8 codes (FAISS's scalar quantiser). The search is exact up to the codes'
// rounding: every vector is read. docs/decisions/0031 has its time and why no graph or lists are
// used.
//
// Owner: Memory. Thread use: *external* for Add and Remove. const methods are safe to call
// concurrently between them. Memory: dim + 40 bytes per sentence.
class PassageIndex {
 public:
  PassageIndex();
  ~PassageIndex();
  PassageIndex(PassageIndex&&) noexcept;
  PassageIndex& operator=(PassageIndex&&) noexcept;

  // Adds a segment. Must hold: none of its tokens is in the index. Errors: invalid_argument
  // (malformed, or of another embedder than the segments before), resource_exhausted.
  Status Add(const PassageSegment& segment);
  void Remove(DocumentId document);
  uint64_t vectors() const;
  // RAM that a segment takes here.
  static uint64_t Bytes(const PassageSegment& segment) {
    return segment.sentences.size() * (uint64_t{segment.dim} + 40);
  }

  // The `count` nearest sentences by the inner product with `query`, [dim], of length 1, nearest
  // first. Which of equal ones are left out is not defined. Empty where the index is. Errors:
  // invalid_argument (another dim), internal (FAISS).
  Result<std::vector<PassageMatch>> Search(std::span<const float> query, size_t count,
                                           const ParallelFor& parallel) const;

 private:
  struct Shard;  // some thousand vectors in FAISS's form, the unit of parallel work
  // The shard that takes the next vector.
  Shard& Open();

  uint64_t embedder_ = 0;
  uint32_t dim_ = 0;  // 0: empty
  std::vector<std::unique_ptr<Shard>> shards_;
};

}  // namespace longhold
