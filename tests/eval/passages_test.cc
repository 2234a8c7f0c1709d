// CutPassages on texts whose lines and sentences are known. No tolerance.
#include "eval/passages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace longhold {
namespace {

std::vector<std::string> Cut(const std::string& text, const PassageOptions& options) {
  std::vector<std::string> out;
  for (const ByteSpan& p : CutPassages(text, options))
    out.push_back(text.substr(p.begin, p.end - p.begin));
  return out;
}

TEST(CutPassages, TakesOverlappingWindowsOfLines) {
  EXPECT_THAT(Cut("a\nb\nc\nd\ne\n", {.units = 2, .stride = 1}),
              testing::ElementsAre("a\nb\n", "b\nc\n", "c\nd\n", "d\ne\n"));
  EXPECT_THAT(Cut("a\nb\nc\n", {.units = 4, .stride = 2}), testing::ElementsAre("a\nb\nc\n"));
}

TEST(CutPassages, SkipsBlankLines) {
  EXPECT_THAT(Cut("\n\na\n \nb", {.units = 1, .stride = 1}), testing::ElementsAre("a\n", "b"));
  EXPECT_TRUE(Cut(" \n\t\n", {}).empty());
  EXPECT_TRUE(Cut("", {}).empty());
}

TEST(CutPassages, CutsLongLinesAtSentences) {
  const std::string first =
      "The first sentence stands here" + std::string(kPassageLineBytes, 'e') + ".";
  EXPECT_THAT(
      Cut(first +
              " The second follows it closely.\nA line. It is short, and no sentence ends it.\n",
          {.units = 1, .stride = 1}),
      testing::ElementsAre(first, " The second follows it closely.",
                           "A line. It is short, and no sentence ends it.\n"));
}

TEST(CutPassages, KeepsShortLinesWholeEvenIfTheyHoldSeveralSentences) {
  const std::string one =
      "1 And God called the light Day. And the evening and the morning were the first day.\n";
  const std::string two =
      "2 Where is Abel thy brother? And he said, I know not: Am I my brother's keeper?\n";
  EXPECT_THAT(Cut(one + two + one + two, {.units = 2, .stride = 2}),
              testing::ElementsAre(one + two, one + two));
  // The longest line that is kept whole, and a line that is one byte longer.
  const std::string sentence = "This sentence has some words in it. ";
  const std::string line = sentence + std::string(kPassageLineBytes - sentence.size() - 1, 'x');
  EXPECT_THAT(Cut(line + "\n", {.units = 1, .stride = 1}), testing::SizeIs(1));
  EXPECT_THAT(Cut(line + "x\n", {.units = 1, .stride = 1}), testing::SizeIs(2));
}

TEST(CutPassages, CutsTextWithoutLinesOrSentencesOnCharacterBoundaries) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "é";
  std::string joined;
  for (const std::string& p : Cut(text, {.units = 1, .stride = 1, .unit_bytes_max = 17})) {
    EXPECT_NE(static_cast<unsigned char>(p[0]) & 0xC0, 0x80);
    EXPECT_LE(p.size(), 20u);
    joined += p;
  }
  EXPECT_EQ(joined, text);
}

}  // namespace
}  // namespace longhold
