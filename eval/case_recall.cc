#include "eval/case_recall.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>

#include "memory/engine.h"

namespace longhold {
namespace {

std::string MemoryOf(size_t kind) { return "kind-" + std::to_string(kind); }

// The questions of other kinds that are asked of one: as many of each, evenly spread over it.
std::vector<std::string> OtherQuestions(std::span<const LabelledKind> kinds, size_t own,
                                        size_t count) {
  std::vector<std::string> questions;
  if (kinds.size() < 2) return questions;
  const size_t each = count / (kinds.size() - 1);
  for (size_t k = 0; k < kinds.size(); ++k) {
    const std::vector<LabelledCase>& cases = kinds[k].cases;
    const size_t taken = k == own ? 0 : std::min(each, cases.size());
    for (size_t i = 0; i < taken; ++i)
      questions.push_back(cases[i * cases.size() / taken].question);
  }
  return questions;
}

uint64_t Overlap(const ByteSpan& a, const ByteSpan& b) {
  const uint64_t begin = std::max(a.begin, b.begin), end = std::min(a.end, b.end);
  return end > begin ? end - begin : 0;
}

// The documents of a kind by name.
class Names {
 public:
  explicit Names(const LabelledKind& kind) {
    for (uint32_t d = 0; d < kind.documents.size(); ++d) numbers_[kind.documents[d].name] = d;
  }
  // How many bytes of the place the span holds.
  uint64_t Held(const RecalledSpan& span, const EvidencePlace& place) const {
    const auto found = numbers_.find(span.document);
    return found != numbers_.end() && found->second == place.document
               ? Overlap(span.bytes, place.bytes)
               : 0;
  }

