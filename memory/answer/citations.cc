#include "memory/answer/citations.h"

#include <algorithm>
#include <utility>

namespace longhold {

std::string InlineCitations::Cite(const std::vector<double>& received) {
  before_.resize(received.size(), 0);  // a span that was recalled meanwhile
  size_t best = received.size();
  for (size_t i = 0; i < received.size(); ++i) {
    if (received[i] <= before_[i]) continue;
    if (best == received.size() || received[i] - before_[i] > received[best] - before_[best])
      best = i;
  }
  before_ = received;
  if (best == received.size()) return "";
  const auto known = std::find(cited_.begin(), cited_.end(), best);
  const auto number = static_cast<size_t>(known - cited_.begin()) + 1;
  if (known == cited_.end()) cited_.push_back(best);
  return " [" + std::to_string(number) + "]";
}

std::vector<size_t> CitationOrder(const std::vector<double>& received,
                                  const std::vector<size_t>& cited) {
  std::vector<size_t> order;
  for (size_t i = 0; i < received.size(); ++i) {
    if (std::find(cited.begin(), cited.end(), i) == cited.end()) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return received[a] > received[b]; });
  order.insert(order.begin(), cited.begin(), cited.end());
  return order;
}

Status PlaceCitations(Memory& memory, std::vector<Citation>* citations) {
  const std::vector<DocumentRecord>& documents = memory.documents();
  for (size_t d = 0; d < documents.size(); ++d) {
    std::vector<Citation*> own;
    std::vector<uint64_t> bytes;
    for (Citation& c : *citations) {
      if (c.span.document_id != documents[d].id) continue;
      c.document_index = static_cast<uint32_t>(d);
      own.push_back(&c);
      bytes.push_back(c.span.bytes.begin);
      bytes.push_back(c.span.bytes.end);
    }
    if (own.empty()) continue;
    std::sort(bytes.begin(), bytes.end());
    const Result<std::vector<uint64_t>> before = memory.CharactersBefore(documents[d].id, bytes);
    if (before.status().code() == StatusCode::kDataLoss) continue;
    if (!before.ok()) return before.status();
    const auto at = [&](uint64_t byte) {
      return (*before)[static_cast<size_t>(std::lower_bound(bytes.begin(), bytes.end(), byte) -
                                           bytes.begin())];
    };
    for (Citation* c : own)
      c->characters = TextSpan{at(c->span.bytes.begin), at(c->span.bytes.end)};
  }
  return OkStatus();
}

}  // namespace longhold
