#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "base/format.h"
#include "memory/recall/attribution.h"
#include "memory/recall/stages.h"

namespace longhold {
namespace {

// Spans that competed and are shown by RecallOptions::explain.
constexpr uint32_t kExplainedSpans = 32;

constexpr std::string_view kStage = "fuse";

// A block with what the signals say of it.
struct Candidate {
  BlockKey block;
  double score = 0;
  std::vector<double> scores;                  // [signals]
  std::vector<std::optional<uint64_t>> peaks;  // [signals]

  double Fused(const std::vector<RetrievedSignal>& signals) const {
    double sum = 0;
    for (size_t s = 0; s < signals.size(); ++s) sum += signals[s].weight * scores[s];
    return sum;
  }
};

Candidate NewCandidate(const BlockKey& block, size_t signals) {
  Candidate c;
  c.block = block;
  c.scores.assign(signals, 0);
  c.peaks.assign(signals, std::nullopt);
  return c;
}

// Lets what other speakers than the one that is asked about say count less.
void Attribute(const Question& q, std::vector<RetrievedSignal>* signals) {
  std::vector<std::pair<double, Attribution::Place>> places;
  for (const RetrievedSignal& signal : *signals) {
    for (const SignalCandidate& b : signal.scores.blocks) {
      if (b.peak.has_value())
        places.push_back({signal.weight * b.score, {b.block.document, *b.peak}});
    }
  }
  std::sort(places.begin(), places.end(), std::greater<>());
  std::vector<Attribution::Place> best;
  for (const auto& [score, place] : places) best.push_back(place);
  const Attribution attribution = Attribution::Of(q.memory, q.question, best);
  if (!attribution.names_speaker()) return;
  for (RetrievedSignal& signal : *signals) {
    for (SignalCandidate& b : signal.scores.blocks) {
      if (b.peak.has_value()) b.score *= attribution.Factor(b.block.document, *b.peak);
    }
    std::erase_if(signal.scores.cover, [&](const SignalCandidate& b) {
      return b.peak.has_value() && attribution.Factor(b.block.document, *b.peak) < 1;
    });
  }
}

// All blocks that any signal put forward, best first.
std::vector<Candidate> RankBlocks(const std::vector<RetrievedSignal>& signals) {
  std::map<BlockKey, Candidate> blocks;
  for (size_t s = 0; s < signals.size(); ++s) {
    for (const SignalCandidate& b : signals[s].scores.blocks) {
      Candidate& c =
          blocks.try_emplace(b.block, NewCandidate(b.block, signals.size())).first->second;
      c.scores[s] = b.score;
      c.peaks[s] = b.peak;
    }
  }
  std::vector<Candidate> ranked;
  for (auto& [block, c] : blocks) {
    c.score = c.Fused(signals);
    ranked.push_back(std::move(c));
  }
  std::sort(ranked.begin(), ranked.end(), [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.block < b.block;
  });
  return ranked;
}

// Puts the blocks that must not be missed right behind the best one: the signals' covers, in turn.
// Returns how many blocks of `ranked` keep their places for that.
size_t RaiseCover(const std::vector<RetrievedSignal>& signals, std::vector<Candidate>* ranked) {
  size_t cover = 0, longest = 0;
  for (const RetrievedSignal& signal : signals)
    longest = std::max(longest, signal.scores.cover.size());
  for (size_t turn = 0; turn < longest; ++turn) {
    for (size_t s = 0; s < signals.size(); ++s) {
      if (turn >= signals[s].scores.cover.size()) continue;
      const SignalCandidate& part = signals[s].scores.cover[turn];
      auto at = std::find_if(ranked->begin(), ranked->end(),
                             [&](const Candidate& c) { return c.block == part.block; });
      if (at == ranked->end()) {
        Candidate c = NewCandidate(part.block, signals.size());
        c.scores[s] = part.score;
        c.score = c.Fused(signals);
        at = ranked->insert(at, std::move(c));
      }
      at->peaks[s] = part.peak;
      if (cover == 0 && at != ranked->begin()) cover = 1;  // another signal has another favourite
      const auto end = ranked->begin() + static_cast<ptrdiff_t>(cover);
      if (at < end) continue;  // stands there already
      std::rotate(end, at, at + 1);
      ++cover;
    }
  }
  return cover;
}

bool Overlap(const PlannedSpan& a, DocumentId document, const TokenSpan& span) {
  return a.document == document && a.tokens.begin < span.end && span.begin < a.tokens.end;
}

// Cuts spans around the blocks' peaks, one after the other.
class SpanCutter {
 public:
  SpanCutter(const Question& q, const std::vector<RetrievedSignal>& signals)
      : q_(q), signals_(signals) {}

