#include "memory/recall/recall_plan.h"

#include <algorithm>
#include <utility>

namespace longhold {

double RecallPlan::Coverage() const {
  double sum = 0;
  for (const PlannedSpan& s : spans) sum += s.coverage;
  return std::min(sum, 1.0);  // a sum of rounded shares
}

void RecallPlan::DropFrom(size_t from, std::string_view stage, std::string_view reason) {
  for (size_t i = from; i < spans.size(); ++i) {
    spans[i].Note(stage, "dropped", std::string(reason));
    dropped.push_back(std::move(spans[i]));
  }
  if (from < spans.size()) spans.resize(from);
}

}  // namespace longhold
