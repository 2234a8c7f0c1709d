// CopyBias, which raises the tokens that complete a word copied from a re-encoded line, on lines
// whose tokens are given by hand.
#include "memory/answer/copy_bias.h"

#include <gtest/gtest.h>

#include <map>

namespace longhold {
namespace {

class CopyBiasTest : public testing::Test {
 protected:
  // Token ids number the pieces in order of first use.
  void Line(const std::vector<std::string>& pieces) {
    std::vector<TokenId> tokens;
    for (const std::string& piece : pieces)
      tokens.push_back(ids_.try_emplace(piece, static_cast<TokenId>(ids_.size())).first->second);
    words_.Add(tokens, pieces);
  }
  // The change of each piece's logit after `answer`.
  std::map<std::string, float> Changed(std::string_view answer) const {
    const std::vector<float> logits(ids_.size(), -1);
    std::vector<float> guided;
    std::map<std::string, float> out;
    if (!words_.Guide(answer, logits, &guided)) return out;
    for (const auto& [piece, id] : ids_) {
      const float by = guided[static_cast<size_t>(id)] + 1;
      if (by != 0) out[piece] = by;
    }
    EXPECT_FALSE(out.empty()) << answer;
    return out;
  }
  // The pieces whose logits are raised after `answer`.
  std::vector<std::string> Raised(std::string_view answer) const {
    std::vector<std::string> out;
    for (const auto& [piece, by] : Changed(answer)) {
      if (by > 0) out.push_back(piece);
    }
    return out;
  }
  std::vector<std::string> Lowered(std::string_view answer) const {
    std::vector<std::string> out;
    for (const auto& [piece, by] : Changed(answer)) {
      if (by < 0) out.push_back(piece);
    }
    return out;
  }
  using Pieces = std::vector<std::string>;

