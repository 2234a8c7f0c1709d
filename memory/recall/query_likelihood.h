// The second look: the model itself reads the question beside each candidate span, and the span in
// whose company the question's words are likeliest comes first.
//
// Query likelihood is an old way to rank (Ponte and Croft, "A Language Modeling Approach to
// Information Retrieval", SIGIR 1998), and large models do it well without training (Sachan et al.,
// arXiv:2204.07496). Here it is cheap: the spans' keys and values are stored, so that only the
// question's tokens run, all candidates side by side in one pass. docs/decisions/0005 has the
// measurements.
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
#include "memory/recall/recall_planner.h"

namespace longhold {

// Working sets side by side in one forward pass: rows of the pass belong to the sets one after the
// other, and each set's rows see that set alone. Owner: one second look. Thread use: *confined*; a
// set is always the same worker's.
class BranchSet final : public LayerAttention {
 public:
  // `sets[i]` takes the pass's next `tokens[i]` rows. Must hold: both have the same size; there is
  // room in every set.
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
// ...) where everything that the set holds stands before the question: [sets][question.size() -
// scored_begin]. The sets are left with the question appended. Runs as few passes as the model's
// bounds allow; native layers see the native positions before `position`. Must hold: 1 <=
// scored_begin < question.size() and one question fits the model's bounds.
Result<std::vector<std::vector<float>>> QuestionLikelihoods(
    LanguageModel& model, std::span<const std::unique_ptr<WorkingSet>> sets,
    std::span<const TokenId> question, size_t scored_begin, uint32_t position);

// Scores `spans` by what the look said, and sorts them, best first. Reads score (the plan's), look
// and token_gains.
//   weight(s) = rerank_prior * ln(plan's score) + look
//   score(s)  = exp((weight(s) - best weight) / rerank_scale)
// A question that names several things is explained by several spans, each by some of its words,
// and one of them may be far behind as a whole. So spans are also chosen one after the other, the
// best one first, then always the one that adds most:
//   gain(s)      = sum over tokens t of token_weights(t) * max(0, token_gains(s, t) - largest
//   token_gains(t) of those chosen before, at least 0) coverage_gain(s) = gain(s) / gain of the
//   first, at most 1 score(s)     = at least coverage_gain(s)
// `token_weights` says how rare the word of each judged token is in the memory: without it, the
// words around four keys ("what are all the ... mentioned in the text") outweigh each of them.
void RankByLikelihood(const RecallProfile& profile, std::span<const double> token_weights,
                      std::vector<PlannedSpan>* spans);

}  // namespace longhold
