// Retrieval over passages of a text: the baselines that eval compares longhold with. Used by the
// evaluation only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace longhold {

// A passage of the retriever's text: bytes [byte_begin, byte_end). Value type.
struct Passage {
  uint64_t byte_begin = 0;
  uint64_t byte_end = 0;
  double score = 0;  // higher is better; comparable within one Retrieve call only
};

// Owner: an evaluation run. Thread use: *confined*. Must hold: the text outlives the retriever.
class Retriever {
 public:
  virtual ~Retriever() = default;
  // At most `count` passages, best first. Errors: those of the implementation.
  virtual Result<std::vector<Passage>> Retrieve(std::string_view question, size_t count) = 0;
  // RAM of the retriever's index, without the text and the weights of a model.
  virtual uint64_t ram_bytes() const = 0;
};

}  // namespace longhold
