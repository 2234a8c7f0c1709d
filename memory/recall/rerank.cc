#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>

#include "memory/recall/query_likelihood.h"
#include "memory/recall/stages.h"

namespace longhold {
namespace {

constexpr std::string_view kStage = "rerank";

// [judged tokens] how rare each token's word is in the memory; 0 for function words and for what
// stands nowhere.
std::vector<double> TokenWeights(const Question& q) {
  std::vector<double> weights(q.prompt.JudgedTokens(), 0);
  const size_t skipped = q.ScoredBegin();
  const size_t first = q.words.size() - std::min(q.words.size(), q.lexical.words.size());
  for (size_t w = first; w < q.words.size(); ++w) {
    const LexicalResult::Word& known = q.lexical.words[w - first];
    // No span is needed for a word that stands nowhere.
    if (known.function_word || known.block_count == 0) continue;
    for (size_t t = std::max<size_t>(q.words[w].begin, skipped); t < q.words[w].end; ++t)
      weights[t - skipped] = known.weight;
  }
  return weights;
}

// How many of the first of `spans` there is memory for at once; `sets`, which is empty, then holds
// the RAM of their working sets.
size_t SpansWithRoom(const Question& q, std::span<const PlannedSpan> spans,
                     MemoryReservation* sets) {
  const KvGeometry& geometry = q.info().geometry;
  // Each span's set shares the head's whole blocks.
  const uint64_t around = q.set->size() % kBlockTokens + q.prompt.Asked().size();
  std::vector<BlockRows> rows;
  uint64_t set_bytes = WorkingSet::Bytes(geometry, around);  // of the question after nothing
  size_t count = 0;
  for (; count < spans.size(); ++count) {
    AppendRows(spans[count], count, &rows);
    // A block that two spans share counts twice here, and is loaded once.
    const uint64_t with =
        set_bytes + WorkingSet::Bytes(geometry, around, spans[count].tokens.size());
    if (q.budget.RoomFor(1, rows.size() * q.blocks->BlockBytes() + with) == 0) break;
    set_bytes = with;
  }
  return sets->Resize(set_bytes).ok() ? count : 0;
}

// A working set for each span: the prompt's head, then the span. With `alone`, one more that holds
// the head only.
Result<std::vector<std::unique_ptr<WorkingSet>>> ReadSpans(const Question& q,
                                                           std::span<const PlannedSpan> spans,
                                                           bool alone) {
  const uint32_t head = q.set->size();
  std::vector<BlockRows> rows;
  for (size_t i = 0; i < spans.size(); ++i) AppendRows(spans[i], i, &rows);
  LH_RETURN_IF_ERROR(q.blocks->Load(rows, q.Parallel()));
  if (std::any_of(rows.begin(), rows.end(),
                  [&](const BlockRows& r) { return q.blocks->Find(r) == nullptr; })) {
    q.notes.Add("memory " + q.memory.name() +
                ": blocks are damaged, so a span that the question needs may look less relevant "
                "than it is, or be left out; 'longhold verify " +
                q.memory.name() + "' names the first");
  }
  std::vector<std::unique_ptr<WorkingSet>> sets(spans.size() + alone);
  q.model().Parallel(sets.size(), [&](size_t i) {
    const uint64_t tokens = i < spans.size() ? spans[i].tokens.size() : 0;
    sets[i] = std::make_unique<WorkingSet>(
        q.info().geometry, static_cast<uint32_t>(head + tokens + q.prompt.Asked().size()));
    sets[i]->AppendHead(*q.set, head);
    sets[i]->Reserve(static_cast<uint32_t>(tokens));
    for (const BlockRows& r : rows) {
      if (r.span != i) continue;
      if (const KvBlock* block = q.blocks->Find(r))
        sets[i]->AppendBlock(*block, r.row_begin, r.row_end, 0);
    }
  });
  return sets;
}

// The question's likelihood after each span and, last, after nothing (QuestionLikelihoods), in as
// many groups of spans as the memory budget asks for. Errors: resource_exhausted when it has no
// room for a single one.
Result<std::vector<std::vector<float>>> ScoreQuestion(const Question& q,
                                                      std::span<const PlannedSpan> spans) {
  std::vector<std::vector<float>> logs;
  LH_ASSIGN_OR_RETURN(MemoryReservation set_memory, q.budget.Reserve(0, "reranking"));
  for (size_t first = 0;;) {
    const std::span<const PlannedSpan> group =
        spans.subspan(first, SpansWithRoom(q, spans.subspan(first), &set_memory));
    if (group.empty() && first < spans.size())
      return ResourceExhausted("the memory budget has no room for reranking");
    const bool last = first + group.size() == spans.size();
    LH_ASSIGN_OR_RETURN(std::vector<std::unique_ptr<WorkingSet>> sets, ReadSpans(q, group, last));
    LH_ASSIGN_OR_RETURN(const std::vector<std::vector<float>> some,
                        QuestionLikelihoods(q.model(), sets, q.prompt.Asked(),
                                            q.prompt.JudgedBegin(), q.set->size()));
    logs.insert(logs.end(), some.begin(), some.end());
    if (last) return logs;
    first += group.size();
    // Blocks of the spans that are kept are read again later, which costs milliseconds; here they
    // would stand in the next group's way.
    sets.clear();
    q.blocks->Clear();
    LH_RETURN_IF_ERROR(set_memory.Resize(0));
  }
}

// Sets each span's gains: what its likelihoods, logs[i], have over those after nothing, the last.
void PutGains(const Question& q, const std::vector<std::vector<float>>& logs, RecallPlan* plan) {
  for (size_t i = 0; i < plan->spans.size(); ++i) {
    PlannedSpan& span = plan->spans[i];
    span.token_gains = logs[i];
    for (size_t j = 0; j < logs[i].size(); ++j) {
      span.token_gains[j] -= logs.back()[j];
      if (q.prompt.Aside(q.prompt.JudgedBegin() + j)) span.token_gains[j] = 0;
      span.question_gain += span.token_gains[j];
    }
    const double token_gain = span.question_gain / static_cast<double>(q.prompt.CountedTokens());
    plan->token_gain = i == 0 ? token_gain : std::max(plan->token_gain, token_gain);
  }
}

void Record(const Question& q, std::vector<PlannedSpan>* spans) {
  for (size_t i = 0; i < spans->size(); ++i) {
    char text[64];
    std::snprintf(text, sizeof text, "%zu, token gain %.2f, score %.2f", i + 1,
                  (*spans)[i].question_gain / static_cast<double>(q.prompt.CountedTokens()),
                  (*spans)[i].score);
    (*spans)[i].Note(kStage, "ranked", text);
  }
}

}  // namespace

Result<RecallPlan> Rerank(const Question& question, RecallPlan plan) {
  // To compare spans that are not read yet, the model would have to read all of them.
  const bool read =
      std::none_of(plan.spans.begin(), plan.spans.end(), [&](const PlannedSpan& span) {
        return UnreadBlocks::IsUnread(question.memory, span.document, span.tokens.end);
      });
  if (question.rerank_spans > 0 && !read) {
    for (PlannedSpan& span : plan.spans)
      span.Note(kStage, "skipped", "the model has not read all that was found");
  }
  if (question.rerank_spans > 0 && read) {
    const Result<std::vector<std::vector<float>>> logs = ScoreQuestion(
        question,
        std::span(plan.spans).first(std::min<size_t>(plan.spans.size(), question.rerank_spans)));
    if (logs.ok()) {
      plan.DropFrom(question.rerank_spans, kStage, "not reranked");
      plan.reranked = true;
      PutGains(question, *logs, &plan);
      RankByLikelihood(question.profile(), TokenWeights(question), &plan.spans);
      Record(question, &plan.spans);
      const auto far_behind = std::find_if(
          plan.spans.begin(), plan.spans.end(),
          [&](const PlannedSpan& s) { return s.score < question.profile().span_score_min; });
      plan.DropFrom(static_cast<size_t>(far_behind - plan.spans.begin()), kStage,
                    "far behind the best");
    } else if (logs.status().code() == StatusCode::kResourceExhausted) {
      question.notes.Add(
          "the memory budget has no room for reranking what was found; give more with "
          "--memory-budget");
    } else {
      return logs.status();
    }
  }
  plan.DropFrom(question.spans_max, kStage, "enough better ones");
  return plan;
}

}  // namespace longhold
