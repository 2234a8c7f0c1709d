// The recall settings of one model: which heads retrieve, how signals are weighted, and how spans
// are gated and ordered. A profile is data, not code: a file of memory/profiles/*.json or of the
// user.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "memory/model/language_model.h"

namespace longhold {

// A recall head: a (layer, KV head) pair whose q.k scores, computed without positions, find the
// place that a question asks for.
struct RecallHead {
  uint32_t layer = 0;  // the model's layer number; the layer must be tapped
  uint32_t kv_head = 0;
  double weight = 1;
};

// Limits of the hot window's sinks and window. The cost of ingest grows with both.
inline constexpr uint32_t kSinkTokensMax = 512;
inline constexpr uint32_t kWindowTokensMax = 4096;

// The profile name of models that have no profile of their own. It has no recall heads.
inline constexpr std::string_view kGenericProfile = "generic";

// RecallProfile::abstain_found of every shipped profile and of the generic one. It is one value for
// all models because it depends only on words (docs/decisions/0029).
inline constexpr double kAbstainFound = 0.4;

// RecallProfile::abstain_similarity of every profile: it depends on the embedding model only
// (docs/decisions/0032).
inline constexpr double kAbstainSimilarity = 0.35;

// The relevance signals that longhold includes: the question's words, words with a similar meaning
// (query expansion), the passages nearest in meaning (an embedding model), and the model's recall
// heads.
inline constexpr std::string_view kWordSignal = "words";
inline constexpr std::string_view kExpansionSignal = "expansion";
inline constexpr std::string_view kDenseSignal = "dense";
inline constexpr std::string_view kHeadSignal = "heads";
// The weight of the dense signal where nothing else was learned (docs/decisions/0033).
inline constexpr double kDenseWeight = 1.0;

// Value type.
struct RecallProfile {
  std::string name;  // "smollm2-135m"
  // The models that the profile is for. All of these must match.
  std::string architecture;
  uint32_t layer_count = 0, q_heads = 0, kv_heads = 0, head_dim = 0, vocab_size = 0;

  std::vector<RecallHead> heads;
  // Weight of each relevance signal (memory/recall/relevance_signal.h) in the fused score, by name.
  // A signal that is not listed has weight 0 and is not computed.
  std::map<std::string, double, std::less<>> signals = {{std::string(kWordSignal), 1},
                                                        {std::string(kExpansionSignal), 1},
                                                        {std::string(kDenseSignal), kDenseWeight},
                                                        {std::string(kHeadSignal), 1}};
  // lambda: gate * ln(p_span / p_best) is added to the logits of a span's attention keys
  double gate = 2;
  // Reranking by query likelihood (memory/recall/query_likelihood.h). rerank_spans: how many of the
  // plan's best spans the model scores; 0 turns reranking off. The order is by rerank_prior *
  // ln(score) + ln P(question | span). A span that is one rerank_scale behind the best one is e
  // times less relevant.
  uint32_t rerank_spans = 16;
  double rerank_prior = 4;
  double rerank_scale = 8;
  // If no reranked span reaches this support (memory/recall/abstention.h), the memory is taken to
  // hold nothing on the question. 0: only a question without any candidate span counts as such.
  double abstain_support = 0;
  // The same threshold without reranking: the share of the question's words that the best span must
  // contain (FoundShare). Shipped profiles and the generic one use kAbstainFound.
  double abstain_found = 0;
  // With an embedding model, the memory is taken to hold nothing only if no recalled sentence is so
  // similar to the question: the score of the dense signal (memory/recall/dense_signal.h).
  double abstain_similarity = kAbstainSimilarity;
  // How many tokens of the plan's sentences are re-encoded as text right before the question. Their
  // spans are recalled as well (docs/decisions/0007). With 0 none are. A model with layers that are
  // not tapped then re-encodes its best spans whole and does not recall them (docs/decisions/0004).
  uint32_t reencode_tokens = 0;
  // Multi-hop retrieval (memory/recall/multi_hop.h). hops_max: the most lookups in a row; 0 for
  // none. hop_spans: the most spans that they add to spans_max. generation_spans: how often
  // retrieval may run again during generation of one answer.
  uint32_t hops_max = 4;
  uint32_t hop_spans = 6;
  uint32_t generation_spans = 2;
  uint32_t spans_max = 16;
  double span_score_min = 0.15;  // spans below this share of the best span's score are not recalled
  // A span grows by whole units of text (memory/text/units.h) until it has so many tokens.
  uint32_t span_tokens = 48;
  uint32_t window_tokens = 256;  // hot window during ingest, in tokens
  uint32_t sink_tokens = 64;
  // How the profile was calibrated, as a JSON object for human readers. The program does not use
  // it. Empty when the profile was not calibrated.
  std::string calibration;

  double WeightOf(std::string_view signal) const;
  bool Matches(const ModelInfo& model) const;
  // Makes it a profile for models like this one: afterwards it matches `model`.
  void MatchOnly(const ModelInfo& model);

  // Errors: invalid_argument, which names the wrong JSON member. Unknown members are errors because
  // profiles are small and strict.
  static Result<RecallProfile> Parse(std::string_view json, std::string_view file);
  // JSON text for human readers that ends with a line break. Parse reads it back as an equal
  // profile.
  std::string ToJson() const;
  // The shipped profile for `model`, or else the generic one: it has no recall heads, so the model
  // runs no pass but the question's.
  static RecallProfile For(const ModelInfo& model);
};

// The texts of the shipped profile files (generated from memory/profiles/*.json at build time).
std::vector<std::string_view> BuiltinProfileTexts();

}  // namespace longhold
