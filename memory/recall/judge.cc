#include <algorithm>
#include <string>
#include <utility>

#include "base/format.h"
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

// What is not searched may hold the answer.
bool Damaged(const Question& question) {
  const IndexReport& index = question.memory.index_report();
  return index.segments_lost + index.blocks_lost > 0;
}

}  // namespace

Result<RecallPlan> Judge(const Question& question, RecallPlan plan) {
  const RecallProfile& profile = question.profile();
  if (!question.vector.empty()) {
    double nearest = 0;
    for (const PlannedSpan& span : plan.spans)
      nearest = std::max(nearest, span.ScoreOf(kDenseSignal));
    plan.evidence.similarity = nearest;
  }
  if (plan.spans.empty() && plan.dropped.empty()) {
    plan.evidence.level = Evidence::Level::kNone;
    plan.abstained = question.may_abstain && !Damaged(question);
    return plan;
  }
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
  if (!plan.reranked) plan.evidence.found_share = support;
  plan.evidence.level =
      EvidenceLevel(support, plan.evidence.similarity,
                    {.support = plan.reranked ? profile.abstain_support : profile.abstain_found,
                     .similarity = profile.abstain_similarity});
  plan.abstained =
      plan.evidence.level == Evidence::Level::kNone && question.may_abstain && !Damaged(question);
  if (plan.abstained) {
    const std::string why =
        Format("support %.2f", support) +
        (plan.evidence.similarity ? Format(", similarity %.2f", *plan.evidence.similarity) : "");
    for (PlannedSpan& span : plan.spans) span.Note(kStage, "abstained", why + " are too low");
  }
  return plan;
}

}  // namespace longhold