  // Adds the block as a span of its own, or not at all where a span holds it already. Errors:
  // data_loss.
  Status Add(const Candidate& c, double score, std::vector<PlannedSpan>* spans) const {
    LH_ASSIGN_OR_RETURN(const Cut cut, Around(c));
    TokenSpan span = cut.span;
    if (!TakeOverlap(c, cut, spans, &span)) return OkStatus();
    PlannedSpan planned;
    planned.document = c.block.document;
    planned.tokens = span;
    // A span that was cut may have lost its peak.
    planned.peak = std::clamp(cut.peak, span.begin, span.end - 1);
    planned.score = score;
    PutScores(c, &planned);
    spans->push_back(std::move(planned));
    return OkStatus();
  }

  // The same for a span that only competes: it changes none of `spans`, and `others` are like it.
  Status AddOther(const Candidate& c, double score, const std::vector<PlannedSpan>& spans,
                  std::vector<PlannedSpan>* others) const {
    std::vector<PlannedSpan> all = spans;
    const size_t own = all.size();
    all.insert(all.end(), others->begin(), others->end());
    const size_t before = all.size();
    LH_RETURN_IF_ERROR(Add(c, score, &all));
    if (all.size() > before) others->push_back(std::move(all.back()));
    for (size_t i = own; i < before; ++i) (*others)[i - own] = std::move(all[i]);
    return OkStatus();
  }

 private:
  struct Cut {
    TokenSpan span;
    uint64_t low = UINT64_MAX, high = 0;  // the first and last token that a signal points at
    uint64_t peak = 0;                    // the first signal's
  };

  Result<Cut> Around(const Candidate& c) const {
    Cut cut;
    std::optional<uint64_t> peak;
    for (size_t s = 0; s < signals_.size(); ++s) {
      if (c.scores[s] <= 0 && !c.peaks[s].has_value()) continue;
      std::optional<uint64_t> at = c.peaks[s];
      if (!at.has_value() && signals_[s].scores.token_shares) {
        const std::vector<double> shares = signals_[s].scores.token_shares(c.block);
        at = uint64_t{c.block.block} * kBlockTokens +
             static_cast<uint64_t>(std::max_element(shares.begin(), shares.end()) - shares.begin());
      }
      if (!at.has_value()) continue;
      if (!peak.has_value()) peak = at;
      cut.low = std::min(cut.low, *at);
      cut.high = std::max(cut.high, *at);
    }
    // A signal may point at no token at all: then the block's middle stands for it.
    if (!peak.has_value())
      peak = cut.low = cut.high = uint64_t{c.block.block} * kBlockTokens + kBlockTokens / 2;
    cut.peak = *peak;
    LH_ASSIGN_OR_RETURN(cut.span, SpanAround(q_.memory, q_.profile(), c.block.document, cut.peak,
                                             cut.low, cut.high));
    return cut;
  }

