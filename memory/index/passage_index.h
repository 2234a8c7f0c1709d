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
#include "memory/index/passage_scan.h"
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

// From this many vectors on, some 48 million tokens, the first pass reads signs. A flat search of
// them takes 40 ms on one core (docs/decisions/0034).
inline constexpr uint64_t kPassageSignsFrom = uint64_t{1} << 21;

// An index of int8 codes (FAISS's scalar quantiser). A search has two passes. The first estimates
// all inner products in integers (passage_scan.h). The second computes those of the best estimates
// as FAISS does.
//
// Below `signs_from` vectors the first pass reads all codes. Its error is bounded, and whatever the
// error could hide is computed too. So the result is that of computing every product.
// From there on it reads the vectors' signs, an eighth of the bytes, and the second pass gets 32
// times as many vectors as are asked for. Of MiniLM's vectors that finds 99.9 % of the 100 nearest
// and 99.8 % of the 256 nearest. Signs need no training and no file.
//
// Which sentences are found does not depend on the order of Add, nor on the number of threads.
// docs/decisions/0034 has the measurements, and why no graph or lists are used.
//
// Owner: Memory. Thread use: *external* for Add and Remove. const methods are safe to call
// concurrently between them. Memory: dim + 40 bytes per sentence, and from `signs_from` vectors on
// another dim / 8. A search takes 4 bytes per sentence while it runs.
class PassageIndex {
 public:
  explicit PassageIndex(uint64_t signs_from = kPassageSignsFrom);
  ~PassageIndex();
  PassageIndex(PassageIndex&&) noexcept;
  PassageIndex& operator=(PassageIndex&&) noexcept;

  // Adds a segment. Must hold: none of its tokens is in the index. Errors: invalid_argument
  // (malformed, or of another embedder than the segments before), resource_exhausted.
  Status Add(const PassageSegment& segment);
  void Remove(DocumentId document);
  uint64_t vectors() const;
  // RAM that a segment takes here at most. The signs are counted in an index without them too, so
  // that they fit when it grows.
  static uint64_t Bytes(const PassageSegment& segment) {
    return segment.sentences.size() *
           (uint64_t{segment.dim} + 8 * uint64_t{SignWords(segment.dim)} + 40);
  }

  // The `count` nearest sentences by the inner product with `query`, [dim], of length 1, nearest
  // first; of equal ones the earlier document and sentence. With signs, a few of them may be
  // missing, and others follow at the end. Empty where the index is. Errors: invalid_argument
  // (another dim), internal (FAISS).
  Result<std::vector<PassageMatch>> Search(std::span<const float> query, size_t count,
                                           const ParallelFor& parallel) const;

 private:
  struct Shard;  // some thousand vectors in FAISS's form, the unit of parallel work
  struct Scored {
    const Shard* shard;
    size_t at;  // in the shard
    double product;
  };
  // The shard that takes the next vector.
  Shard& Open();
  // Makes the signs that are missing, if there are enough vectors.
  void CompleteSigns();
  // Whether a search reads signs.
  bool HasSigns() const;
  // The vectors that may be among the `count` nearest, with their exact products, in no order.
  Result<std::vector<Scored>> Shortlist(std::span<const float> query, size_t count,
                                        const ParallelFor& parallel) const;

  uint64_t signs_from_;
  uint64_t embedder_ = 0;
  uint32_t dim_ = 0;  // 0: empty
  std::vector<std::unique_ptr<Shard>> shards_;
};

}  // namespace longhold
