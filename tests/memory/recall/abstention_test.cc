// How question words are matched with spans and what support the matches give, computed by hand.
// engine_recall_test.cc tests the engine's abstention end to end.
#include "memory/recall/abstention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace longhold {
namespace {

// A word with stem `stem` in one form, tokens [begin, end).
LexicalWord Word(uint32_t stem, uint32_t begin, uint32_t end, uint32_t form = 1) {
  return {stem << 6 | form, begin, end};
}

AskedWord Asked(uint32_t stem, uint32_t begin, uint32_t end, double weight,
                bool function_word = false) {
  return {.stem = stem,
          .begin = begin,
          .end = end,
          .block_count = 1,
          .weight = weight,
          .function_word = function_word};
}

TEST(AskedWords, AreDistinctInOrderAndWithoutAffixes) {
  const std::vector<std::string> pieces = {"Where", " is", " No", "ah", "'s", " ark", "?", " noah"};
  const std::vector<TokenId> tokens = {0, 1, 2, 3, 4, 5, 6, 7};
  const std::vector<LexicalWord> words = {Word(1, 0, 1), Word(2, 1, 2), Word(3, 2, 4),
                                          Word(4, 5, 6), Word(3, 7, 8, 2)};
  // The index knows only the last four words.
  const std::vector<LexicalResult::Word> known = {
      {5, 0.5, true}, {3, 4, false}, {2, 5, false}, {3, 4, false}};
  const auto asked =
      AskedWords(words, known, tokens, [&](TokenId t) { return pieces[static_cast<size_t>(t)]; });
  ASSERT_EQ(asked.size(), 3u);
  EXPECT_EQ(asked[0].text, "is");
  EXPECT_TRUE(asked[0].function_word);
  EXPECT_EQ(asked[1].text, "Noah");
  EXPECT_EQ(asked[1].block_count, 3u);
  EXPECT_EQ(asked[2].text, "ark");
  EXPECT_EQ(asked[2].weight, 5);
}

TEST(MatchWords, FindsInflectionsAndAveragesTheJudgedTokens) {
  const std::vector<AskedWord> asked = {Asked(1, 0, 2, 1), Asked(2, 2, 4, 1), Asked(3, 4, 5, 1)};
  const std::vector<LexicalWord> span = {Word(2, 0, 1, 9), Word(7, 1, 2)};
  const std::vector<float> logs = {1, 2, 4};  // of tokens 1, 2, 3
  const auto matches = MatchWords(asked, span, logs, 1);
  ASSERT_EQ(matches.size(), 3u);
  EXPECT_FALSE(matches[0].found);
  EXPECT_TRUE(matches[1].found);
  EXPECT_DOUBLE_EQ(matches[0].gain, 1) << "its first token was not judged";
  EXPECT_DOUBLE_EQ(matches[1].gain, 3);
  EXPECT_DOUBLE_EQ(matches[2].gain, 0) << "not judged at all";
}

TEST(Support, IsMeanTokenGainTimesShareFoundOverRareWords) {
  const std::vector<AskedWord> asked = {Asked(1, 0, 1, 5, true), Asked(2, 1, 2, 1),
                                        Asked(3, 2, 3, 3)};
  // The function word does not count, whatever its match.
  EXPECT_DOUBLE_EQ(Support(asked, std::vector<WordMatch>{{true, 9}, {true, 2}, {false, 4}}),
                   (2 + 12) / 4.0 * (0.25 + 0.25) / 1.25);
  EXPECT_DOUBLE_EQ(Support(asked, std::vector<WordMatch>{{true, 9}, {false, 2}, {false, 4}}),
                   14 / 4.0 * 0.25 / 1.25)
      << "in other words";
  EXPECT_DOUBLE_EQ(Support(asked, std::vector<WordMatch>{{false, 0}, {true, 2}, {true, 4}}),
                   14 / 4.0);
  EXPECT_DOUBLE_EQ(Support(asked, std::vector<WordMatch>{{true, 9}, {true, -2}, {true, -4}}), 0);
  EXPECT_TRUE(std::isinf(Support(std::span(asked).first(1), std::vector<WordMatch>{{false, 0}})))
      << "nothing to go by";
}

TEST(FoundShare, IsTheWeightedShareOfTheRareWords) {
  const std::vector<AskedWord> asked = {Asked(1, 0, 1, 5, true), Asked(2, 1, 2, 1),
                                        Asked(3, 2, 3, 3)};
  EXPECT_DOUBLE_EQ(FoundShare(asked, std::vector<WordMatch>{{true}, {true}, {false}}), 0.25);
  EXPECT_DOUBLE_EQ(FoundShare(asked, std::vector<WordMatch>{{false}, {false}, {true}}), 0.75);
  EXPECT_DOUBLE_EQ(FoundShare(asked, std::vector<WordMatch>{{true}, {false, 9, 1}, {false, 9, 1}}),
                   0)
      << "neither token gain nor expansion words count as found";
  EXPECT_DOUBLE_EQ(FoundShare(std::span(asked).first(1), std::vector<WordMatch>{{false}}), 1)
      << "nothing to go by";
}

TEST(FoundShareTogether, CountsSpansThatAreEachNeeded) {
  // Two words that all spans contain, and four things, of which each span contains one.
  std::vector<AskedWord> asked = {Asked(1, 0, 1, 1), Asked(2, 1, 2, 1)};
  std::vector<std::vector<WordMatch>> spans;
  for (uint32_t thing = 0; thing < 4; ++thing)
    asked.push_back(Asked(3 + thing, 2 + thing, 3 + thing, 5));
  for (uint32_t thing = 0; thing < 4; ++thing) {
    std::vector<WordMatch> span(asked.size());
    span[0].found = span[1].found = span[2 + thing].found = true;
    spans.push_back(span);
  }
  EXPECT_DOUBLE_EQ(FoundShare(asked, spans[0]), 7 / 22.0);
  EXPECT_DOUBLE_EQ(FoundShareTogether(asked, spans), 1 / kTogetherFactor);
  EXPECT_DOUBLE_EQ(FoundShareTogether(asked, std::span(spans).first(3)),
                   17 / 22.0 / kTogetherFactor);
  EXPECT_DOUBLE_EQ(FoundShareTogether(asked, std::span(spans).first(2)), 0) << "two are not many";
  EXPECT_DOUBLE_EQ(FoundShareTogether(asked, std::vector<std::vector<WordMatch>>(5, spans[0])), 0)
      << "the same again adds nothing";
  EXPECT_DOUBLE_EQ(FoundShareTogether(asked, {}), 0);
}

}  // namespace
}  // namespace longhold
