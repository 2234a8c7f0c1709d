#include <algorithm>
#include <memory>
#include <utility>

#include "memory/recall/stages.h"

namespace longhold {
namespace {

// Multi-hop retrieval.
Status AddHops(const Question& question, RecallPlan* plan) {
  plan->hops = std::make_unique<MultiHop>(
      question.memory, question.profile(), *question.context.vocabulary, *question.text,
      [&model = question.model()](TokenId token) { return model.Piece(token); },
      MultiHop::Asked{.tokens = question.prompt.Words(),
                      .words = question.asked,
                      .scored_begin = question.ScoredBegin(),
                      .aside = question.prompt.aside});
  std::vector<PlannedSpan> judged = plan->spans;
  if (plan->reranked) {
    for (const PlannedSpan& span : plan->dropped) {
      if (span.reranked()) judged.push_back(span);
    }
  }
  LH_ASSIGN_OR_RETURN(const bool changed, plan->hops->Extend(&plan->spans, judged));
  if (!changed) return OkStatus();
  plan->DropFrom(question.spans_max_with_hops, "expand", "enough better ones");
  // A place that only a lookup found, and for which there is no room, did not compete.
  std::erase_if(plan->dropped, [](const PlannedSpan& s) { return s.planned_rank == 0; });
  for (const PlannedSpan& span : plan->spans) {
    plan->hops_used = std::max(plan->hops_used, span.hops);
    // What fell out before may have come back.
    std::erase_if(plan->dropped, [&](const PlannedSpan& s) { return s.SamePlace(span); });
  }
  return OkStatus();
}

// A question often asks when something was said, and that stands in another place.
Status AddDateLines(const Question& question, RecallPlan* plan) {
  for (PlannedSpan& span : plan->spans) {
    LH_ASSIGN_OR_RETURN(const TokenSpan line,
                        DateLineBefore(question.memory, span.document, span.peak));
    if (line.end <= span.tokens.begin) span.date_line = line;  // else the span has it
  }
  return OkStatus();
}

}  // namespace

Result<RecallPlan> Expand(const Question& question, RecallPlan plan) {
  if (plan.abstained) return plan;
  LH_RETURN_IF_ERROR(AddHops(question, &plan));
  LH_RETURN_IF_ERROR(AddDateLines(question, &plan));
  return plan;
}

}  // namespace longhold
