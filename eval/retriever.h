// What a user would otherwise put in front of a model: retrieval over passages of the text.
// Baselines of the evaluation only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace longhold {

// A passage of the text that a retriever was built over: bytes [byte_begin, byte_end).
struct Passage {
  uint64_t byte_begin = 0;
  uint64_t byte_end = 0;
  double score = 0;  // higher is better; comparable within one answer only
};

// Owner: an evaluation run. Thread use: *confined*. The text outlives the retriever.
class Retriever {
 public:
  virtual ~Retriever() = default;
  // At most `count` passages, best first.
  virtual Result<std::vector<Passage>> Retrieve(std::string_view question, size_t count) = 0;
  // Of the retriever's own index, without the text and without a model's weights.
  virtual uint64_t ram_bytes() const = 0;
};

}  // namespace longhold
