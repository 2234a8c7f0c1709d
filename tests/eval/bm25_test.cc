// Compares BM25 with scores worked out by hand from the formula, and the stemmer with the examples
// of Porter's paper.

#include "eval/bm25.h"

#include <gtest/gtest.h>

#include <cmath>

namespace longhold {
namespace {

std::vector<ByteSpan> LinesOf(const std::string& text) {
  std::vector<ByteSpan> out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    out.push_back({at, end});
    at = end + 1;
  }
  return out;
}

TEST(PorterStem, GivesThePapersExamples) {
  for (const auto& [word, stem] :
       std::vector<std::pair<std::string, std::string>>{{"caresses", "caress"},
                                                        {"ponies", "poni"},
                                                        {"caress", "caress"},
                                                        {"cats", "cat"},
                                                        {"feed", "feed"},
                                                        {"agreed", "agre"},
                                                        {"plastered", "plaster"},
                                                        {"bled", "bled"},
                                                        {"motoring", "motor"},
                                                        {"sing", "sing"},
                                                        {"conflated", "conflat"},
                                                        {"troubled", "troubl"},
                                                        {"sized", "size"},
                                                        {"hopping", "hop"},
                                                        {"tanned", "tan"},
                                                        {"falling", "fall"},
                                                        {"hissing", "hiss"},
                                                        {"fizzed", "fizz"},
                                                        {"failing", "fail"},
                                                        {"filing", "file"},
                                                        {"happy", "happi"},
                                                        {"sky", "sky"},
                                                        {"relational", "relat"},
                                                        {"conditional", "condit"},
                                                        {"rational", "ration"},
                                                        {"digitizer", "digit"},
                                                        {"operator", "oper"},
                                                        {"feudalism", "feudal"},
                                                        {"hopefulness", "hope"},
                                                        {"formaliti", "formal"},
                                                        {"triplicate", "triplic"},
                                                        {"formative", "form"},
                                                        {"electrical", "electr"},
                                                        {"goodness", "good"},
                                                        {"revival", "reviv"},
                                                        {"allowance", "allow"},
                                                        {"replacement", "replac"},
                                                        {"adjustment", "adjust"},
                                                        {"dependent", "depend"},
                                                        {"adoption", "adopt"},
                                                        {"effective", "effect"},
                                                        {"bowdlerize", "bowdler"},
                                                        {"probate", "probat"},
                                                        {"rate", "rate"},
                                                        {"cease", "ceas"},
                                                        {"controll", "control"},
                                                        {"roll", "roll"},
                                                        {"be", "be"},
                                                        {"x1", "x1"}}) {
    EXPECT_EQ(PorterStem(word), stem) << word;
  }
}

TEST(SearchWords, FoldCaseDropStopWordsAndStem) {
  EXPECT_EQ(SearchWords("Who WRESTLED with Jacob's 2 camels?"),
            (std::vector<std::string>{"wrestl", "jacob", "2", "camel"}));
  EXPECT_TRUE(SearchWords("what is the of").empty());
}

TEST(Bm25, ScoresAreThoseOfTheFormula) {
  // Word counts: 3 + 1 + 2 = 6, mean 2. "camel" occurs in the first text (twice) and in the third,
  // "well" in the first only.
  const std::string text = "camel camel well\nriver\ncamel tent\n";
  Bm25Retriever retriever(text, LinesOf(text), {});
  const auto found = retriever.Retrieve("the camels at a well", 10);
  ASSERT_TRUE(found.ok());
  ASSERT_EQ(found->size(), 2u);
  const double idf_camel = std::log(1 + (3 - 2 + 0.5) / (2 + 0.5)),
               idf_well = std::log(1 + (3 - 1 + 0.5) / (1 + 0.5));
  const double long_one = 1.2 * (0.25 + 0.75 * 3 / 2), middle = 1.2 * (0.25 + 0.75 * 2 / 2);
  EXPECT_EQ((*found)[0].byte_begin, 0u);
  EXPECT_NEAR((*found)[0].score,
              idf_camel * 2 * 2.2 / (2 + long_one) + idf_well * 1 * 2.2 / (1 + long_one), 1e-12);
  EXPECT_EQ((*found)[1].byte_begin, 23u);
  EXPECT_EQ((*found)[1].byte_end, 33u);
  EXPECT_NEAR((*found)[1].score, idf_camel * 1 * 2.2 / (1 + middle), 1e-12);
  EXPECT_GT(retriever.ram_bytes(), 0u);
}

TEST(Bm25, CountsARepeatedQueryWordOnceAndKeepsTextOrderOnEqualScores) {
  const std::string text = "a red boat\na blue boat\na green boat\n";
  Bm25Retriever retriever(text, LinesOf(text), {});
  const auto once = retriever.Retrieve("boat", 2), twice = retriever.Retrieve("boat boats", 2);
  ASSERT_EQ(once->size(), 2u);
  EXPECT_EQ((*once)[0].byte_begin, 0u);
  EXPECT_EQ((*once)[1].byte_begin, 11u);
  EXPECT_EQ((*once)[0].score, (*twice)[0].score);
}

TEST(Bm25, FindsNothingForUnknownWordsOrInAnEmptyText) {
  Bm25Retriever retriever("one line\n", {});
  EXPECT_TRUE(retriever.Retrieve("camel", 5)->empty());
  EXPECT_TRUE(retriever.Retrieve("the", 5)->empty());
  Bm25Retriever nothing("", {});
  EXPECT_TRUE(nothing.Retrieve("camel", 5)->empty());
}

}  // namespace
}  // namespace longhold
