#include "memory/recall/query_likelihood.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace longhold {
namespace {

LayerRows From(LayerRows rows, uint32_t row) {
  return {rows.data + row * rows.token_stride, rows.token_stride};
}

}  // namespace

BranchSet::BranchSet(std::span<const std::unique_ptr<WorkingSet>> sets,
                     std::span<const uint32_t> tokens) {
  LH_CHECK(sets.size() == tokens.size() && !sets.empty());
  uint32_t row = 0;
  for (size_t i = 0; i < sets.size(); ++i) {
    sets[i]->BeginPass(tokens[i]);
    parts_.push_back({sets[i].get(), row, tokens[i]});
    row += tokens[i];
  }
  const KvGeometry& g = sets[0]->geometry();
  out_width_ = size_t{g.q_heads} * g.head_dim;
}

void BranchSet::StoreKeys(uint32_t slot, LayerRows keys, uint32_t, uint32_t worker,
                          uint32_t workers) {
  for (size_t i = worker; i < parts_.size(); i += workers) {
    const Part& p = parts_[i];
    p.set->StoreKeys(slot, From(keys, p.row_begin), p.rows, 0, 1);
  }
}

void BranchSet::StoreValues(uint32_t slot, LayerRows values, uint32_t, uint32_t worker,
                            uint32_t workers) {
  for (size_t i = worker; i < parts_.size(); i += workers) {
    const Part& p = parts_[i];
    p.set->StoreValues(slot, From(values, p.row_begin), p.rows, 0, 1);
  }
}

void BranchSet::Attend(uint32_t slot, LayerRows queries, uint32_t, float* out, uint32_t worker,
                       uint32_t workers) {
  for (size_t i = worker; i < parts_.size(); i += workers) {
    const Part& p = parts_[i];
    p.set->Attend(slot, From(queries, p.row_begin), p.rows, out + p.row_begin * out_width_, 0, 1);
  }
}

Result<std::vector<std::vector<float>>> QuestionLikelihoods(
    LanguageModel& model, std::span<const std::unique_ptr<WorkingSet>> sets,
    std::span<const TokenId> question, size_t scored_begin, uint32_t position) {
  LH_CHECK(scored_begin >= 1 && scored_begin < question.size());
  const size_t scored = question.size() - scored_begin;
  const size_t per_pass =
      std::min<size_t>({model.batch_tokens() / question.size(), model.scored_tokens_max() / scored,
                        model.branches_max()});
  LH_CHECK(per_pass >= 1);
  std::vector<std::vector<float>> likelihoods;
  for (size_t at = 0; at < sets.size(); at += per_pass) {
    const auto group = sets.subspan(at, std::min(per_pass, sets.size() - at));
    BranchSet branches(group,
                       std::vector<uint32_t>(group.size(), static_cast<uint32_t>(question.size())));
    const std::vector<Branch> judged(group.size(),
                                     Branch{.tokens = question, .scored_begin = scored_begin});
    LH_ASSIGN_OR_RETURN(auto logs, model.Score(judged, position, &branches));
    for (std::vector<float>& l : logs) likelihoods.push_back(std::move(l));
  }
  return likelihoods;
}

namespace {

void SortByScore(std::vector<PlannedSpan>& spans) {
  std::stable_sort(spans.begin(), spans.end(),
                   [](const PlannedSpan& a, const PlannedSpan& b) { return a.score > b.score; });
}

}  // namespace

void RankByLikelihood(const RecallProfile& profile, std::span<const double> token_weights,
                      std::vector<PlannedSpan>* spans) {
  if (spans->empty()) return;
  std::vector<double> weight;
  for (const PlannedSpan& s : *spans)
    weight.push_back(profile.rerank_prior * std::log(s.score) + s.question_gain);
  const double best = *std::max_element(weight.begin(), weight.end());
  for (size_t i = 0; i < weight.size(); ++i)
    (*spans)[i].score = std::exp((weight[i] - best) / profile.rerank_scale);
  SortByScore(*spans);

  std::vector<double> explained(token_weights.size(), 0);
  std::vector<bool> chosen(spans->size(), false);
  double first_gain = 0;
  for (size_t n = 0; n < spans->size(); ++n) {
    size_t next = 0;
    double most = -1;
    for (size_t i = 0; i < (n == 0 ? 1 : spans->size()); ++i) {
      double gain = 0;
      for (size_t t = 0; t < explained.size(); ++t)
        gain += token_weights[t] * std::max(0.0, (*spans)[i].token_gains[t] - explained[t]);
      if (chosen[i] || gain <= most) continue;
      most = gain;
      next = i;
    }
    if (n == 0) first_gain = most;
    if (most <= 0) break;
    PlannedSpan& span = (*spans)[next];
    chosen[next] = true;
    for (size_t t = 0; t < explained.size(); ++t)
      explained[t] = std::max<double>(explained[t], span.token_gains[t]);
    span.coverage_gain = std::min(1.0, most / first_gain);
    span.score = std::max(span.score, span.coverage_gain);
  }
  SortByScore(*spans);
}

}  // namespace longhold
