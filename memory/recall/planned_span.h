// A span that competes for a place in the plan, with what each stage did to it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/types.h"
#include "memory/model/recall_profile.h"
#include "memory/text/units.h"

namespace longhold {

class Memory;

// What one signal gave a span. Value type.
struct SignalScore {
  std::string_view signal;  // RelevanceSignal::name
  double score = 0;         // the largest of the blocks that the span stands for
};

// What a stage did to a span. Value type.
struct TrailEntry {
  std::string_view stage;   // "retrieve", "fuse", ...
  std::string_view action;  // "found", "joined", "moved", "dropped", ...
  std::string reason;
};

// Value type.
struct PlannedSpan {
  DocumentId document{};
  TokenSpan tokens;
  // The line that says when the span was said (DateLineBefore); empty where none does, or where the
  // span has it. The model attends to it before the span.
  TokenSpan date_line;
  // The token that the first signal points at; inside `tokens`.
  uint64_t peak = 0;
  double score = 0;  // fused relevance, 1 is the best span's
  std::vector<SignalScore> signals;
  // Reranked spans only: ln of how much likelier the question is after the span than after nothing,
  // in all and by token of the question.
  double question_gain = 0;
  std::vector<float> token_gains;
  // Reranked spans only: what the span adds to those that explain more, 1 for the first
  // (RankByLikelihood).
  double coverage_gain = 0;
  double coverage = 0;        // share of the recall heads' mass inside the span, without the sinks'
  uint32_t planned_rank = 0;  // 1-based, by the fused signals alone
  double planned_score = 0;   // `score` by the fused signals alone
  // How many lookups lead to it (multi_hop.h); 0: the question itself found it.
  uint32_t hops = 0;
  std::vector<TrailEntry> trail = {};

  double ScoreOf(std::string_view signal) const {
    for (const SignalScore& s : signals) {
      if (s.signal == signal) return s.score;
    }
    return 0;
  }
  // Keeps the larger of the score there is and `score`.
  void RaiseScore(std::string_view signal, double value) {
    for (SignalScore& s : signals) {
      if (s.signal != signal) continue;
      s.score = s.score < value ? value : s.score;
      return;
    }
    signals.push_back({signal, value});
  }
  void Note(std::string_view stage, std::string_view action, std::string reason) {
    trail.push_back({stage, action, std::move(reason)});
  }
  // Tokens that the model attends to.
  uint64_t recalled_tokens() const { return tokens.size() + date_line.size(); }
  bool reranked() const { return !token_gains.empty(); }
  bool SamePlace(const PlannedSpan& other) const {
    return document == other.document && tokens == other.tokens;
  }
};

// Tokens of the longest span: the longest unit of text (memory/text/units.h), or what the profile
// asks for.
inline uint32_t SpanTokensMax(const RecallProfile& profile) {
  return std::max(kLineTokensMax, profile.span_tokens);
}
// Tokens of a long span in most texts: what room is planned for.
inline constexpr uint32_t kSpanTokensUsual = 160;

// Whole units of text that hold tokens `low` to `high`; if these have more than SpanTokensMax, the
// one that holds `peak`. Grows by whole units, one part before to two parts after, until it has
// profile.span_tokens. Holds committed tokens only, and `peak`. Must hold: low <= peak <= high.
// Where text is damaged, the tokens around `peak`. Errors: those of the store.
Result<TokenSpan> SpanAround(Memory& memory, const RecallProfile& profile, DocumentId document,
                             uint64_t peak, uint64_t low, uint64_t high);

// The last line that ends before token `at` and is a date line (memory/text/date_line.h), without
// its line break, at most 4,096 tokens back. Empty where there is none; damaged text has none.
// Errors: those of the store.
Result<TokenSpan> DateLineBefore(Memory& memory, DocumentId document, uint64_t at);

}  // namespace longhold
