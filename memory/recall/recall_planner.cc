#include "memory/recall/recall_planner.h"

#include <algorithm>
#include <chrono>
#include <map>

namespace longhold {
namespace {

// Blocks that each signal may put forward. Ranks beyond this never made it into a plan of 32 spans
// in our measurements.
constexpr size_t kCandidatesPerSignal = 128;
// How far a span may grow to reach a line's start or end.
constexpr uint32_t kLineGrowTokens = 48;
// What may lie between two spans that belong together: a line or two.
constexpr uint64_t kGapTokens = 48;

struct Candidate {
  BlockKey block;
  double head = 0;     // share of the recall heads' attention mass, weighted mean over heads
  double lexical = 0;  // share of the question's words that the block explains
  double related = 0;  // of which by words that mean nearly the same
  double score = 0;
  uint64_t lexical_peak = 0;
  bool has_lexical = false;
};

// Attention mass of each token of a block, as the mean over heads of its share of all mass that is
// not parked at the sinks.
std::vector<double> TokenShares(const Memory& memory, const RecallQuery& query,
                                const std::vector<ScanResult>& scans, const BlockKey& block) {
  std::vector<double> shares(kBlockTokens, 0.0);
  for (size_t h = 0; h < scans.size(); ++h) {
    const double all = scans[h].weight_sum - scans[h].sink_score;
    if (all <= 0) continue;
    const std::vector<float> mass = memory.relevance().TokenMass(query.heads[h], scans[h], block);
    for (size_t i = 0; i < mass.size(); ++i)
      shares[i] += mass[i] / all / static_cast<double>(scans.size());
  }
  return shares;
}

// The heads are those that the memory was made with, the weights are the profile's, which may be a
// later or another one: a head that it does not name counts for nothing.
double HeadWeight(const Manifest& m, const RecallProfile& profile, size_t head) {
  for (const RecallHead& h : profile.heads) {
    if (h.layer == m.scan_layers[head] && h.kv_head == m.scan_kv_heads[head]) return h.weight;
  }
  return 0;
}

uint64_t Gap(const TokenSpan& a, const TokenSpan& b) {
  return a.end <= b.begin ? b.begin - a.end : a.begin - b.end;
}

// The span of `spans` that stands nearest to `span`, which overlaps none of them, in the same
// document and with no more than kGapTokens between them; null when there is none.
PlannedSpan* Neighbour(std::vector<PlannedSpan>& spans, DocumentId document,
                       const TokenSpan& span) {
  PlannedSpan* nearest = nullptr;
  for (PlannedSpan& s : spans) {
    if (s.document != document || Gap(s.tokens, span) > kGapTokens) continue;
    if (nearest == nullptr || Gap(s.tokens, span) < Gap(nearest->tokens, span)) nearest = &s;
  }
  return nearest;
}

}  // namespace

Result<RecallPlan> PlanRecall(Memory& memory, const RecallProfile& profile,
                              const RecallQuery& query, uint32_t spans_max,
                              const ParallelFor& parallel) {
  std::map<BlockKey, Candidate> candidates;
  const auto candidate = [&](const BlockKey& block) -> Candidate& {
    Candidate& c = candidates[block];
    c.block = block;
    return c;
  };

  const LexicalResult lexical =
      memory.lexical().Query(query.words, query.related, kCandidatesPerSignal);
  for (const LexicalResult::BlockScore& b : lexical.blocks) {
    Candidate& c = candidate(b.block);
    c.lexical = b.score / lexical.query_score;
    c.related = b.related / lexical.query_score;
    c.lexical_peak = b.peak_token;
    c.has_lexical = true;
  }

  std::vector<ScanResult> scans;
  std::vector<double> weight;  // [heads]
  double weights = 0;
  for (size_t h = 0; h < query.heads.size(); ++h) {
    weight.push_back(HeadWeight(memory.manifest(), profile, h));
    weights += weight.back();
  }
  const auto scan_start = std::chrono::steady_clock::now();
  for (size_t h = 0; h < query.heads.size(); ++h) {
    scans.push_back(memory.relevance().Query(query.heads[h], kCandidatesPerSignal, parallel));
    const ScanResult& scan = scans.back();
    if (scan.weight_sum <= 0 || weights <= 0) continue;
    const double scale = weight[h] / weights / scan.weight_sum;
    for (const ScanResult::BlockScore& b : scan.blocks) candidate(b.block).head += scale * b.score;
  }
  const std::chrono::duration<double, std::milli> scan_time =
      std::chrono::steady_clock::now() - scan_start;

  std::vector<Candidate> ranked;
  for (auto& [block, c] : candidates) {
    c.score = profile.head_weight * c.head + profile.lexical_weight * c.lexical;
    ranked.push_back(c);
  }
  std::sort(ranked.begin(), ranked.end(), [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.block < b.block;
  });

  // The places that explain the question together come right behind the best one, and none is far
  // behind: each is all there is on its words.
  size_t cover = 0;
  for (const LexicalResult::Complement& part : lexical.cover) {
    auto at = std::find_if(ranked.begin(), ranked.end(),
                           [&](const Candidate& c) { return c.block == part.block.block; });
    if (profile.lexical_weight <= 0) break;
    if (at == ranked.end()) {
      Candidate c{.block = part.block.block,
                  .lexical = part.block.score / lexical.query_score,
                  .has_lexical = true};
      c.score = profile.lexical_weight * c.lexical;
      at = ranked.insert(at, c);
    }
    at->lexical_peak = part.block.peak_token;
    if (cover == 0 && at != ranked.begin()) cover = 1;  // the heads have another favourite
    if (at < ranked.begin() + static_cast<ptrdiff_t>(cover)) continue;  // stands there already
    std::rotate(ranked.begin() + static_cast<ptrdiff_t>(cover), at, at + 1);
    ++cover;
  }

  RecallPlan plan;
  plan.candidates = ranked.size();
  plan.scan_ms = scan_time.count();
  plan.words = lexical.words;
  const uint64_t before = profile.span_tokens / 4, after = profile.span_tokens * 5 / 8;
  for (size_t rank = 0; rank < ranked.size(); ++rank) {
    const Candidate& c = ranked[rank];
    if (plan.spans.size() >= spans_max) break;
    if (c.score <= 0) break;  // a profile may weigh a signal with nothing
    const double score = c.score / ranked.front().score;
    if (rank >= cover && score < profile.span_score_min) break;
    uint64_t low = UINT64_MAX, high = 0;
    if (c.has_lexical) low = high = c.lexical_peak;
    if (c.head > 0) {
      const std::vector<double> shares = TokenShares(memory, query, scans, c.block);
      const uint64_t peak =
          uint64_t{c.block.block} * kBlockTokens +
          static_cast<uint64_t>(std::max_element(shares.begin(), shares.end()) - shares.begin());
      low = std::min(low, peak);
      high = std::max(high, peak);
    }
    const DocumentRecord& document = memory.Get(c.block.document);
    TokenSpan span{low > before ? low - before : 0,
                   std::min(high + after, document.committed_tokens)};
    LH_ASSIGN_OR_RETURN(span, memory.GrowToLines(c.block.document, span, kLineGrowTokens));
    span.end = std::min(span.end, document.committed_tokens);

    // What an earlier, better span holds already is not recalled twice.
    const auto overlapping =
        std::find_if(plan.spans.begin(), plan.spans.end(), [&](const PlannedSpan& s) {
          return s.document == c.block.document && s.tokens.begin < span.end &&
                 span.begin < s.tokens.end;
        });
    if (overlapping != plan.spans.end()) {
      const bool inside = overlapping->tokens.begin <= low && high < overlapping->tokens.end;
      overlapping->head_score = std::max(overlapping->head_score, c.head);
      overlapping->lexical_score = std::max(overlapping->lexical_score, c.lexical);
      overlapping->expansion_score = std::max(overlapping->expansion_score, c.related);
      if (inside) continue;
      // The rest of it stands by itself, cut where the better one begins or ends.
      if (span.begin < overlapping->tokens.begin) {
        span.end = std::min(span.end, overlapping->tokens.begin);
      } else {
        span.begin = std::max(span.begin, overlapping->tokens.end);
      }
      const bool clashes =
          std::any_of(plan.spans.begin(), plan.spans.end(), [&](const PlannedSpan& s) {
            return s.document == c.block.document && s.tokens.begin < span.end &&
                   span.begin < s.tokens.end;
          });
      if (span.empty() || clashes) continue;
    }
    if (PlannedSpan* near = Neighbour(plan.spans, c.block.document, span)) {
      const TokenSpan both{std::min(span.begin, near->tokens.begin),
                           std::max(span.end, near->tokens.end)};
      if (both.size() <= SpanTokensMax(profile)) {
        near->tokens = both;
        near->head_score = std::max(near->head_score, c.head);
        near->lexical_score = std::max(near->lexical_score, c.lexical);
        near->expansion_score = std::max(near->expansion_score, c.related);
        continue;
      }
      if (span.size() + Gap(span, near->tokens) <= SpanTokensMax(profile)) {
        if (span.end <= near->tokens.begin) {
          span.end = near->tokens.begin;
        } else {
          span.begin = near->tokens.end;
        }
      }
    }
    // A span that was cut may have lost its peak.
    const uint64_t peak =
        std::clamp(c.has_lexical ? c.lexical_peak : low, span.begin, span.end - 1);
    plan.spans.push_back({c.block.document, span, peak, score, c.head, c.lexical, c.related});
  }

  uint32_t rank = 0;
  for (PlannedSpan& s : plan.spans) {
    s.planned_rank = ++rank;
    s.planned_score = s.score;
    for (uint64_t b = s.tokens.begin / kBlockTokens; b * kBlockTokens < s.tokens.end; ++b) {
      const BlockKey block{s.document, static_cast<uint32_t>(b)};
      const std::vector<double> shares = TokenShares(memory, query, scans, block);
      for (size_t i = 0; i < shares.size(); ++i) {
        if (s.tokens.Contains(b * kBlockTokens + i)) s.coverage += shares[i];
      }
    }
  }
  return plan;
}

double RecallPlan::Coverage() const {
  double sum = 0;
  for (const PlannedSpan& s : spans) sum += s.coverage;
  return std::min(sum, 1.0);  // a sum of rounded shares
}

}  // namespace longhold
