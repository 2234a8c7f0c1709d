// Which sentences are chosen as excerpts to re-encode, on hand-made words and sentences. The
// evaluation measures what the model makes of them.
#include "memory/recall/excerpts.h"

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

SpanSentence Sentence(size_t span, uint64_t begin, uint64_t end, std::vector<double> about,
                      bool peak = false) {
  SpanSentence sentence{
      .span = span, .tokens = {begin, end}, .peak = peak, .has = {}, .about = std::move(about)};
  for (const double a : sentence.about) sentence.has.push_back(a > 0);
  return sentence;
}

std::vector<ExcerptSpan> Spans(const std::vector<double>& scores) {
  std::vector<ExcerptSpan> spans;
  for (const double score : scores) spans.push_back({.score = score});
  return spans;
}

std::vector<uint64_t> Begins(const std::vector<SpanSentence>& chosen) {
  std::vector<uint64_t> begins;
  for (const SpanSentence& s : chosen) begins.push_back(s.tokens.begin);
  return begins;
}

TEST(ChooseExcerpts, TakesThePeakUnlessAnotherSentenceHoldsTwiceAsMuch) {
  const auto asked = Asked({3, 1, 1});
  const auto spans = Spans({1});
  const std::vector<SpanSentence> three_quarters = {Sentence(0, 0, 9, {1, 1, 0}),
                                                    Sentence(0, 9, 20, {1, 0, 0}, true)};
  // With more room the other sentence would come too, as the one with the most weight.
  EXPECT_THAT(Begins(ChooseExcerpts(asked, three_quarters, spans, 12)), ElementsAre(9));
  const std::vector<SpanSentence> all = {Sentence(0, 0, 9, {1, 1, 1}),
                                         Sentence(0, 9, 20, {0, 1, 0}, true)};
  EXPECT_THAT(Begins(ChooseExcerpts(asked, all, spans, 100)), ElementsAre(0));
  const std::vector<SpanSentence> none = {Sentence(0, 0, 9, {0, 0, 0}),
                                          Sentence(0, 9, 20, {0, 0, 0}, true),
                                          Sentence(0, 20, 30, {0, 0, 0})};
  EXPECT_THAT(Begins(ChooseExcerpts(asked, none, spans, 100)), ElementsAre(9))
      << "nothing else to go by";
}

// Lines of the same form about other things ("The number for oak-hill is", when the question asks
// for elm-hill), and the introduction to them.
TEST(ChooseExcerpts, SkipsSpansThatHoldLessOfTheQuestionThanTheBest) {
  const auto asked = Asked({1, 3, 3});
  const std::vector<SpanSentence> sentences = {Sentence(0, 0, 10, {1, 0, 0}, true),
                                               Sentence(1, 20, 30, {1, 1, 1}, true),
                                               Sentence(2, 40, 50, {1, 0, 1}, true)};
  EXPECT_THAT(Begins(ChooseExcerpts(asked, sentences, Spans({1, 0.9, 0.8}), 100)), ElementsAre(20));
  // A span found by multi-hop retrieval holds the next fact, not the question's words.
  auto spans = Spans({1, 0.9, 0.8});
  spans[2].by_question = false;
  EXPECT_THAT(Begins(ChooseExcerpts(asked, sentences, spans, 100)), ElementsAre(20, 40));
}

// "tall-satchel" and "grand-sandal", when the question asks for "tall-sandal" and the key is a
// small part of the question's weight.
TEST(ChooseExcerpts, SkipsSentencesThatHoldOnlyPartOfWhatAnotherHolds) {
  const auto asked = Asked({6, 1, 1});
  std::vector<SpanSentence> sentences = {
      Sentence(0, 0, 10, {1, 1, 1}, true), Sentence(1, 20, 30, {1, 1, 0}, true),
      Sentence(2, 40, 50, {1, 0, 1}, true), Sentence(3, 60, 70, {1, 1, 1}, true)};
  auto spans = Spans({1, 0.9, 0.8, 0.7});
  EXPECT_THAT(Begins(ChooseExcerpts(asked, sentences, spans, 100)), ElementsAre(0, 60))
      << "two sentences with the same words";
  // One span comes from multi-hop retrieval; then the best sentences hold one word only by chance.
  spans[1].by_question = false;
  EXPECT_THAT(Begins(ChooseExcerpts(asked, sentences, spans, 100)), ElementsAre(0, 20, 60));
  sentences[0].about[1] = sentences[3].about[1] = 0;
  EXPECT_THAT(Begins(ChooseExcerpts(asked, sentences, spans, 100)), ElementsAre(0, 20, 40, 60));
  // A span far below the best score does not dominate others.
  EXPECT_THAT(Begins(ChooseExcerpts(asked, sentences, Spans({0.1, 0.9, 0.1, 0.1}), 100)),
              ElementsAre(0, 20, 40, 60));
}

