#include "memory/recall/abstention.h"

#include <algorithm>
#include <cctype>
#include <limits>
#include <set>

#include "base/status.h"

namespace longhold {
namespace {

constexpr double kOtherWords = 0.25;

// Without the spaces and marks that share a token with the word.
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
  std::vector<WordMatch> beside;
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
    beside.push_back(b);
  }
  return beside;
}

double Support(std::span<const AskedWord> asked, std::span<const WordMatch> beside) {
  LH_CHECK(asked.size() == beside.size());
  double all = 0, look = 0;
  for (size_t i = 0; i < asked.size(); ++i) {
    if (asked[i].function_word) continue;
    all += asked[i].weight;
    look += asked[i].weight * beside[i].gain;
  }
  if (all <= 0) return std::numeric_limits<double>::infinity();
  return std::max(0.0, look / all) * (kOtherWords + FoundShare(asked, beside)) / (kOtherWords + 1);
}

double FoundShare(std::span<const AskedWord> asked, std::span<const WordMatch> beside) {
  LH_CHECK(asked.size() == beside.size());
  double all = 0, found = 0;
  for (size_t i = 0; i < asked.size(); ++i) {
    if (asked[i].function_word) continue;
    all += asked[i].weight;
    if (beside[i].found) found += asked[i].weight;
  }
  return all > 0 ? found / all : 1;
}

double FoundShareTogether(std::span<const AskedWord> asked,
                          std::span<const std::vector<WordMatch>> spans) {
  std::vector<WordMatch> together(asked.size());
  double share = 0, first = 0;
  for (uint32_t needed = 0;; ++needed) {
    double most = 0;
    std::vector<WordMatch> best;
    for (const std::vector<WordMatch>& span : spans) {
      std::vector<WordMatch> with = together;
      for (size_t w = 0; w < with.size(); ++w) with[w].found |= span[w].found;
      const double gain = FoundShare(asked, with) - share;
      if (gain <= most) continue;
      most = gain;
      best = std::move(with);
    }
    if (needed == 0) first = most;
    if (most <= 0 || most < kNeededGain * first)
      return needed >= kTogetherMin ? share / kTogetherFactor : 0;
    share += most;
    together = std::move(best);
  }
}

}  // namespace longhold
