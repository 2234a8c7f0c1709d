#include "eval/hybrid_retriever.h"

#include <algorithm>
#include <map>
#include <utility>

namespace longhold {
namespace {

constexpr size_t kPassagesEach = 100;
constexpr double kRankOffset = 60;

}  // namespace

Result<std::vector<Passage>> HybridRetriever::Retrieve(std::string_view question, size_t count) {
  std::map<std::pair<uint64_t, uint64_t>, double> scores;  // by the passage's bytes
  for (const auto& retriever : retrievers_) {
    LH_ASSIGN_OR_RETURN(const std::vector<Passage> passages,
                        retriever->Retrieve(question, kPassagesEach));
    for (size_t rank = 0; rank < passages.size(); ++rank) {
      scores[{passages[rank].byte_begin, passages[rank].byte_end}] +=
          1 / (kRankOffset + static_cast<double>(rank + 1));
    }
  }
  std::vector<Passage> fused;
  for (const auto& [bytes, score] : scores) fused.push_back({bytes.first, bytes.second, score});
  std::stable_sort(fused.begin(), fused.end(),
                   [](const Passage& a, const Passage& b) { return a.score > b.score; });
  if (fused.size() > count) fused.resize(count);
  return fused;
}

uint64_t HybridRetriever::ram_bytes() const {
  uint64_t bytes = 0;
  for (const auto& retriever : retrievers_) bytes += retriever->ram_bytes();
  return bytes;
}

}  // namespace longhold
