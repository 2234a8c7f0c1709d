// Counts of an answer's own words over a vocabulary in which every byte is a token.
#include "memory/answer/grounding.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace longhold {
namespace {

std::vector<LexicalWord> Words(std::string_view text) {
  std::vector<std::string> pieces;
  for (int byte = 0; byte < 256; ++byte) pieces.emplace_back(1, static_cast<char>(byte));
  static const LexicalVocabulary vocabulary(pieces);
  std::vector<TokenId> tokens;
  for (const char c : text) tokens.push_back(static_cast<uint8_t>(c));
  return vocabulary.Words(tokens);
}

AnswerWords Match(std::string_view answer, std::string_view question, std::string_view text) {
  return MatchAnswer(Words(answer), Words(question), Words(text));
}

TEST(MatchAnswer, CountsOnlyWhatTheQuestionDoesNotSay) {
  const AnswerWords words =
      Match("The ark came to rest on the mountains of Ararat.",
            "On which mountains did the ark come to rest?", "And the ark rested upon Ararat.");
  EXPECT_EQ(words.own, 1u) << "Ararat; came is come";
  EXPECT_EQ(words.found, 1u);
}

TEST(MatchAnswer, FindsInflections) {
  const AnswerWords words =
      Match("He buried two daughters", "What happened?", "burying a daughter");
  EXPECT_EQ(words.own, 3u);
  EXPECT_EQ(words.found, 2u);
}

TEST(MatchAnswer, FindsNothingOfTheModelsOwnKnowledge) {
  const AnswerWords words = Match("The president of France is Emmanuel Macron.",
                                  "Who is the president of France?", "In the beginning");
  EXPECT_EQ(words.own, 2u);
  EXPECT_EQ(words.found, 0u);
}

TEST(MatchAnswer, OfAnAnswerWithoutWordsOfItsOwnIsEmpty) {
  EXPECT_EQ(Match("It did.", "Did the ark rest?", "anything").own, 0u);
}

}  // namespace
}  // namespace longhold
