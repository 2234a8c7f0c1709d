// The arithmetic of calibration on labelled cases, on made-up tables whose best weights, thresholds
// and numbers of spans are known.
//
// In a table a signal *points* at a candidate: it gives it 0.5 more than the up to 0.2 that it
// gives all. Where the expected weights follow from the tables' symmetry, 0.05 allows for the
// optimiser.
#include "eval/fusion_fit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "eval/rng.h"

namespace longhold {
namespace {

using testing::ElementsAre;
using testing::SizeIs;

constexpr size_t kCandidates = 30;

// A case where each signal points at the evidence or at another candidate.
FusionCase MadeCase(EvalRng& rng, const std::vector<bool>& right) {
  FusionCase c;
  c.candidates.resize(kCandidates);
  const size_t evidence = rng.Below(kCandidates);
  c.candidates[evidence].evidence = true;
  for (const bool points_right : right) {
    const size_t other = (evidence + 1 + rng.Below(kCandidates - 1)) % kCandidates;
    for (size_t i = 0; i < kCandidates; ++i) {
      const bool points = i == (points_right ? evidence : other);
      c.candidates[i].scores.push_back(0.2 * rng.Unit() + (points ? 0.5 : 0.0));
    }
  }
  return c;
}

// `right(i, signal)`: whether the signal points at the evidence of case i.
FusionKind MadeKind(uint64_t seed, size_t cases, size_t signals,
                    const std::function<bool(size_t, size_t)>& right) {
  EvalRng rng(seed, "fusion");
  FusionKind kind;
  for (size_t i = 0; i < cases; ++i) {
    std::vector<bool> points;
    for (size_t s = 0; s < signals; ++s) points.push_back(right(i, s));
    kind.cases.push_back(MadeCase(rng, points));
  }
  return kind;
}

std::vector<const FusionKind*> Pointers(const std::vector<FusionKind>& kinds) {
  std::vector<const FusionKind*> out;
  for (const FusionKind& kind : kinds) out.push_back(&kind);
  return out;
}

// The rank of each case's first evidence by the fused score.
RankScore Rank(const FusionKind& kind, const std::vector<double>& weights) {
  std::vector<uint32_t> ranks;
  for (const FusionCase& c : kind.cases) {
    const auto score = [&](const FusionCandidate& x) {
      return std::inner_product(weights.begin(), weights.end(), x.scores.begin(), 0.0);
    };
    double best = -1;
    for (const FusionCandidate& x : c.candidates) best = x.evidence ? score(x) : best;
    uint32_t rank = best < 0 ? 0 : 1;
    for (const FusionCandidate& x : c.candidates) rank += rank > 0 && score(x) > best;
    ranks.push_back(rank);
  }
  return ScoreRanks(ranks);
}

// A kind whose evidence is drawn from the model that is fitted: P(evidence = candidate) is the
// softmax of 12 times the fused score.
FusionKind DrawnKind(uint64_t seed, size_t cases, const std::vector<double>& weights) {
  EvalRng rng(seed, "drawn");
  FusionKind kind;
  for (size_t i = 0; i < cases; ++i) {
    FusionCase& c = kind.cases.emplace_back();
    std::vector<double> until;
    for (size_t x = 0; x < kCandidates; ++x) {
      FusionCandidate& candidate = c.candidates.emplace_back();
      for (size_t s = 0; s < weights.size(); ++s) candidate.scores.push_back(rng.Unit());
      const double fused =
          std::inner_product(weights.begin(), weights.end(), candidate.scores.begin(), 0.0);
      until.push_back((until.empty() ? 0 : until.back()) + std::exp(12 * fused));
    }
    const double drawn = rng.Unit() * until.back();
    const auto at = std::upper_bound(until.begin(), until.end() - 1, drawn) - until.begin();
    c.candidates[static_cast<size_t>(at)].evidence = true;
  }
  return kind;
}

// Over 20 other seeds the root mean square of the errors was 0.01 and 0.07 and the largest was
// 0.13. Most of it is the pull to the present weights, which are far from the truth here.
TEST(FusionFit, FindsTheWeightsThatTheEvidenceWasDrawnWith) {
  const std::vector<double> truth = {1, 0.4, 1.7};
  const std::vector<FusionKind> kinds = {DrawnKind(1, 500, truth), DrawnKind(2, 500, truth)};
  const std::vector<double> w = FitFusion(Pointers(kinds), {1, 1, 0.7});
  EXPECT_NEAR(w[1], truth[1], 0.15);
  EXPECT_NEAR(w[2], truth[2], 0.15);
}

TEST(FusionFit, ASignalThatIsMoreOftenRightWeighsMore) {
  // Words are right in 3 of 6 cases, signal 1 in 5 of 6, signal 2 in 1 of 6.
  const std::vector<FusionKind> kinds = {MadeKind(1, 180, 3, [](size_t i, size_t s) {
    return s == 0 ? i % 2 == 0 : s == 1 ? i % 6 != 0 : i % 6 == 3;
  })};
  const std::vector<double> w = FitFusion(Pointers(kinds), {1, 1, 1});
  ASSERT_THAT(w, SizeIs(3));
  EXPECT_EQ(w[0], 1);
  EXPECT_GT(w[1], 1.1);
  EXPECT_LT(w[2], 0.8);
  EXPECT_GT(Rank(kinds[0], w).hit1, Rank(kinds[0], {1, 1, 1}).hit1);
  EXPECT_EQ(w, FitFusion(Pointers(kinds), {1, 1, 1})) << "the same every time";
}

TEST(FusionFit, SignalsThatAreEquallyRightWeighTheSame) {
  const std::vector<FusionKind> kinds = {
      MadeKind(2, 600, 2, [](size_t i, size_t s) { return i % 3 != s; })};
  EXPECT_NEAR(FitFusion(Pointers(kinds), {1, 0.3})[1], 1, 0.1);
}

TEST(FusionFit, EachKindWeighsTheSameHoweverManyCasesItHas) {
  const auto words = [](size_t i, size_t s) { return s == 0 ? i % 8 != 0 : i % 2 == 0; };
  const auto meaning = [](size_t i, size_t s) { return s == 1 ? i % 8 != 0 : i % 2 == 0; };
  const std::vector<FusionKind> even = {MadeKind(3, 80, 2, words), MadeKind(4, 80, 2, meaning)};
  std::vector<FusionKind> uneven = even;
  for (int copies = 0; copies < 9; ++copies)
    uneven[0].cases.insert(uneven[0].cases.end(), even[0].cases.begin(), even[0].cases.end());
  EXPECT_NEAR(FitFusion(Pointers(uneven), {1, 1})[1], FitFusion(Pointers(even), {1, 1})[1], 1e-6);
}

TEST(FusionFit, WhereTheCasesDoNotDecideThePresentWeightsStay) {
  // Signal 1 gives all candidates the same.
  FusionKind kind = MadeKind(5, 60, 2, [](size_t i, size_t) { return i % 4 != 0; });
  for (FusionCase& c : kind.cases) {
    for (FusionCandidate& x : c.candidates) x.scores[1] = 0.4;
  }
  EXPECT_NEAR(FitFusion(Pointers({kind}), {1, 0.7})[1], 0.7, 0.05);
}

TEST(FusionFit, CasesWithoutEvidenceTeachNothing) {
  std::vector<FusionKind> kinds = {
      MadeKind(6, 60, 2, [](size_t i, size_t s) { return s == 1 ? i % 6 != 0 : i % 2 == 0; })};
  const std::vector<double> before = FitFusion(Pointers(kinds), {1, 1});
  FusionCase lost = kinds[0].cases[0];
  for (FusionCandidate& x : lost.candidates) x.evidence = false;
  kinds[0].cases.push_back(lost);
  kinds[0].cases.push_back({});  // nothing competed
  kinds.push_back({{lost}});     // a kind that has no other case
  kinds.push_back({});
  EXPECT_EQ(FitFusion(Pointers(kinds), {1, 1}), before);
  EXPECT_THAT(FitFusion(Pointers({{{lost}}}), {1, 0.7}), ElementsAre(1, 0.7));
  EXPECT_THAT(FitFusion({}, {1, 0.7}), ElementsAre(1, 0.7));
}

TEST(FusionFit, TablesWithoutMistakesGiveWeightsWithinTheirLimits) {
  const std::vector<FusionKind> kinds = {MadeKind(7, 40, 2, [](size_t, size_t) { return true; })};
  const double w = FitFusion(Pointers(kinds), {1, kFusionWeightMax})[1];
  EXPECT_GE(w, 0);
  EXPECT_LE(w, kFusionWeightMax);
}

TEST(FusionFit, AKindThatContradictsTheOthersShowsWhenItIsLeftOut) {
  // In two kinds signal 1 is right, in the third it misleads.
  const auto helps = [](size_t i, size_t s) { return s == 1 ? i % 8 != 0 : i % 3 == 0; };
  const auto misleads = [](size_t i, size_t s) { return s == 1 ? i % 8 == 0 : i % 3 != 0; };
  const std::vector<FusionKind> kinds = {MadeKind(8, 96, 2, helps), MadeKind(9, 96, 2, helps),
                                         MadeKind(10, 96, 2, misleads)};
  const auto pointers = Pointers(kinds);
  const std::vector<double> present = {1, 0.3};
  const auto without = FitWithoutEach(pointers, present);
  ASSERT_THAT(without, SizeIs(3));
  EXPECT_GT(without[2][1], 1.5 * without[0][1]) << "nothing warns of the third kind";
  EXPECT_GT(without[2][1], FitFusion(pointers, present)[1]);
  std::vector<RankScore> learned, before;
  for (size_t k = 0; k < kinds.size(); ++k) {
    learned.push_back(Rank(kinds[k], without[k]));
    before.push_back(Rank(kinds[k], present));
  }
  EXPECT_LT(learned[2].mrr, before[2].mrr);
  EXPECT_FALSE(LearnedIsNoWorse(std::span(learned).last(1), std::span(before).last(1)));
  EXPECT_TRUE(LearnedIsNoWorse(std::span(learned).first(2), std::span(before).first(2)));
}

TEST(FusionFit, EquallyGoodWeightsReplaceThePresentOnes) {
  const std::vector<RankScore> score = {ScoreRanks(std::vector<uint32_t>{1, 3, 0}),
                                        ScoreRanks(std::vector<uint32_t>{2})};
  EXPECT_TRUE(LearnedIsNoWorse(score, score));
}

TEST(FusionFit, EvidenceThatIsNotFoundIsAMiss) {
  const RankScore s = ScoreRanks(std::vector<uint32_t>{1, 4, 8, 9, 0});
  EXPECT_EQ(s.cases, 5u);
  EXPECT_DOUBLE_EQ(s.hit1, 0.2);
  EXPECT_DOUBLE_EQ(s.hit4, 0.4);
  EXPECT_DOUBLE_EQ(s.hit8, 0.6);
  EXPECT_DOUBLE_EQ(s.mrr, (1 + 0.25 + 0.125 + 1.0 / 9) / 5);
  EXPECT_EQ(ScoreRanks({}).mrr, 0);
}

// ------------------------------------------------------------------------------------------------
// thresholds

TEST(Thresholds, BothMustBeLowWithASimilarity) {
  const AbstainThresholds t{.found = 0.4, .similarity = 0.35};
  const auto abstains = [&](double found, std::optional<double> similarity) {
    return Abstains({.found_share = found, .similarity = similarity}, t);
  };
  EXPECT_TRUE(abstains(0.49, 0.34));
  EXPECT_FALSE(abstains(0.51, 0.34)) << "five quarters of 0.4 are found";
  EXPECT_FALSE(abstains(0.0, 0.36));
  EXPECT_TRUE(abstains(0.39, std::nullopt));
  EXPECT_FALSE(abstains(0.41, std::nullopt));
  EXPECT_FALSE(Abstains({.found_share = 0, .similarity = 0.46}, {0.4, 0.9})) << "strong";
  EXPECT_FALSE(Abstains({.found_share = 0, .similarity = 0}, {0, 0.3})) << "turned off";
  EXPECT_TRUE(Abstains({.found_share = 1, .similarity = 1, .no_candidate = true}, t));
}

// `count` samples: found shares evenly from `low` to `high`, without a similarity.
std::vector<EvidenceSample> Spread(size_t count, double low, double high) {
  std::vector<EvidenceSample> samples;
  for (size_t i = 0; i < count; ++i)
    samples.push_back({.found_share = low + (high - low) * static_cast<double>(i) /
                                                static_cast<double>(count - 1),
                       .similarity = std::nullopt});
  return samples;
}

TEST(Thresholds, RefuseAtMostThreePercentOfEveryKind) {
  // The first kind allows a threshold of some 0.6, the second only of 0.45.
  const std::vector<EvidenceKind> kinds = {{Spread(100, 0.595, 1), Spread(50, 0, 0.7)},
                                           {Spread(100, 0.445, 1), Spread(50, 0, 0.7)}};
  const AbstainThresholds present{.found = 0.2, .similarity = 0.35};
  const auto chosen = ChooseThresholds(kinds, present);
  ASSERT_TRUE(chosen.has_value());
  EXPECT_NEAR(chosen->found, 0.46, 0.011);
  EXPECT_EQ(chosen->similarity, 0.35) << "it decides nothing here";
  for (const EvidenceKind& kind : kinds) {
    const RefusalScore score = ScoreThresholds(kind, *chosen);
    EXPECT_LE(score.refused, kRefusedMax);
    EXPECT_GT(score.recognised, ScoreThresholds(kind, present).recognised);
  }
}

TEST(Thresholds, TheNearestOfEquallyGoodPairsWins) {
  const std::vector<EvidenceKind> kinds = {{Spread(20, 0.7, 1), Spread(20, 0, 0.2)}};
  const auto chosen = ChooseThresholds(kinds, {.found = 0.4, .similarity = 0.35});
  ASSERT_TRUE(chosen.has_value());
  EXPECT_EQ(chosen->found, 0.4);
}

TEST(Thresholds, AKindWithoutUnanswerableQuestionsOnlyLimits) {
  std::vector<EvidenceKind> kinds = {{Spread(20, 0.5, 1), {}},
                                     {Spread(20, 0.9, 1), Spread(20, 0, 0.8)}};
  const auto chosen = ChooseThresholds(kinds, {.found = 0.2, .similarity = 0.35});
  ASSERT_TRUE(chosen.has_value());
  EXPECT_GT(chosen->found, 0.45);
  EXPECT_LE(chosen->found, 0.5);
  kinds[1].unanswerable.clear();
  EXPECT_FALSE(ChooseThresholds(kinds, {0.2, 0.35}).has_value());
}

TEST(Thresholds, NoneAreChosenWhereEveryPairRefusesTooMany) {
  EvidenceKind kind{Spread(20, 0.5, 1), Spread(20, 0, 0.4)};
  kind.answerable[0].no_candidate = true;  // 5 %, whatever the thresholds
  EXPECT_FALSE(ChooseThresholds(std::vector<EvidenceKind>{kind}, {0.4, 0.35}).has_value());
}

TEST(Thresholds, ThatRefuseTooManyOfAKindLeftOutAreNotTaken) {
  const auto taken = [](double learned, double present) {
    const std::vector<RefusalScore> a = {{.refused = 0.01}, {.refused = learned}},
                                    b = {{.refused = 0.02}, {.refused = present}};
    return LearnedRefuseNoMore(a, b);
  };
  EXPECT_TRUE(taken(0.03, 0));
  EXPECT_FALSE(taken(0.04, 0.03));
  EXPECT_TRUE(taken(0.04, 0.05)) << "the present ones refuse more";
}

// ------------------------------------------------------------------------------------------------
// number of spans

TEST(Spans, WhereAllPlacesAreNeededTheirShareCounts) {
  const PlaceRanks any{.ranks = {0, 9, 3}, .all_needed = false};
  EXPECT_EQ(any.First(), 3u);
  EXPECT_EQ(any.ShareIn(2), 0);
  EXPECT_EQ(any.ShareIn(3), 1);
  const PlaceRanks all{.ranks = {0, 9, 3}, .all_needed = true};
  EXPECT_DOUBLE_EQ(all.ShareIn(8), 1.0 / 3);
  EXPECT_DOUBLE_EQ(all.ShareIn(9), 2.0 / 3);
  EXPECT_EQ((PlaceRanks{.ranks = {0, 0}}).First(), 0u);
}

TEST(Spans, StopWhereTheNextNumberBringsTooLittle) {
  EXPECT_EQ(ChooseSpans(std::vector<double>{0.5, 0.6, 0.7, 0.705, 0.8, 0.9}), 8u);
  EXPECT_EQ(ChooseSpans(std::vector<double>{0.5, 0.5, 0.7, 0.8, 0.9, 1.0}), 4u);
  EXPECT_EQ(ChooseSpans(std::vector<double>{0.1, 0.2, 0.3, 0.4, 0.5, 0.6}), 24u);
}

TEST(Spans, EachKindWeighsTheSame) {
  const std::vector<std::vector<PlaceRanks>> kinds = {
      {{.ranks = {1}}, {.ranks = {5}}, {.ranks = {13}}, {.ranks = {0}}}, {{.ranks = {7}}}};
  EXPECT_THAT(EvidenceBySpans(kinds), ElementsAre(0.125, 0.25, 0.75, 0.75, 0.875, 0.875));
}

}  // namespace
}  // namespace longhold
