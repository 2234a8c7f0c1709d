// The sentence splitter on pieces of text. Each case names the byte that is asked about, and the
// expected sentence by its text.
#include "memory/text/sentences.h"

#include <gtest/gtest.h>

namespace longhold {
namespace {

// One piece per character, so that a test can ask about any place of the text.
std::string Around(const std::string& text, size_t at, bool from_start = true, bool to_end = true) {
  std::vector<std::string> pieces;
  for (const char c : text) pieces.emplace_back(1, c);
  const PieceRange range = SentenceAround(pieces, at, from_start, to_end);
  return text.substr(range.begin, range.end - range.begin);
}

TEST(SentenceAround, EndsAtFullStopsAndLineEnds) {
  const std::string text = "One. Two is longer! (Three?) Four\nfive";
  EXPECT_EQ(Around(text, 0), "One.");
  EXPECT_EQ(Around(text, 6), " Two is longer!");
  EXPECT_EQ(Around(text, text.find("Three")), " (Three?)");
  EXPECT_EQ(Around(text, text.find("Four")), " Four\n");
  EXPECT_EQ(Around(text, text.find("five")), "five");
}

TEST(SentenceAround, AFullStopInsideAWordDoesNotEndASentence) {
  const std::string text = "See a.b.c and 3.14 there. End.";
  EXPECT_EQ(Around(text, 0), "See a.b.c and 3.14 there.");
}

TEST(SentenceAround, WithoutASentenceEndTakesTheObjectOrListItem) {
  const std::string text = R"([{"a": 1}, {"b": 2}, {"c": 3}])";
  EXPECT_EQ(Around(text, text.find("\"b\""), false, false), R"( {"b": 2},)");
  const std::string items = R"("x", "y", "z")";
  EXPECT_EQ(Around(items, items.find('y'), false, false), R"( "y",)");
}

TEST(SentenceAround, WithoutABoundaryInReachCutsBetweenWords) {
  const std::string text = "words that go on and on without any end";
  EXPECT_EQ(Around(text, 20, false, false), " that go on and on without any ");
}

TEST(EndsSentence, IgnoresClosingQuotesAndBracketsInManyScripts) {
  for (const char* text :
       {"so.", "so!", "so?\"", "so.')", "そう。", "そう。」", "है।", "ہے۔", "so.»"})
    EXPECT_TRUE(EndsSentence(text)) << text;
  for (const char* text : {"", "so", "so,", "\"so\"", "so;", ")"})
    EXPECT_FALSE(EndsSentence(text)) << text;
}

}  // namespace
}  // namespace longhold
