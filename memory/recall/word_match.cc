#include "memory/recall/word_match.h"

#include <algorithm>
#include <cctype>
#include <set>

namespace longhold {
namespace {

// Removes spaces and punctuation that are in the same token as the word.
std::string Bare(const std::string& text) {
  const auto bare = [](unsigned char c) { return c < 0x80 && !std::isalnum(c); };
  size_t begin = 0, end = text.size();
  while (begin < end && bare(static_cast<unsigned char>(text[begin]))) ++begin;
  while (end > begin && bare(static_cast<unsigned char>(text[end - 1]))) --end;
  return text.substr(begin, end - begin);
}

}  // namespace

std::vector<AskedWord> AskedWords(std::span<const LexicalWord> words,
                                  std::span<const LexicalResult::Word> known,
                                  std::span<const TokenId> tokens,
                                  const std::function<std::string(TokenId)>& piece) {
  std::vector<AskedWord> asked;
  words = words.last(std::min(words.size(), known.size()));
  for (size_t i = 0; i < words.size(); ++i) {
    const uint32_t stem = words[i].Stem();
    if (std::any_of(asked.begin(), asked.end(), [&](const AskedWord& a) { return a.stem == stem; }))
      continue;
    AskedWord word{.stem = stem,
                   .begin = words[i].begin,
                   .end = words[i].end,
                   .block_count = known[i].block_count,
                   .weight = known[i].weight,
                   .function_word = known[i].function_word};
    for (uint32_t t = word.begin; t < word.end; ++t) word.text += piece(tokens[t]);
    word.text = Bare(word.text);
    asked.push_back(std::move(word));
  }
  return asked;
}

std::vector<WordMatch> MatchWords(std::span<const AskedWord> asked,
                                  std::span<const LexicalWord> span_words,
                                  std::span<const float> token_gains, uint32_t scored_begin,
                                  std::span<const ExpansionWord> related) {
  std::set<uint32_t> stems;
  for (const LexicalWord& word : span_words) stems.insert(word.Stem());
  std::vector<WordMatch> match;
  for (const AskedWord& word : asked) {
    WordMatch b{.found = stems.count(word.stem) > 0};
    for (const ExpansionWord& r : related) {
      if (r.of == word.stem && stems.count(r.stem) > 0) b.related = std::max(b.related, r.weight);
    }
    uint32_t judged = 0;
    for (uint32_t t = std::max(word.begin, scored_begin);
         t < word.end && t - scored_begin < token_gains.size(); ++t) {
      b.gain += token_gains[t - scored_begin];
      ++judged;
    }
    if (judged > 0) b.gain /= judged;
    match.push_back(b);
  }
  return match;
}

}  // namespace longhold
