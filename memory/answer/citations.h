// Citations: which recalled span an answer rests on, by the attention that it really received.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "memory/answer/ask_types.h"
#include "memory/core/memory.h"

namespace longhold {

// Inline citations of one answer. Owner: the answer. Thread use: *confined*.
class InlineCitations {
 public:
  // The attention that each span has received so far: [spans].
  explicit InlineCitations(std::vector<double> received) : before_(std::move(received)) {}

  // The citation of what was written since the last call: " [n]" for the span that received most
  // attention since then; empty where none received any. `received` may have spans more than
  // before.
  std::string Cite(const std::vector<double>& received);
  // The spans that were cited, in the order of their numbers.
  const std::vector<size_t>& cited() const { return cited_; }

 private:
  std::vector<double> before_;
  std::vector<size_t> cited_;
};

// The spans in the order of their citations: the cited ones first, then all others by attention.
std::vector<size_t> CitationOrder(const std::vector<double>& received,
                                  const std::vector<size_t>& cited);

// Sets document_index and characters of all citations. Errors: those of reading text but data_loss.
Status PlaceCitations(Memory& memory, std::vector<Citation>* citations);

}  // namespace longhold
