// Compares BranchSet and QuestionLikelihoods on the toy model with the same question scored alone
// in its own set. Within a pass the toy sums in another order: 1e-4 of a log probability is far
// above that, and far below the effect of a visible branch (1e-2 and more).
#include "memory/recall/query_likelihood.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/support/toy_model.h"

namespace longhold {
namespace {

double Sum(const std::vector<float>& logs) {
  return std::accumulate(logs.begin(), logs.end(), 0.0);
}

std::vector<TokenId> Tokens(const ToyModel& model, const char* text) {
  return *model.Tokenize(text, false);
}

// A set that has processed `text`.
std::unique_ptr<WorkingSet> Read(ToyModel& model, const char* text) {
  auto set = std::make_unique<WorkingSet>(model.info().geometry, 512);
  const std::vector<TokenId> tokens = Tokens(model, text);
  set->BeginPass(static_cast<uint32_t>(tokens.size()));
  EXPECT_TRUE(model.Forward(tokens, 0, set.get(), false).ok());
  model.NativeForget(0, UINT32_MAX);
  return set;
}

std::vector<std::unique_ptr<WorkingSet>> ReadAll(ToyModel& model) {
  std::vector<std::unique_ptr<WorkingSet>> sets;
  for (const char* text : {"the number of the key is 7", "a river",
                           "and the answer is here, in a longer text. The end."}) {
    sets.push_back(Read(model, text));
  }
  return sets;
}

TEST(QuestionLikelihoods, BranchesDoNotAttendToEachOther) {
  for (const uint32_t workers : {1u, 2u, 3u}) {
    ToyModel model({.geometry = TinyGeometry(), .workers = workers});
    const std::vector<TokenId> question = Tokens(model, "What is the number of the key?");
    auto sets = ReadAll(model);
    const auto together = QuestionLikelihoods(model, sets, question, 3, 0);
    ASSERT_TRUE(together.ok());
    ASSERT_EQ(together->size(), sets.size());
    auto alone = ReadAll(model);
    for (size_t i = 0; i < alone.size(); ++i) {
      const auto one = QuestionLikelihoods(model, std::span(alone).subspan(i, 1), question, 3, 0);
      ASSERT_TRUE(one.ok());
      EXPECT_NEAR(Sum((*together)[i]), Sum((*one)[0]), 1e-4) << "branch " << i;
      EXPECT_LT(Sum((*one)[0]), 0);
      for (size_t j = 0; j < i; ++j)
        EXPECT_GT(std::abs(Sum((*together)[i]) - Sum((*together)[j])), 1e-3)
            << "the sets are not seen";
    }
  }
}

TEST(QuestionLikelihoods, NeedNoMoreThanTheModelsBatch) {
  ToyModel small({.geometry = TinyGeometry(), .batch_tokens = 40}),
      large({.geometry = TinyGeometry()});
  // two fit a pass of 40
  const std::vector<TokenId> question = Tokens(small, "What is the number?");
  auto sets = ReadAll(large), same = ReadAll(large);
  const auto want = QuestionLikelihoods(large, sets, question, 1, 0);
  const auto got = QuestionLikelihoods(small, same, question, 1, 0);
  ASSERT_TRUE(want.ok() && got.ok());
  for (size_t i = 0; i < want->size(); ++i) EXPECT_NEAR(Sum((*want)[i]), Sum((*got)[i]), 1e-4);
}

TEST(QuestionLikelihoods, CoverOnlyTheScoredTokens) {
  ToyModel model({.geometry = TinyGeometry()});
  const std::vector<TokenId> question = Tokens(model, "abcdef");
  auto sets = ReadAll(model), again = ReadAll(model);
  const auto all = QuestionLikelihoods(model, sets, question, 1, 0);
  const auto last = QuestionLikelihoods(model, again, question, question.size() - 1, 0);
  ASSERT_TRUE(all.ok() && last.ok());
  for (size_t i = 0; i < all->size(); ++i) {
    EXPECT_EQ((*all)[i].size(), question.size() - 1);
    EXPECT_EQ((*last)[i].size(), 1u);
    EXPECT_LT(Sum((*all)[i]), Sum((*last)[i]));
  }
}

TEST(WorkingSet, AppendHeadGivesTheSameAttentionAsTheOriginal) {
  ToyModel model({.geometry = TinyGeometry()});
  std::vector<std::unique_ptr<WorkingSet>> sets;
  sets.push_back(Read(model, "the head of the prompt"));
  sets.push_back(std::make_unique<WorkingSet>(model.info().geometry, 512));
  sets[1]->AppendHead(*sets[0], sets[0]->size());
  EXPECT_EQ(sets[1]->size(), sets[0]->size());
  const auto likelihoods = QuestionLikelihoods(model, sets, Tokens(model, "and what?"), 1, 0);
  ASSERT_TRUE(likelihoods.ok());
  EXPECT_EQ((*likelihoods)[0], (*likelihoods)[1]);
}

PlannedSpan Reranked(double score, std::vector<float> logs) {
  PlannedSpan span;
  span.score = score;
  span.question_gain = Sum(logs);
  span.token_gains = std::move(logs);
  return span;
}

RecallProfile Profile() {
  RecallProfile profile;
  profile.rerank_prior = 4;
  profile.rerank_scale = 8;
  return profile;
}

TEST(RankByLikelihood, CombinesThePlansScoreWithTheTokenGains) {
  std::vector<PlannedSpan> spans = {Reranked(1, {1, 1}), Reranked(0.5, {3, 4}),
                                    Reranked(0.25, {3, 3})};
  RankByLikelihood(Profile(), std::vector<double>{0, 0}, &spans);
  // 4 ln 1 + 2, 4 ln 0.5 + 7, 4 ln 0.25 + 6.
  const double a = 2, b = 4 * std::log(0.5) + 7, c = 4 * std::log(0.25) + 6;
  ASSERT_GT(b, a);
  ASSERT_GT(a, c);
  EXPECT_FLOAT_EQ(static_cast<float>(spans[0].question_gain), 7);
  EXPECT_DOUBLE_EQ(spans[0].score, 1);
  EXPECT_NEAR(spans[1].score, std::exp((a - b) / 8), 1e-12);
  EXPECT_NEAR(spans[2].score, std::exp((c - b) / 8), 1e-12);
}

TEST(RankByLikelihood, LiftsASpanThatExplainsWhatTheOthersDoNot) {
  // Tokens: three around the keys, then one for each of two keys. The third span is also about the
  // first key.
  const std::vector<double> weights = {0.5, 0.5, 0.5, 8, 8};
  const auto spans_of = [] {
    return std::vector<PlannedSpan>{Reranked(1, {9, 9, 9, 6, 0}), Reranked(0.9, {1, 0, 1, 0, 5}),
                                    Reranked(0.9, {8, 8, 8, 6.25, -1})};
  };
  std::vector<PlannedSpan> spans = spans_of();
  RankByLikelihood(Profile(), weights, &spans);
  const auto with = [&](float last) {
    return *std::find_if(spans.begin(), spans.end(),
                         [&](const PlannedSpan& s) { return s.token_gains[4] == last; });
  };
  EXPECT_DOUBLE_EQ(with(0).coverage_gain, 1);
  EXPECT_NEAR(with(5).coverage_gain, 8 * 5 / (13.5 + 48), 1e-9);
  EXPECT_DOUBLE_EQ(with(5).score, with(5).coverage_gain) << "26 nats behind, and needed";
  EXPECT_NEAR(with(-1).coverage_gain, 8 * 0.25 / (13.5 + 48), 1e-9);
  EXPECT_NEAR(with(-1).score, std::exp((4 * std::log(0.9) + 29.25 - 33) / 8), 1e-9) << "as without";
  for (size_t i = 1; i < spans.size(); ++i) EXPECT_GE(spans[i - 1].score, spans[i].score);

  std::vector<PlannedSpan> unweighed = spans_of();
  RankByLikelihood(Profile(), std::vector<double>(5, 1.0), &unweighed);
  EXPECT_LT(unweighed.back().coverage_gain, 0.2) << "the words around the keys hide it";
}

TEST(RankByLikelihood, HandlesNoSpansAndSpansThatExplainNothing) {
  std::vector<PlannedSpan> none;
  RankByLikelihood(Profile(), {}, &none);
  EXPECT_TRUE(none.empty());
  std::vector<PlannedSpan> worse = {Reranked(1, {-1, -2}), Reranked(0.5, {-1, -1})};
  RankByLikelihood(Profile(), std::vector<double>{1, 1}, &worse);
  EXPECT_DOUBLE_EQ(worse[0].score, 1);
  EXPECT_DOUBLE_EQ(worse[0].coverage_gain, 0);
}

}  // namespace
}  // namespace longhold