// A question that names two keys, where no sentence has both.
TEST(ChooseExcerpts, TakesSentencesThatEachHoldWhatTheOtherLacks) {
  const auto asked = Asked({6, 1, 1});
  const std::vector<SpanSentence> sentences = {Sentence(0, 0, 10, {1, 1, 0}, true),
                                               Sentence(1, 20, 30, {1, 0, 1}, true),
                                               Sentence(2, 40, 50, {1, 0, 0}, true)};
  EXPECT_THAT(Begins(ChooseExcerpts(asked, sentences, Spans({1, 0.9, 0.8}), 100)),
              ElementsAre(0, 20));
}

TEST(ChooseExcerpts, TakesEquallyGoodSentencesFromSpansOfAnyScore) {
  const auto asked = Asked({1, 3, 3});
  const std::vector<SpanSentence> sentences = {
      Sentence(0, 0, 10, {1, 1, 1}, true), Sentence(0, 10, 20, {0, 1, 1}),
      Sentence(1, 20, 30, {1, 0, 1}), Sentence(1, 30, 40, {1, 0.1, 0.5}, true)};
  EXPECT_THAT(Begins(ChooseExcerpts(asked, sentences, Spans({1, 0.1}), 100)),
              ElementsAre(0, 10, 30));
}

TEST(ChooseExcerpts, AddsSentencesWithMissingWords) {
  const auto asked = Asked({4, 4, 4, 0.1});
  std::vector<SpanSentence> sentences = {Sentence(0, 0, 10, {1, 0, 0, 1}, true),
                                         Sentence(0, 10, 20, {0, 0.3, 0, 0}),
                                         Sentence(1, 40, 50, {0, 0, 1, 0}, true)};
  EXPECT_THAT(Begins(ChooseExcerpts(asked, sentences, Spans({1, 0.5}), 100)),
              ElementsAre(0, 10, 40));
  // The sentence mentions the word but is hardly about it, and it is worse than the best one.
  const auto unequal = Asked({4, 3, 4, 0.1});
  sentences[1].about[1] = 0.2;
  EXPECT_THAT(Begins(ChooseExcerpts(unequal, sentences, Spans({1, 0.5}), 100)), ElementsAre(0, 40));
  sentences[1].about[1] = 0.4;
  EXPECT_THAT(Begins(ChooseExcerpts(unequal, sentences, Spans({1, 0.5}), 100)),
              ElementsAre(0, 10, 40));
}

TEST(ChooseExcerpts, SkipsWorseSpansAndSentencesThatDoNotFit) {
  const auto asked = Asked({4, 4});
  const std::vector<SpanSentence> sentences = {
      Sentence(0, 0, 10, {1, 0.9}, true), Sentence(1, 20, 40, {1, 1}, true),
      Sentence(2, 50, 60, {1, 1}, true), Sentence(3, 70, 80, {0, 1}, true)};
  const auto spans = Spans({1, 0.9, 0.8, 0.1});
  EXPECT_THAT(Begins(ChooseExcerpts(asked, sentences, spans, 22)), ElementsAre(0, 50))
      << "11 tokens each with the line break";
  EXPECT_THAT(Begins(ChooseExcerpts(asked, sentences, spans, 21)), ElementsAre(0));
  EXPECT_THAT(Begins(ChooseExcerpts(asked, sentences, spans, 1000)), ElementsAre(0, 20, 50));
  EXPECT_THAT(ChooseExcerpts(asked, sentences, spans, 0), IsEmpty());
}

// "One of the numbers for KEY is N", when the question asks for one of the keys. Words 1 to 6 are
// the form; higher ones belong to the key.
SpanSentence Line(size_t span, uint64_t begin, std::vector<bool> has, std::vector<uint32_t> key) {
  SpanSentence line{.span = span,
                    .tokens = {begin, begin + 10},
                    .peak = true,
                    .has = std::move(has),
                    .about = {},
                    .form = {1, 2, 3, 4, 5, 6}};
  for (const bool h : line.has) line.about.push_back(h ? 1 : 0);
  line.form.insert(line.form.end(), key.begin(), key.end());
  return line;
}

