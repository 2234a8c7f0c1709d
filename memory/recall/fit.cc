#include <algorithm>
#include <utility>

#include "memory/recall/describe.h"
#include "memory/recall/stages.h"

namespace longhold {
namespace {

constexpr std::string_view kStage = "fit";
// When the memory seems to hold nothing, so many places are shown as the closest ones; an answer
// shows one.
constexpr size_t kClosestSpans = 3;

// How many of the spans, best first, the context holds beside question and answer.
size_t SpansThatFit(const Question& q, const std::vector<PlannedSpan>& spans) {
  uint64_t room = q.set->capacity() - q.prompt.head.size() - q.prompt.tail.size() - q.answer_tokens;
  room -= std::min<uint64_t>(room, q.reencode_tokens);
  uint64_t wanted = 0;
  size_t fitting = 0;
  for (; fitting < spans.size(); ++fitting) {
    wanted += spans[fitting].recalled_tokens();
    if (wanted > room) break;
  }
  return fitting;
}

// Reserves the answer's working set, dropping the worst spans until it fits.
Status ReserveAnswer(const Question& q, RecallPlan* plan) {
  uint64_t later = uint64_t{q.profile().generation_spans} * SpanTokensMax(q.profile());
  for (;;) {
    uint64_t passed = q.prompt.head.size() + q.prompt.tail.size() + q.answer_tokens + later;
    uint64_t stored = 0;
    std::vector<BlockRows> rows;
    const size_t reencoded = SpansToReencode(q, plan->spans);
    for (size_t i = 0; i < plan->spans.size(); ++i) {
      (i < reencoded ? passed : stored) += plan->spans[i].recalled_tokens();
      AppendRows(plan->spans[i], i, &rows);
    }
    if (!plan->spans.empty()) passed += q.reencode_tokens;
    if (q.reencode_tokens > 0) {  // excerpts are read behind their date lines
      for (const PlannedSpan& span : plan->spans) passed += span.date_line.size();
    }
    passed = std::min<uint64_t>(passed, q.set->capacity());
    stored = std::min(stored, q.set->capacity() - passed);
    Status reserved = q.blocks->Reserve(rows.size());
    if (reserved.ok() && !UnreadRows(q.memory, rows).empty())
      reserved = q.blocks->unread().Reserve();
    if (reserved.ok())
      reserved = q.set_memory.Resize(WorkingSet::Bytes(q.info().geometry, passed, stored));
    if (reserved.ok() || plan->spans.empty()) return reserved;
    if (later > 0) {  // nothing is lost yet
      later = 0;
      continue;
    }
    q.notes.Add(
        "the memory budget has no room for all that was recalled; give more with "
        "--memory-budget");
    plan->DropFrom(plan->spans.size() - 1, kStage, "no room in the memory budget");
    q.blocks->KeepOnly(plan->spans);
  }
}

// Leaves out spans, the worst first, that the model has not read and that would keep it reading for
// too long. Others are not touched.
void DropUnread(const Question& q, RecallPlan* plan) {
  std::vector<NeededRows> needed;
  for (size_t i = 0; i < plan->spans.size();) {
    std::vector<BlockRows> rows;
    AppendRows(plan->spans[i], i, &rows);
    const std::vector<NeededRows> unread = UnreadRows(q.memory, rows);
    const size_t before = needed.size();
    needed.insert(needed.end(), unread.begin(), unread.end());
    if (i == 0 || unread.empty() || q.blocks->unread().TokensToRead(needed) <= kUnreadTokensMax) {
      ++i;
      continue;
    }
    needed.resize(before);
    plan->spans[i].Note(kStage, "dropped", "not read yet, and better ones take long enough");
    plan->dropped.push_back(std::move(plan->spans[i]));
    plan->spans.erase(plan->spans.begin() + static_cast<ptrdiff_t>(i));
  }
}

void NoteIndexDamage(const Question& q) {
  const IndexReport& index = q.memory.index_report();
  const std::string& name = q.memory.name();
  if (index.segments_rebuilt > index.segments_stored) {
    q.notes.Add("memory " + name + ": " + std::to_string(index.segments_rebuilt) +
                " damaged index segments were built again for this run; 'longhold reindex " + name +
                "' stores them");
  }
  if (index.segments_lost + index.blocks_lost > 0) {
    q.notes.Add("memory " + name +
                ": parts of its index are lost, so not all of it is searched; 'longhold verify " +
                name + "' names the first");
  }
  if (index.lists_lost > 0) {
    q.notes.Add("memory " + name +
                ": is searched without inverted lists, which is exact and slower; 'longhold "
                "reindex " +
                name + "' makes them");
  }
}

// Describes the spans; one whose text is damaged leaves the plan and is counted.
Status DescribeSpans(const Question& q, RecallPlan* plan) {
  NoteIndexDamage(q);
  std::vector<PlannedSpan> kept;
  for (PlannedSpan& span : plan->spans) {
    Result<RecalledSpan> described = Describe(q.memory, q.profile(), span);
    if (described.ok()) {
      plan->described.push_back(std::move(*described));
      kept.push_back(std::move(span));
    } else if (described.status().code() == StatusCode::kDataLoss) {
      ++plan->spans_lost;
    } else {
      return described.status();
    }
  }
  plan->spans = std::move(kept);
  return OkStatus();
}

}  // namespace

Result<RecallPlan> Fit(const Question& question, RecallPlan plan) {
  question.blocks->KeepOnly(plan.spans);
  if (question.answers) {
    // When the context does not hold all spans, the worst go; question and answer keep their room.
    plan.DropFrom(SpansThatFit(question, plan.spans), kStage, "no room in the model's context");
    DropUnread(question, &plan);
  }
  if (plan.abstained && question.answer_alone) {
    plan.DropFrom(0, kStage, "the model answers without the memory");
    question.blocks->KeepOnly({});
  } else if (plan.abstained) {
    plan.DropFrom(question.answers ? 1 : kClosestSpans, kStage, "nothing on this");
  }
  if (question.answers && (!plan.abstained || question.answer_alone))
    LH_RETURN_IF_ERROR(ReserveAnswer(question, &plan));
  LH_RETURN_IF_ERROR(DescribeSpans(question, &plan));
  return plan;
}

}  // namespace longhold
