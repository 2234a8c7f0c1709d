// Reranking by query likelihood. For each candidate span, the model computes the probability of the
// question given the span. Spans with a higher probability rank higher.
//
// Query likelihood is an established ranking method (Ponte and Croft, "A Language Modeling Approach
// to Information Retrieval", SIGIR 1998). Large models do it well without training (Sachan et al.,
// arXiv:2204.07496). Here it is cheap: the spans' keys and values are stored, so only the
// question's tokens run, for all candidates in one pass. Measurements: docs/decisions/0005.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "attention/layer_attention.h"
#include "base/status.h"
#include "memory/attend/working_set.h"
#include "memory/model/language_model.h"
#include "memory/model/recall_profile.h"
#include "memory/recall/planned_span.h"

namespace longhold {

// Several working sets in one forward pass. The rows of the pass belong to the sets in order, and
// the rows of each set attend only to that set. Owner: one reranking. Thread use: *confined*; each
// set always belongs to the same worker.
class BranchSet final : public LayerAttention {
 public:
  // `sets[i]` gets the next `tokens[i]` rows of the pass. Must hold: both spans have the same size,
  // and every set has room.
  BranchSet(std::span<const std::unique_ptr<WorkingSet>> sets, std::span<const uint32_t> tokens);

  void StoreKeys(uint32_t slot, LayerRows keys, uint32_t tokens, uint32_t worker,
                 uint32_t workers) override;
  void StoreValues(uint32_t slot, LayerRows values, uint32_t tokens, uint32_t worker,
                   uint32_t workers) override;
  void Attend(uint32_t slot, LayerRows queries, uint32_t tokens, float* out, uint32_t worker,
              uint32_t workers) override;

 private:
  struct Part {
    WorkingSet* set;
    uint32_t row_begin;
    uint32_t rows;
  };
  std::vector<Part> parts_;
  size_t out_width_ = 0;  // q_heads * head_dim
};

// For each of `sets`, the natural logs of the probabilities of the tokens question[scored_begin,
// ...) when the question follows everything in the set: [sets][question.size() - scored_begin].
// Afterwards the question is appended to each set. Runs as few passes as the model's bounds allow.
// Layers that are not tapped see the native positions before `position`. Must hold: 1 <=
// scored_begin < question.size(), and one question fits the model's bounds.
Result<std::vector<std::vector<float>>> QuestionLikelihoods(
    LanguageModel& model, std::span<const std::unique_ptr<WorkingSet>> sets,
    std::span<const TokenId> question, size_t scored_begin, uint32_t position);

// Scores `spans` by query likelihood and sorts them, best first. Reads score (from the fused
// signals), question_gain and token_gains.
//   weight(s) = rerank_prior * ln(score before reranking) + question_gain
//   score(s)  = exp((weight(s) - best weight) / rerank_scale)
// A question that names several things needs several spans. Each of them explains some of its
// words, and its overall score may be low. So spans are also chosen one after another: first the
// best one, then always the one that adds most.
//   gain(s)          = sum over tokens t of token_weights(t) *
//                      max(0, token_gains(s, t) - e(t))
//                      e(t) = largest token_gains(t) of the spans chosen before, at least 0
//   coverage_gain(s) = gain(s) / gain of the first, at most 1
//   score(s)         = at least coverage_gain(s)
// `token_weights` is how rare the word of each scored token is in the memory. Without it, the
// common words of a question that asks for four identifiers ("what are all the ... mentioned in the
// text") outweigh each identifier.
void RankByLikelihood(const RecallProfile& profile, std::span<const double> token_weights,
                      std::vector<PlannedSpan>* spans);

}  // namespace longhold