TEST(ChooseExcerpts, SkipsLinesOfTheSameFormAboutSomethingElse) {
  const auto asked = Asked({1, 3, 3});
  std::vector<SpanSentence> lines = {Line(0, 0, {true, false, true}, {21, 32}),
                                     Line(0, 10, {true, true, true}, {21, 31})};
  // One of the distinguishing words is unlikely given the span. By the other words the two lines
  // are equal.
  for (SpanSentence& line : lines) line.about = {1, 0, 1};
  EXPECT_THAT(Begins(ChooseExcerpts(asked, lines, Spans({1}), 100)), ElementsAre(10));
  // In a line of another form the word may occur by chance, so both lines are chosen.
  lines[0].form = {7, 8, 9, 10, 21};
  EXPECT_THAT(Begins(ChooseExcerpts(asked, lines, Spans({1}), 100)), ElementsAre(0, 10));
}

TEST(Distractors, HaveTheFormOfAChosenLineAndHoldLess) {
  const auto asked = Asked({1, 3, 3});
  const SpanSentence chosen = Line(0, 10, {true, true, true}, {21, 31});
  SpanSentence prose = Line(1, 40, {true, false, false}, {});
  prose.form = {1, 2, 51, 52, 53};
  SpanSentence of_few_words = Line(1, 70, {true, false, false}, {});
  of_few_words.form = {1, 2, 3};
  const std::vector<SpanSentence> sentences = {
      Line(0, 0, {true, false, false}, {22, 32}),
      chosen,
      Line(1, 30, {true, false, true}, {21, 33}),
      prose,
      Line(1, 50, {true, true, true}, {21, 31}),  // holds the same words
      of_few_words};
  EXPECT_THAT(Begins(Distractors(asked, sentences, std::vector{chosen})), ElementsAre(0, 30));
  EXPECT_THAT(Distractors(asked, sentences, {}), IsEmpty());
  // Each of the two has what the other lacks, as when a question asks for both.
  const SpanSentence other = Line(2, 80, {true, true, false}, {21, 34});
  EXPECT_THAT(Distractors(asked, std::vector{other},
                          std::vector{Line(1, 30, {true, false, true}, {21, 33})}),
              IsEmpty());
}

// Each piece is its own token.
std::vector<uint32_t> FormOf(const std::vector<std::string>& pieces) {
  const LexicalVocabulary vocabulary(pieces);
  std::vector<TokenId> tokens;
  for (size_t i = 0; i < pieces.size(); ++i) tokens.push_back(static_cast<TokenId>(i));
  return FormWords(vocabulary.Words(tokens), tokens, pieces);
}

TEST(FormWords, AdjacentPiecesFormOneWord) {
  EXPECT_EQ(FormOf({"the", " uu", "id", " is", " 7", "9f", "-", "34", "d", "."}).size(), 4u);
  EXPECT_EQ(FormOf({"the", " uu", "id", " is", ":", "\n", "9", "9"}).size(), 4u)
      << "a line break is a blank";
  EXPECT_EQ(FormOf({"see", " memory", "/", "engine", ".", "h"}).size(), 2u);
  EXPECT_EQ(FormOf({"readFile", " now"}).size(), 2u) << "two words of one token";
  EXPECT_EQ(FormOf({"a", "1", "b", " ", "a", "1", "b"}).size(), 1u);
  EXPECT_NE(FormOf({"a", "1", "b"}), FormOf({"a", "1", "c"}));
  EXPECT_EQ(FormOf({"walks", " far"}), FormOf({"far", " walked"})) << "single words by their stems";
}

TEST(FormWords, ScriptsWithoutSpacesKeepTheirCharacters) {
  EXPECT_EQ(FormOf({"\xe7\xa6\x8f", "\xe5\xbe\xb7", "\xe5\xb0\x94"}).size(), 3u);
}

TEST(ChooseExcerpts, ReportsEachSentencesShare) {
  const auto asked = Asked({4, 1});
  const std::vector<SpanSentence> sentences = {Sentence(0, 0, 10, {1, 0}, true),
                                               Sentence(1, 20, 30, {1, 1}, true)};
  const auto chosen =
      ChooseExcerpts(asked, sentences, std::vector<ExcerptSpan>{{.by_question = false}, {}}, 100);
  ASSERT_EQ(chosen.size(), 2u);
  EXPECT_DOUBLE_EQ(chosen[0].share, 0.8);
  EXPECT_DOUBLE_EQ(chosen[1].share, 1);
}

}  // namespace
}  // namespace longhold
