// What recall knows about one model: which heads retrieve, how signals are weighed, how spans are
// gated and ordered. Data, not code: memory/profiles/*.json, or a file of the user's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "memory/model/language_model.h"

namespace longhold {

// A (layer, KV head) whose position-free q.k finds the place that the question asks for.
struct RecallHead {
  uint32_t layer = 0;  // the model's layer number; must be tapped
  uint32_t kv_head = 0;
  double weight = 1;
};

// Of the hot window's sinks and window: what reading a text takes grows with both.
inline constexpr uint32_t kSinkTokensMax = 512;
inline constexpr uint32_t kWindowTokensMax = 4096;

// The name of the rule that models without a profile of their own get: places are found by their
// words alone.
inline constexpr std::string_view kGenericProfile = "generic";

// RecallProfile::abstain_found of every model: it is about words, which all find alike
// (docs/decisions/0029).
inline constexpr double kAbstainFound = 0.4;

// Value type.
struct RecallProfile {
  std::string name;  // "smollm2-135m"
  // Which models it is for: all must agree.
  std::string architecture;
  uint32_t layer_count = 0, q_heads = 0, kv_heads = 0, head_dim = 0, vocab_size = 0;

  std::vector<RecallHead> heads;
  // of the heads' share of attention mass, and of the lexical share of the question:
  double head_weight = 1;
  double lexical_weight = 1;  // see PlanRecall
  // Of a word that means nearly what the question's word means, by the model's own embeddings,
  // against the word itself (memory/recall/query_expansion.h); 0 where only the question's words
  // count.
  double expansion_weight = 1;
  // lambda: gate * ln(p_span / p_best) is added to the logits of a span's keys
  double gate = 2;
  // The second look (memory/recall/query_likelihood.h): how many of the plan's best spans the model
  // looks at, 0 for none, and how their order is made of both: rerank_prior * ln(score) + ln
  // P(question | span). A span that is one rerank_scale behind the best is e times less relevant.
  uint32_t rerank_spans = 16;
  double rerank_prior = 4;
  double rerank_scale = 8;
  // A question that no looked-at span supports this much (memory/recall/abstention.h) is taken as
  // one that the memory holds nothing on. 0: only a question without any candidate is.
  double abstain_support = 0;
  // The same where there is no second look: the share of the question's words that the best span
  // has to hold (FoundShare). Shipped profiles and the generic rule have kAbstainFound.
  double abstain_found = 0;
  // How many tokens of the plan's sentences go through the model again as text, right before the
  // question, beside the spans' being recalled (docs/decisions/0007); 0 for none, and then a model
  // that keeps layers to itself reads its best spans again whole, instead of recalling them
  // (docs/decisions/0004).
  uint32_t reencode_tokens = 0;
  // Repeated recall (memory/recall/multi_hop.h): how many lookups may follow one another, 0 for
  // none, how many spans they may add to spans_max, and how often an answer may recall anew while
  // it is generated.
  uint32_t hops_max = 4;
  uint32_t hop_spans = 6;
  uint32_t generation_spans = 2;
  uint32_t spans_max = 8;
  double span_score_min = 0.15;  // spans below this share of the best one's score are not recalled
  uint32_t span_tokens = 128;    // usual length of a span
  uint32_t window_tokens = 256;  // of the hot window while ingesting
  uint32_t sink_tokens = 64;
  // How it was calibrated, as a JSON object: kept for people to read, and used for nothing. Empty
  // when it was not.
  std::string calibration;

  bool Matches(const ModelInfo& model) const;

  // Errors: invalid_argument with the key that is wrong. Unknown keys are an error: a profile is
  // small and exact.
  static Result<RecallProfile> Parse(std::string_view json, std::string_view file);
  // What Parse reads back as an equal profile; a page for people, ending in a line break.
  std::string ToJson() const;
  // The shipped profile for `model`, or the generic rule: the lexical index alone, and no pass of
  // the model but the question's.
  static RecallProfile For(const ModelInfo& model);
};

// The shipped files' texts (generated from memory/profiles/*.json at build time).
std::vector<std::string_view> BuiltinProfileTexts();

}  // namespace longhold