  // Cuts off what an earlier, better span holds already. False where nothing is left.
  bool TakeOverlap(const Candidate& c, const Cut& cut, std::vector<PlannedSpan>* spans,
                   TokenSpan* span) const {
    const auto overlapping = [&](const PlannedSpan& s) {
      return Overlap(s, c.block.document, *span);
    };
    const auto other = std::find_if(spans->begin(), spans->end(), overlapping);
    if (other == spans->end()) return !span->empty();
    PutScores(c, &*other);
    if (other->tokens.begin <= cut.low && cut.high < other->tokens.end) return false;
    if (span->begin < other->tokens.begin) {
      span->end = std::min(span->end, other->tokens.begin);
    } else {
      span->begin = std::max(span->begin, other->tokens.end);
    }
    return !span->empty() && std::none_of(spans->begin(), spans->end(), overlapping);
  }

  void PutScores(const Candidate& c, PlannedSpan* span) const {
    for (size_t s = 0; s < signals_.size(); ++s) {
      if (c.scores[s] > 0) span->RaiseScore(signals_[s].name, c.scores[s]);
    }
  }

  const Question& q_;
  const std::vector<RetrievedSignal>& signals_;
};

// Share of the token mass of the signals that have one inside the span.
double CoverageOf(const PlannedSpan& span, const std::vector<RetrievedSignal>& signals) {
  double coverage = 0;
  for (const RetrievedSignal& signal : signals) {
    if (!signal.scores.token_shares) continue;
    for (uint64_t b = span.tokens.begin / kBlockTokens; b * kBlockTokens < span.tokens.end; ++b) {
      const std::vector<double> shares =
          signal.scores.token_shares({span.document, static_cast<uint32_t>(b)});
      for (size_t i = 0; i < shares.size(); ++i) {
        if (span.tokens.Contains(b * kBlockTokens + i)) coverage += shares[i];
      }
    }
  }
  return coverage;
}

// Writes down how the span was found and where it ranks.
void Record(uint32_t rank, PlannedSpan* span) {
  span->planned_rank = rank;
  span->planned_score = span->score;
  std::string found;
  for (const SignalScore& s : span->signals)
    found += (found.empty() ? "" : ", ") + std::string(s.signal) + " " + Format("%.2f", s.score);
  span->trail.insert(span->trail.begin(), {"retrieve", "found", found});
  span->Note(kStage, "ranked", std::to_string(rank) + ", score " + Format("%.2f", span->score));
}

}  // namespace

Result<RecallPlan> Fuse(const Question& question, RecallPlan plan) {
  std::vector<RetrievedSignal> signals = std::move(plan.retrieved);
  plan.retrieved.clear();
  Attribute(question, &signals);
  std::vector<Candidate> ranked = RankBlocks(signals);
  const size_t cover = RaiseCover(signals, &ranked);
  plan.candidates = ranked.size();

  const uint32_t wanted = std::max(question.spans_max, question.rerank_spans);
  const uint32_t shown = question.explain ? std::max(wanted, kExplainedSpans) : wanted;
  const SpanCutter cutter(question, signals);
  for (size_t i = 0; i < ranked.size(); ++i) {
    const Candidate& c = ranked[i];
    if (plan.spans.size() + plan.dropped.size() >= shown) break;
    if (c.score <= 0) break;  // a profile may weigh a signal with nothing
    const double score = c.score / ranked.front().score;
    if (i >= cover && score < question.profile().span_score_min) break;
    LH_RETURN_IF_ERROR(plan.spans.size() < wanted
                           ? cutter.Add(c, score, &plan.spans)
                           : cutter.AddOther(c, score, plan.spans, &plan.dropped));
  }
  uint32_t rank = 0;
  for (PlannedSpan& s : plan.spans) {
    s.coverage = CoverageOf(s, signals);
    Record(++rank, &s);
  }
  for (PlannedSpan& s : plan.dropped) {
    Record(++rank, &s);
    s.Note(kStage, "dropped", question.rerank_spans > 0 ? "not reranked" : "enough better ones");
  }
  plan.fused_at = std::chrono::steady_clock::now();
  return plan;
}

}  // namespace longhold
