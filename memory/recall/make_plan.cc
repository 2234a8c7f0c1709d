#include <utility>

#include "memory/recall/stages.h"

namespace longhold {

Result<RecallPlan> MakePlan(const Question& question) {
  RecallPlan plan;
  for (const auto stage : {Retrieve, Fuse, Rerank, Judge, Expand, Fit, LayOut}) {
    LH_ASSIGN_OR_RETURN(plan, stage(question, std::move(plan)));
  }
  return plan;
}

}  // namespace longhold
