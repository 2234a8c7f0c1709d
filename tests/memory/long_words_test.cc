// LongWords on lines whose tokens are given by hand.
#include "memory/long_words.h"

#include <gtest/gtest.h>

#include <map>

namespace longhold {
namespace {

class LongWordsTest : public testing::Test {
 protected:
  // Token ids are the pieces' in the order they first come.
  void Line(const std::vector<std::string>& pieces) {
    std::vector<TokenId> tokens;
    for (const std::string& piece : pieces) tokens.push_back(ids_.try_emplace(piece, static_cast<TokenId>(ids_.size())).first->second);
    words_.Add(tokens, pieces);
  }
  // The pieces whose logits are raised after `answer`.
  std::vector<std::string> Raised(std::string_view answer) const {
    const std::vector<float> logits(ids_.size(), -1);
    std::vector<float> favoured;
    std::vector<std::string> out;
    if (!words_.Favour(answer, logits, &favoured)) return out;
    for (const auto& [piece, id] : ids_) {
      if (favoured[static_cast<size_t>(id)] > -1) out.push_back(piece);
    }
    EXPECT_FALSE(out.empty()) << answer;
    return out;
  }
  using Pieces = std::vector<std::string>;

  std::map<std::string, TokenId> ids_;
  LongWords words_;
};

TEST_F(LongWordsTest, ABegunNumberGoesOnAsItStands) {
  Line({"It", " is", " ", "7", "3", "1", "2", "6", ".", "\n"});
  EXPECT_EQ(Raised(" It is 73"), Pieces{"1"});
  EXPECT_EQ(Raised("73"), Pieces{"1"});
  EXPECT_EQ(Raised("**73"), Pieces{"1"});
  EXPECT_EQ(Raised("(it is 7312"), Pieces{"6"});
}

TEST_F(LongWordsTest, NothingElseIsTouched) {
  Line({"It", " is", " ", "7", "3", "1", "2", "6", ".", "\n"});
  for (const char* answer : {"", " ", " It", " It is", " It is ", "7", "74", "173", "7326", "73126", "73126.", "73 "}) {
    EXPECT_EQ(Raised(answer), Pieces{}) << answer;
  }
}

TEST_F(LongWordsTest, WordsOfThreeTokensAreLeftToTheModel) {
  Line({" wi", "lder", "ness", " Neb", "u", "chad", "nezzar"});
  EXPECT_EQ(Raised(" wilder"), Pieces{});
  EXPECT_EQ(Raised(" Nebu"), Pieces{"chad"});
  EXPECT_EQ(Raised(" Nebuchad"), Pieces{"nezzar"});
}

TEST_F(LongWordsTest, PunctuationWithinIsPartOfTheWord) {
  Line({"(", "ab", "12", "-", "34", "cd", ")", ","});
  EXPECT_EQ(Raised("ab12"), Pieces{"-"});
  EXPECT_EQ(Raised("ab12-"), Pieces{"34"});
  EXPECT_EQ(Raised("ab12-34"), Pieces{"cd"});
}

TEST_F(LongWordsTest, EachWordOfTheSameBeginningIsRaisedOnce) {
  Line({"1", "2", "3", "4", " ", "1", "2", "5", "6"});
  Line({"1", "2", "3", "7"});
  EXPECT_EQ(Raised("12"), (Pieces{"3", "5"}));
  const std::vector<float> logits(ids_.size(), 0);
  std::vector<float> favoured;
  ASSERT_TRUE(words_.Favour("12", logits, &favoured));
  EXPECT_EQ(favoured[static_cast<size_t>(ids_.at("3"))], favoured[static_cast<size_t>(ids_.at("5"))]);
}

TEST_F(LongWordsTest, WhatWasSaidIsNotSaidAgain) {
  Line({"1", "2", "3", "4", " ", "1", "2", "5", "6"});
  EXPECT_EQ(Raised("1234, 12"), Pieces{"5"});
  EXPECT_EQ(Raised("1256 12"), Pieces{"3"});
  EXPECT_EQ(Raised("12345, 12"), (Pieces{"3", "5"}));  // another word
}

TEST_F(LongWordsTest, ATokenThatHoldsTheBlankBeginsAWord) {
  Line({"x", " 73", "1", "2", "6"});
  EXPECT_EQ(Raised(" 731"), Pieces{"2"});
  EXPECT_EQ(Raised("731"), Pieces{"2"});
  EXPECT_EQ(Raised("x73"), Pieces{});
}

}  // namespace
}  // namespace longhold
