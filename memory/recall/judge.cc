#include <algorithm>
#include <cstdio>
#include <utility>

#include "memory/recall/abstention.h"
#include "memory/recall/stages.h"

namespace longhold {
namespace {

constexpr std::string_view kStage = "judge";

// Spans that competed: those that are kept, and with reranking those that fell behind in it.
std::vector<const PlannedSpan*> Competitors(const RecallPlan& plan) {
  std::vector<const PlannedSpan*> spans;
  for (const PlannedSpan& s : plan.spans) {
    if (!plan.reranked || s.reranked()) spans.push_back(&s);
  }
  for (const PlannedSpan& s : plan.dropped) {
    if (plan.reranked && s.reranked()) spans.push_back(&s);
  }
  return spans;
}

// How much the best span, or several together, speak for an answer.
double SupportOf(const Question& q, const RecallPlan& plan,
                 const std::vector<const PlannedSpan*>& spans,
                 const std::vector<std::vector<WordMatch>>& matches) {
  double support = 0;
  if (!plan.reranked) {
    for (const auto& match : matches) support = std::max(support, FoundShare(q.asked, match));
    return std::max(support, FoundShareTogether(q.asked, matches));
  }
  std::vector<WordMatch> together(q.asked.size());
  uint32_t needed = 0;
  for (size_t i = 0; i < spans.size(); ++i) {
    support = std::max(support, Support(q.asked, matches[i]));
    if (spans[i]->coverage_gain < kNeededGain) continue;
    ++needed;
    for (size_t w = 0; w < together.size(); ++w) {
      together[w] = {together[w].found || matches[i][w].found,
                     std::max(together[w].gain, matches[i][w].gain)};
    }
  }
  if (needed >= kTogetherMin)
    support = std::max(support, Support(q.asked, together) / kTogetherFactor);
  return support;
}

}  // namespace

Result<RecallPlan> Judge(const Question& question, RecallPlan plan) {
  if (!question.may_abstain) return plan;
  const IndexReport& index = question.memory.index_report();
  // What is not searched may hold the answer.
  if (index.segments_lost + index.blocks_lost > 0) return plan;
  plan.abstained = plan.spans.empty() && plan.dropped.empty();
  const RecallProfile& profile = question.profile();
  const double threshold = plan.reranked ? profile.abstain_support : profile.abstain_found;
  if (plan.abstained || threshold <= 0) return plan;

  const std::vector<const PlannedSpan*> spans = Competitors(plan);
  std::vector<std::vector<WordMatch>> matches;
  for (const PlannedSpan* span : spans) {
    Result<std::vector<WordMatch>> match = question.Match(*span);
    // Where text is damaged nobody can say that it holds nothing.
    if (match.status().code() == StatusCode::kDataLoss) return plan;
    if (!match.ok()) return match.status();
    matches.push_back(std::move(*match));
  }
  const double support = SupportOf(question, plan, spans, matches);
  plan.abstained = support < threshold;
  if (plan.abstained) {
    char text[64];
    std::snprintf(text, sizeof text, "support %.2f is below %.2f", support, threshold);
    for (PlannedSpan& span : plan.spans) span.Note(kStage, "abstained", text);
  }
  return plan;
}

}  // namespace longhold
