#include "memory/recall/recaller.h"

#include <algorithm>
#include <utility>

#include "memory/core/elapsed.h"
#include "memory/recall/abstention.h"
#include "memory/recall/describe.h"
#include "memory/recall/stages.h"

namespace longhold {
namespace {

using Clock = std::chrono::steady_clock;

// The spans that competed: those that were kept, then those that fell out, reranked ones first.
std::vector<const PlannedSpan*> InFinalOrder(const RecallPlan& plan) {
  std::vector<const PlannedSpan*> spans;
  for (const PlannedSpan& s : plan.spans) spans.push_back(&s);
  const auto kept = static_cast<ptrdiff_t>(spans.size());
  for (const PlannedSpan& s : plan.dropped) spans.push_back(&s);
  std::stable_sort(spans.begin() + kept, spans.end(),
                   [](const PlannedSpan* a, const PlannedSpan* b) {
                     if (a->reranked() != b->reranked()) return a->reranked();
                     return a->reranked() ? a->score > b->score : a->planned_rank < b->planned_rank;
                   });
  return spans;
}

void NoteMissingVectors(const Memory& memory, Notes* notes) {
  const uint64_t missing = memory.index_report().tokens_without_vectors;
  if (missing == 0) return;
  notes->Add("memory " + memory.name() + ": " + std::to_string(missing) + " of its " +
             std::to_string(memory.searchable_tokens()) +
             " tokens have no vectors of this embedding model, so they are not found by their "
             "meaning; 'longhold reindex " +
             memory.name() + "' makes them and does not read the text again");
}

}  // namespace

Recaller::Recaller(MemoryCatalog* catalog, MemoryBudget* budget, Notes* notes, SignalList signals)
    : catalog_(catalog), budget_(budget), notes_(notes), signals_(std::move(signals)) {}

Status Recaller::UseModel(const ModelContext* context) {
  for (const auto& [name, weight] : context->profile.signals) {
    const bool known = std::any_of(signals_.begin(), signals_.end(),
                                   [&](const auto& signal) { return signal->name() == name; });
    if (known) continue;
    std::string all;
    for (const auto& signal : signals_)
      all += (all.empty() ? "" : ", ") + std::string(signal->name());
    return InvalidArgument("recall profile " + context->profile.name + ": signal \"" + name +
                           "\" is unknown; the signals are " + all);
  }
  context_ = context;
  return OkStatus();
}

Result<MemoryLease> Recaller::Lease(const std::string& memory) {
  LH_CHECK(context_ != nullptr);
  LH_ASSIGN_OR_RETURN(MemoryLease lease, catalog_->Lease(memory, MemoryCatalog::Access::kRead,
                                                         MemoryCatalog::Reader::kModel));
  NoteOtherHeads(*lease, context_->profile, notes_);
  return lease;
}

void Recaller::Keep(const std::string& memory, std::span<const UnkeptBlock> blocks) {
  if (blocks.empty()) return;
  {
    const Result<MemoryLease> lease =
        catalog_->Lease(memory, MemoryCatalog::Access::kAmend, MemoryCatalog::Reader::kModel);
    if (!lease.ok()) return;
    for (const UnkeptBlock& unkept : blocks) {
      if (!(*lease)->PutProvisional(unkept.key, unkept.block, unkept.run_up).ok()) break;
    }
  }
  catalog_->Close();  // others may write to it
}

Result<OpenQuestion> Recaller::Open(const std::string& memory, std::string_view question,
                                    const QuestionOptions& options) {
  if (options.recall.head_queries.empty()) LH_RETURN_IF_ERROR(CheckQuestion(question));
  LH_ASSIGN_OR_RETURN(MemoryLease lease, Lease(memory));
  LH_RETURN_IF_ERROR(lease->LoadIndexes(WorkersOf(*context_->model)));
  NoteMissingVectors(*lease, notes_);
  const Clock::time_point start = Clock::now();
  LH_ASSIGN_OR_RETURN(
      std::unique_ptr<const Question> understood,
      Understand(*context_, *lease, *budget_, *notes_, signals_, question, options));
  return OpenQuestion{std::move(lease), std::move(understood), start};
}

Result<RecallReply> Recaller::Recall(const std::string& memory, std::string_view question,
                                     const RecallOptions& options) {
  QuestionOptions asked;
  asked.recall = options;
  LH_ASSIGN_OR_RETURN(const OpenQuestion open, Open(memory, question, asked));
  const Question& q = *open.question;
  LH_ASSIGN_OR_RETURN(RecallPlan plan, MakePlan(q));
  RecallReply reply;
  reply.candidates = plan.candidates;
  reply.prompt_tokens = q.prompt.head.size() + q.prompt.tail.size();
  if (!q.head_queries.empty()) reply.coverage = plan.Coverage();
  reply.token_gain = plan.token_gain;
  reply.hops = plan.hops_used;
  reply.abstained = plan.abstained;
  reply.evidence = plan.evidence;
  reply.degradation.spans_lost = plan.spans_lost;
  reply.timings.plan_ms = Milliseconds(open.start, Clock::now());
  reply.timings.scan_ms = plan.scan_ms;
  if (options.explain) LH_RETURN_IF_ERROR(Explain(q, plan, &reply));
  reply.spans = std::move(plan.described);
  return reply;
}

Status Recaller::Explain(const Question& q, const RecallPlan& plan, RecallReply* reply) const {
  for (const AskedWord& word : q.asked) {
    QuestionWord& known = reply->words.emplace_back(
        QuestionWord{word.text, word.block_count, word.weight, word.function_word, {}});
    for (const ExpansionWord& r : q.expansion) {
      // without its space
      if (r.of == word.stem) known.related.push_back(q.model().Piece(r.token).substr(1));
    }
  }
  uint32_t rank = 0;
  size_t at = 0;
  for (const PlannedSpan* span : InFinalOrder(plan)) {
    const bool kept = at++ < plan.spans.size();
    if (span->reranked()) ++rank;
    Result<RecalledSpan> described = Describe(q.memory, q.profile(), *span);
    Result<std::vector<WordMatch>> match = q.Match(*span);
    if (!described.ok() || !match.ok()) {
      // Damaged text: the plan's own spans are counted as lost; there is nothing to show of the
      // others either.
      const Status& status = described.ok() ? match.status() : described.status();
      if (status.code() != StatusCode::kDataLoss) return status;
      continue;
    }
    ExplainedSpan e;
    e.span = std::move(*described);
    e.planned_rank = span->planned_rank;
    e.rank = span->reranked() ? rank : 0;
    e.planned_score = span->planned_score;
    e.signals = span->signals;
    if (span->reranked()) {
      e.token_gain = span->question_gain / static_cast<double>(q.prompt.CountedTokens());
      e.support = std::min(Support(q.asked, *match), 1e6);
    }
    for (const WordMatch& word : *match) {
      e.found.push_back(word.found);
      e.word_gains.push_back(word.gain);
    }
    e.kept = kept;
    e.trail = span->trail;
    if (!kept && !e.trail.empty()) e.why = e.trail.back().reason;
    reply->explained.push_back(std::move(e));
  }
  return OkStatus();
}

}  // namespace longhold