  std::map<std::string, TokenId> ids_;
  CopyBias words_;
};

TEST_F(CopyBiasTest, CompletesABegunNumberAsInTheExcerpt) {
  Line({"It", " is", " ", "7", "3", "1", "2", "6", ".", "\n"});
  EXPECT_EQ(Raised(" It is 73"), Pieces{"1"});
  EXPECT_EQ(Raised("73"), Pieces{"1"});
  EXPECT_EQ(Raised("**73"), Pieces{"1"});
  EXPECT_EQ(Raised("(it is 7312"), Pieces{"6"});
}

TEST_F(CopyBiasTest, LeavesAllOtherTokensUnchanged) {
  Line({"It", " is", " ", "7", "3", "1", "2", "6", ".", "\n"});
  for (const char* answer :
       {"", " ", " It", " It is", " It is ", "7", "74", "173", "7326", "73126", "73126.", "73 "}) {
    EXPECT_EQ(Raised(answer), Pieces{}) << answer;
  }
}

TEST_F(CopyBiasTest, NeedsMoreThanThreeTokensInAWord) {
  Line({" wi", "lder", "ness", " Neb", "u", "chad", "nezzar"});
  EXPECT_EQ(Raised(" wilder"), Pieces{});
  EXPECT_EQ(Raised(" Nebu"), Pieces{"chad"});
  EXPECT_EQ(Raised(" Nebuchad"), Pieces{"nezzar"});
}

TEST_F(CopyBiasTest, TreatsInnerPunctuationAsPartOfTheWord) {
  Line({"(", "ab", "12", "-", "34", "cd", ")", ","});
  EXPECT_EQ(Raised("ab12"), Pieces{"-"});
  EXPECT_EQ(Raised("ab12-"), Pieces{"34"});
  EXPECT_EQ(Raised("ab12-34"), Pieces{"cd"});
}

TEST_F(CopyBiasTest, RaisesEachContinuationOfASharedPrefixOnce) {
  Line({"1", "2", "3", "4", " ", "1", "2", "5", "6"});
  Line({"1", "2", "3", "7"});
  EXPECT_EQ(Raised("12"), (Pieces{"3", "5"}));
  EXPECT_EQ(Changed("12").at("3"), Changed("12").at("5"));
}

TEST_F(CopyBiasTest, DoesNotRepeatAWordOfTheAnswer) {
  Line({"1", "2", "3", "4", " ", "1", "2", "5", "6"});
  EXPECT_EQ(Raised("1234, 12"), Pieces{"5"});
  EXPECT_EQ(Raised("1256 12"), Pieces{"3"});
  EXPECT_EQ(Raised("12345, 12"), (Pieces{"3", "5"}));  // another word
}

TEST_F(CopyBiasTest, ATokenThatStartsWithASpaceBeginsAWord) {
  Line({"x", " 73", "1", "2", "6"});
  EXPECT_EQ(Raised(" 731"), Pieces{"2"});
  EXPECT_EQ(Raised("731"), Pieces{"2"});
  EXPECT_EQ(Raised("x73"), Pieces{});
}

TEST_F(CopyBiasTest, BiasGrowsWithTheNumberOfCopiedTokens) {
  Line({"1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f"});
  EXPECT_EQ(Changed("12").at("3"), 2);
  EXPECT_EQ(Changed("123456").at("7"), 6);
  EXPECT_EQ(Changed("123456789abcde").at("f"), 10) << "at most";
}

// The excerpt "The number for red-7712 is 5534." after the answer prefix "The number for red-7712
// is".
TEST_F(CopyBiasTest, LowersWordsThatTheAnswerPrefixContains) {
  words_ = CopyBias("The number for red-7712 is");
  Line({"The", " number", " for", " red", "-", "77", "12", " is", " 5", "5", "3", "4", "."});
  EXPECT_EQ(Lowered(""), Pieces{" red"});
  EXPECT_EQ(Lowered(" that"), Pieces{" red"});
  EXPECT_EQ(Raised(" red-"), Pieces{}) << "its completion is not raised either";
  EXPECT_EQ(Raised(" 55"), Pieces{"3"});
  EXPECT_EQ(Lowered(" 5534, and that of"), Pieces{}) << "the answer is already given";
}

TEST_F(CopyBiasTest, StartsTheAnswerWithWordsFromTheLineOfThePrefixsIdentifier) {
  words_ = CopyBias("The code of ab12-9 is");
  Line({"The", " code", " of", " ab", "12", "-", "9", " is", " 7", "f", "3", "d", "."});
  Line({"The", " code", " of", " cd", "34", "-", "5", " is", " 8", "a", "6", "b", "."});
  Line({"ab", "12", "-", "9", " was", " Wol", "ver", "hamp", "ton", "'s"});
  EXPECT_EQ(Raised(""), Pieces{" 7"}) << "only words of its line that have digits";
  EXPECT_EQ(Raised(" :"), Pieces{" 7"});
  EXPECT_EQ(Changed("").at(" 7"), 4);
  EXPECT_EQ(Raised(" 7"), Pieces{"f"}) << "and continues with it";
  EXPECT_EQ(Raised(" not"), Pieces{}) << "later the model decides";
  EXPECT_EQ(Raised(" 7f3d"), Pieces{});
}

TEST_F(CopyBiasTest, PrefersTheOtherOfTwoWordsWithTheSameFirstToken) {
  words_ = CopyBias("ab12");
  Line({"a", "b", "1", "2", " ", "a", "c", "3", "4"});
  EXPECT_EQ(Lowered(""), Pieces{}) << "\"a\" begins the other one too";
  EXPECT_EQ(Lowered("a"), Pieces{"b"});
  EXPECT_EQ(Lowered("ab"), Pieces{}) << "too late";
}

TEST_F(CopyBiasTest, AfterTwoListedWordsFavoursOneNotListedYet) {
  Line({"1", "2", "3", "4"});
  Line({"5", "6", "7", "8"});
  Line({"9", "0", "9", "7"});
  EXPECT_EQ(Raised("1234, "), Pieces{}) << "one is no list";
  EXPECT_EQ(Raised("1234, 5678, "), Pieces{"9"});
  EXPECT_EQ(Raised("1234, 5678, 9"), Pieces{"0"});
  EXPECT_EQ(Changed("1234, 5678, 9").at("0"), 2);
  EXPECT_EQ(Raised("1234, 5678, 9097, "), Pieces{});
}

TEST_F(CopyBiasTest, LeavesThePrefixsWordsAloneWhenThereAreNoOthers) {
  words_ = CopyBias("Is it memory/engine.h?");
  Line({"memory", "/", "engine", ".", "h"});
  EXPECT_EQ(Changed(""), (std::map<std::string, float>{}));
}

}  // namespace
}  // namespace longhold