 private:
  std::map<std::string_view, uint32_t> numbers_;
};

// The spans that the signals found, in the plan's order.
std::vector<const ExplainedSpan*> Planned(const RecallReply& reply) {
  std::vector<const ExplainedSpan*> spans;
  for (const ExplainedSpan& e : reply.explained) {
    if (e.planned_rank > 0) spans.push_back(&e);
  }
  std::stable_sort(spans.begin(), spans.end(), [](const ExplainedSpan* a, const ExplainedSpan* b) {
    return a->planned_rank < b->planned_rank;
  });
  return spans;
}

// After how many spans at least half of each place is there. The spans do not overlap.
PlaceRanks RanksOf(const LabelledCase& asked, const Names& names,
                   const std::vector<const ExplainedSpan*>& spans) {
  PlaceRanks found;
  found.all_needed = asked.all_needed;
  for (const EvidencePlace& place : asked.places) {
    uint64_t held = 0;
    uint32_t rank = 0;
    for (uint32_t i = 0; rank == 0 && i < spans.size() && i < kRankedSpans; ++i) {
      held += names.Held(spans[i]->span, place);
      if (2 * held >= place.bytes.size()) rank = i + 1;
    }
    found.ranks.push_back(rank);
  }
  return found;
}

FusionCase CandidatesOf(const LabelledCase& asked, const Names& names,
                        const std::vector<std::string>& signals,
                        const std::vector<const ExplainedSpan*>& spans) {
  FusionCase competing;
  for (const ExplainedSpan* e : spans) {
    FusionCandidate& candidate = competing.candidates.emplace_back();
    for (const std::string& signal : signals) {
      const auto score = std::find_if(e->signals.begin(), e->signals.end(),
                                      [&](const SignalScore& s) { return s.signal == signal; });
      candidate.scores.push_back(score == e->signals.end() ? 0 : score->score);
    }
    candidate.evidence =
        std::any_of(asked.places.begin(), asked.places.end(), [&](const EvidencePlace& place) {
          return 2 * names.Held(e->span, place) >= place.bytes.size();
        });
  }
  return competing;
}

EvidenceSample SampleOf(const RecallReply& reply) {
  return {.found_share = reply.evidence.found_share,
          .similarity = reply.evidence.similarity,
          .no_candidate = reply.explained.empty()};
}

}  // namespace

std::vector<PlaceRanks> KindRecall::Found() const {
  std::vector<PlaceRanks> found;
  for (const CaseRecall& c : answerable) found.push_back(c.found);
  return found;
}

RankScore KindRecall::Ranks() const {
  std::vector<uint32_t> ranks;
  for (const CaseRecall& c : answerable) ranks.push_back(c.found.First());
  return ScoreRanks(ranks);
}

EvidenceKind KindRecall::Evidence() const {
  EvidenceKind kind;
  for (const CaseRecall& c : answerable) kind.answerable.push_back(c.evidence);
  for (const CaseRecall& c : unanswerable) kind.unanswerable.push_back(c.evidence);
  return kind;
}

CaseMemories::CaseMemories(StoreProvider* stores, LanguageModel* model, TextEmbedder* embedder,
                           std::span<const LabelledKind> kinds, const std::atomic<bool>* stop)
    : stores_(stores), model_(model), embedder_(embedder), kinds_(kinds), stop_(stop) {
  for (size_t k = 0; k < kinds.size(); ++k) {
    std::vector<std::string>& questions = unanswerable_.emplace_back();
    for (const LabelledCase& c : kinds[k].cases) {
      if (c.places.empty()) questions.push_back(c.question);
    }
    for (std::string& other : OtherQuestions(kinds, k, kOtherQuestions))
      questions.push_back(std::move(other));
  }
}

Result<std::vector<uint64_t>> CaseMemories::Read(const RecallProfile& profile,
                                                 const OnCount& on_bytes) {
  Engine engine(stores_, {});
  LH_RETURN_IF_ERROR(engine.UseModel(model_, &profile, embedder_));
  uint64_t done = 0, total = 0;
  for (const LabelledKind& kind : kinds_) {
    for (const CaseDocument& document : kind.documents) total += document.text.size();
  }
  std::vector<uint64_t> tokens(kinds_.size(), 0);
  for (size_t k = 0; k < kinds_.size(); ++k) {
    for (const CaseDocument& document : kinds_[k].documents) {
      const uint64_t bytes = document.text.size();
      const auto watch = [&](const IngestProgress& p) {
        on_bytes(done + bytes * p.tokens_done / std::max<uint64_t>(p.tokens_total, 1), total);
      };
      LH_ASSIGN_OR_RETURN(
          const IngestReport report,
          engine.Ingest(MemoryOf(k), {.name = document.name, .text = document.text}, stop_, watch));
      if (Stopped()) return Cancelled("calibrate: stopped");
      tokens[k] += report.tokens;
      done += bytes;
    }
  }
  return tokens;
}

Result<std::vector<FusionKind>> CaseMemories::Compete(RecallProfile profile,
                                                      const std::vector<std::string>& signals,
                                                      const OnCount& on_question) {
  profile.signals.clear();
  for (const std::string& signal : signals) profile.signals[signal] = 1;
  profile.span_score_min = 0;
  profile.hops_max = 0;
  Engine engine(stores_, {});
  LH_RETURN_IF_ERROR(engine.UseModel(model_, &profile, embedder_));
  uint64_t done = 0, total = 0;
  for (const LabelledKind& kind : kinds_) total += kind.answerable();
  std::vector<FusionKind> competing(kinds_.size());
  for (size_t k = 0; k < kinds_.size(); ++k) {
    const Names names(kinds_[k]);
    for (const LabelledCase& asked : kinds_[k].cases) {
      if (asked.places.empty()) continue;
      on_question(done++, total);
      LH_ASSIGN_OR_RETURN(
          const RecallReply reply,
          engine.Recall(
              MemoryOf(k), asked.question,
              {.spans_max = kCandidates, .abstain = false, .explain = true, .rerank_spans = 0}));
      if (Stopped()) return Cancelled("calibrate: stopped");
      competing[k].cases.push_back(CandidatesOf(asked, names, signals, Planned(reply)));
    }
  }
  return competing;
}

Result<std::vector<KindRecall>> CaseMemories::Ask(RecallProfile profile,
                                                  const OnCount& on_question) {
  profile.hops_max = 0;
  Engine engine(stores_, {});
  LH_RETURN_IF_ERROR(engine.UseModel(model_, &profile, embedder_));
  uint64_t done = 0, total = 0;
  for (size_t k = 0; k < kinds_.size(); ++k)
    total += kinds_[k].answerable() + unanswerable_[k].size();
  const auto recall = [&](size_t kind, const std::string& question) -> Result<RecallReply> {
    if (Stopped()) return Cancelled("calibrate: stopped");
    on_question(done++, total);
    return engine.Recall(MemoryOf(kind), question,
                         {.abstain = false, .explain = true, .rerank_spans = 0});
  };
  std::vector<KindRecall> asked(kinds_.size());
  for (size_t k = 0; k < kinds_.size(); ++k) {
    const Names names(kinds_[k]);
    for (const LabelledCase& c : kinds_[k].cases) {
      if (c.places.empty()) continue;
      LH_ASSIGN_OR_RETURN(const RecallReply reply, recall(k, c.question));
      asked[k].answerable.push_back({RanksOf(c, names, Planned(reply)), SampleOf(reply)});
    }
    for (const std::string& question : unanswerable_[k]) {
      LH_ASSIGN_OR_RETURN(const RecallReply reply, recall(k, question));
      asked[k].unanswerable.push_back({{}, SampleOf(reply)});
    }
  }
  return asked;
}

}  // namespace longhold
