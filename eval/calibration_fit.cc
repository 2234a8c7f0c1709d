#include "eval/calibration_fit.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "eval/descent.h"

namespace longhold {
namespace {

constexpr double kRidge = 0.01;
constexpr int kSteps = 300;
constexpr int kTrialSteps = 80;  // for the selection of heads: enough to compare them
// The starting weight: a block with share 1 is e^4 times as likely as one with share 0. Learned
// weights were between 3 and 40.
constexpr double kStart = 4;

// Feature f of a block: words for 0, else heads[f - 1].
float Feature(const CaseSignals& c, const std::vector<size_t>& heads, size_t f, size_t block) {
  return f == 0 ? c.lexical[block] : c.head_share[heads[f - 1]][block];
}

double Loss(std::span<const CaseSignals* const> cases, const std::vector<size_t>& heads,
            const std::vector<double>& w, std::vector<double>* gradient) {
  const size_t features = w.size();
  double loss = 0;
  if (gradient != nullptr) gradient->assign(features, 0.0);
  std::vector<double> p;
  for (const CaseSignals* c : cases) {
    const size_t blocks = c->lexical.size();
    p.assign(blocks, 0.0);
    for (size_t f = 0; f < features; ++f) {
      if (w[f] == 0) continue;
      const float* x = f == 0 ? c->lexical.data() : c->head_share[heads[f - 1]].data();
      for (size_t b = 0; b < blocks; ++b) p[b] += w[f] * x[b];
    }
    const double max = *std::max_element(p.begin(), p.end());
    double sum = 0, right = 0;
    for (double& x : p) sum += x = std::exp(x - max);
    for (const uint32_t e : c->evidence) right += p[e];
    loss -= std::log(std::max(right / sum, 1e-30));
    if (gradient == nullptr) continue;
    for (size_t f = 0; f < features; ++f) {
      const float* x = f == 0 ? c->lexical.data() : c->head_share[heads[f - 1]].data();
      double expected = 0, wanted = 0;
      for (size_t b = 0; b < blocks; ++b) expected += p[b] * x[b];
      for (const uint32_t e : c->evidence) wanted += p[e] * Feature(*c, heads, f, e);
      (*gradient)[f] += expected / sum - wanted / std::max(right, 1e-300);
    }
  }
  const double n = static_cast<double>(std::max<size_t>(cases.size(), 1));
  double squares = 0;
  for (size_t f = 0; f < features; ++f) {
    squares += w[f] * w[f];
    if (gradient != nullptr) (*gradient)[f] = (*gradient)[f] / n + kRidge * w[f] / n;
  }
  return loss / n + kRidge / 2 * squares / n;
}

std::vector<double> Minimise(std::span<const CaseSignals* const> cases,
                             const std::vector<size_t>& heads, int steps) {
  return Descend(std::vector<double>(heads.size() + 1, kStart), {.steps = steps},
                 [&](const std::vector<double>& w, std::vector<double>* gradient) {
                   Loss(cases, heads, w, gradient);
                 });
}

// Two-fold cross-validation: the mean loss on each half with weights fitted on the other half.
double HeldOutLoss(std::span<const CaseSignals* const> cases, const std::vector<size_t>& heads) {
  constexpr size_t kFolds = 2;
  double total = 0;
  size_t judged = 0;
  for (size_t fold = 0; fold < kFolds; ++fold) {
    std::vector<const CaseSignals*> learned, held;
    for (size_t i = 0; i < cases.size(); ++i)
      (i % kFolds == fold ? held : learned).push_back(cases[i]);
    if (held.empty() || learned.empty()) continue;
    total += Loss(held, heads, Minimise(learned, heads, kTrialSteps), nullptr) *
             static_cast<double>(held.size());
    judged += held.size();
  }
  return judged == 0 ? 0 : total / static_cast<double>(judged);
}

}  // namespace

RankScore Judge(std::span<const CaseSignals* const> cases, const BlockScorer& scorer) {
  RankScore score;
  for (const CaseSignals* c : cases) {
    const std::vector<double> s = scorer(*c);
    double best = -std::numeric_limits<double>::infinity();
    for (const uint32_t e : c->evidence) best = std::max(best, s[e]);
    size_t above = 0, equal = 0, right = 0;
    for (size_t b = 0; b < s.size(); ++b) {
      above += s[b] > best;
      equal += s[b] == best;
    }
    for (const uint32_t e : c->evidence) right += s[e] == best;
    // The expected rank of the first of `right` evidence blocks among `equal` tied blocks in random
    // order.
    const double rank = static_cast<double>(above) +
                        static_cast<double>(equal + 1) / static_cast<double>(right + 1);
    score.hit1 += rank <= 1;
    score.hit4 += rank <= 4;
    score.hit8 += rank <= 8;
    score.mrr += 1 / rank;
    ++score.cases;
  }
  if (score.cases > 0) {
    for (double* x : {&score.hit1, &score.hit4, &score.hit8, &score.mrr})
      *x /= static_cast<double>(score.cases);
  }
  return score;
}

std::vector<double> SignalWeights::Score(const CaseSignals& signals) const {
  std::vector<double> s(signals.lexical.size());
  for (size_t b = 0; b < s.size(); ++b) {
    s[b] = lexical * signals.lexical[b];
    for (size_t i = 0; i < heads.size(); ++i) s[b] += weights[i] * signals.head_share[heads[i]][b];
  }
  return s;
}

SignalWeights FitWeights(std::span<const CaseSignals* const> cases,
                         const std::vector<size_t>& heads, double* loss) {
  const std::vector<double> w = Minimise(cases, heads, kSteps);
  if (loss != nullptr) *loss = Loss(cases, heads, w, nullptr);
  SignalWeights fitted;
  fitted.lexical = w[0];
  for (size_t i = 0; i < heads.size(); ++i) {
    if (w[i + 1] <= 0) continue;
    fitted.heads.push_back(heads[i]);
    fitted.weights.push_back(w[i + 1]);
  }
  return fitted;
}

SignalWeights LearnWeights(std::span<const CaseSignals* const> cases, size_t head_count,
                           size_t heads_max, size_t pool) {
  std::vector<std::pair<double, size_t>> alone;
  for (size_t h = 0; h < head_count; ++h) {
    const RankScore s = Judge(cases, [h](const CaseSignals& c) {
      return std::vector<double>(c.head_share[h].begin(), c.head_share[h].end());
    });
    alone.emplace_back(-s.mrr, h);
  }
  std::sort(alone.begin(), alone.end());
  alone.resize(std::min(alone.size(), pool));
  std::vector<size_t> chosen;
  double reached = HeldOutLoss(cases, chosen);
  while (chosen.size() < heads_max) {
    double best = reached;
    size_t best_head = head_count;
    for (const auto& [mrr, h] : alone) {
      if (std::find(chosen.begin(), chosen.end(), h) != chosen.end()) continue;
      std::vector<size_t> with = chosen;
      with.push_back(h);
      const double loss = HeldOutLoss(cases, with);
      if (loss < best) {
        best = loss;
        best_head = h;
      }
    }
    if (best_head == head_count || best > 0.99 * reached) break;
    chosen.push_back(best_head);
    reached = best;
  }
  return FitWeights(cases, chosen, nullptr);
}

double AbstainBelow(std::vector<double> answerable, std::vector<double> unanswerable,
                    double wrong_max, double enough) {
  if (answerable.empty() || unanswerable.empty()) return 0;
  std::sort(answerable.begin(), answerable.end());
  std::sort(unanswerable.begin(), unanswerable.end());
  const double safe =
      answerable[static_cast<size_t>(wrong_max * static_cast<double>(answerable.size()))];
  const auto at = static_cast<size_t>(std::ceil(enough * static_cast<double>(unanswerable.size())));
  const double wanted = at >= unanswerable.size() ? unanswerable.back() + 1e-9 : unanswerable[at];
  const double threshold = std::min(safe, wanted);
  const auto below =
      std::lower_bound(unanswerable.begin(), unanswerable.end(), threshold) - unanswerable.begin();
  return 2 * static_cast<size_t>(below) < unanswerable.size() ? 0 : std::max(threshold, 0.0);
}

}  // namespace longhold
