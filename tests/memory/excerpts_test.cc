// Which sentences are read again, by hand-made words and sentences; what the model makes of them is in the evaluation.
#include "memory/excerpts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace longhold {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<AskedWord> Asked(const std::vector<double>& weights) {
  std::vector<AskedWord> asked;
  for (const double weight : weights) asked.push_back({.block_count = 1, .weight = weight});
  return asked;
}

SpanSentence Sentence(size_t span, uint64_t begin, uint64_t end, std::vector<bool> found, bool peak = false) {
  return {.span = span, .tokens = {begin, end}, .peak = peak, .found = std::move(found)};
}

std::vector<uint64_t> Begins(const std::vector<SpanSentence>& chosen) {
  std::vector<uint64_t> begins;
  for (const SpanSentence& s : chosen) begins.push_back(s.tokens.begin);
  return begins;
}

TEST(ChooseExcerpts, TakesThePeakUnlessAnotherSentenceHoldsTwiceAsMuch) {
  const auto asked = Asked({2, 1, 1});
  const std::vector<double> scores = {1};
  const std::vector<SpanSentence> three_quarters = {Sentence(0, 0, 9, {true, true, false}), Sentence(0, 9, 20, {true, false, false}, true)};
  // The other one comes too, for its word is on no chosen one.
  EXPECT_THAT(Begins(ChooseExcerpts(asked, three_quarters, scores, 12)), ElementsAre(9));
  const std::vector<SpanSentence> all = {Sentence(0, 0, 9, {true, true, true}), Sentence(0, 9, 20, {false, true, false}, true)};
  EXPECT_THAT(Begins(ChooseExcerpts(asked, all, scores, 100)), ElementsAre(0));
  const std::vector<SpanSentence> none = {Sentence(0, 0, 9, {false, false, false}), Sentence(0, 9, 20, {false, false, false}, true),
                                          Sentence(0, 20, 30, {false, false, false})};
  EXPECT_THAT(Begins(ChooseExcerpts(asked, none, scores, 100)), ElementsAre(9)) << "nothing else to go by";
}

TEST(ChooseExcerpts, AddsSentencesWithWordsThatAreMissing) {
  const auto asked = Asked({4, 4, 4, 0.1});
  const std::vector<SpanSentence> sentences = {
      Sentence(0, 0, 10, {true, false, false, false}, true), Sentence(0, 10, 20, {false, true, false, false}),
      Sentence(0, 20, 30, {true, false, false, true}), Sentence(1, 40, 50, {false, false, true, false}, true)};
  EXPECT_THAT(Begins(ChooseExcerpts(asked, sentences, std::vector<double>{1, 0.5}, 100)), ElementsAre(0, 10, 40))
      << "the third adds a hundredth of the question";
}

TEST(ChooseExcerpts, LeavesWorseSpansAndWhatDoesNotFit) {
  const auto asked = Asked({4, 4});
  const std::vector<SpanSentence> sentences = {Sentence(0, 0, 10, {true, false}, true), Sentence(1, 20, 40, {true, true}, true),
                                               Sentence(2, 50, 60, {false, true}, true), Sentence(3, 70, 80, {false, true}, true)};
  const std::vector<double> scores = {1, 0.9, 0.8, 0.1};
  EXPECT_THAT(Begins(ChooseExcerpts(asked, sentences, scores, 22)), ElementsAre(0, 50)) << "11 tokens each with the line break";
  EXPECT_THAT(Begins(ChooseExcerpts(asked, sentences, scores, 21)), ElementsAre(0));
  EXPECT_THAT(Begins(ChooseExcerpts(asked, sentences, scores, 1000)), ElementsAre(0, 20, 50));
  EXPECT_THAT(ChooseExcerpts(asked, sentences, scores, 0), IsEmpty());
}

}  // namespace
}  // namespace longhold
