// CutPassages against texts whose lines and sentences are known; no tolerance.
#include "eval/passages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace longhold {
namespace {

std::vector<std::string> Cut(const std::string& text, const PassageOptions& options) {
  std::vector<std::string> out;
  for (const ByteSpan& p : CutPassages(text, options)) out.push_back(text.substr(p.begin, p.end - p.begin));
  return out;
}

TEST(CutPassages, TakesWindowsOfLinesThatOverlap) {
  EXPECT_THAT(Cut("a\nb\nc\nd\ne\n", {.units = 2, .stride = 1}), testing::ElementsAre("a\nb\n", "b\nc\n", "c\nd\n", "d\ne\n"));
  EXPECT_THAT(Cut("a\nb\nc\n", {.units = 4, .stride = 2}), testing::ElementsAre("a\nb\nc\n"));
}

TEST(CutPassages, LeavesBlankLinesOut) {
  EXPECT_THAT(Cut("\n\na\n \nb", {.units = 1, .stride = 1}), testing::ElementsAre("a\n", "b"));
  EXPECT_TRUE(Cut(" \n\t\n", {}).empty());
  EXPECT_TRUE(Cut("", {}).empty());
}

TEST(CutPassages, CutsLongLinesAtSentences) {
  EXPECT_THAT(Cut("The first sentence stands here. The second follows it closely.", {.units = 1, .stride = 1}),
              testing::ElementsAre("The first sentence stands here.", " The second follows it closely."));
}

TEST(CutPassages, CutsWhatHasNeitherWithoutSplittingCharacters) {
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
