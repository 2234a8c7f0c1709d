#include "memory/answer/grounding.h"

#include <set>

namespace longhold {
namespace {

std::set<uint32_t> StemsOf(std::span<const LexicalWord> words) {
  std::set<uint32_t> stems;
  for (const LexicalWord& word : words) stems.insert(word.Stem());
  return stems;
}

}  // namespace

AnswerWords MatchAnswer(std::span<const LexicalWord> answer, std::span<const LexicalWord> question,
                        std::span<const LexicalWord> text) {
  const std::set<uint32_t> asked = StemsOf(question), known = StemsOf(text);
  AnswerWords words;
  for (const uint32_t stem : StemsOf(answer)) {
    if (IsFunctionWord(stem) || asked.contains(stem)) continue;
    ++words.own;
    words.found += known.contains(stem) ? 1 : 0;
  }
  return words;
}

}  // namespace longhold
