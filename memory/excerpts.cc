#include "memory/excerpts.h"

#include <algorithm>

namespace longhold {
namespace {

constexpr double kAddsMin = 0.05;
// The peak knows the words' neighbourhood, which a sentence by itself does not: another must hold twice as much of the question.
constexpr double kPeakFactor = 2;

double Weight(std::span<const AskedWord> asked, const std::vector<bool>& found, const std::vector<bool>& covered) {
  double weight = 0;
  for (size_t w = 0; w < asked.size(); ++w) {
    if (found[w] && !covered[w] && !asked[w].function_word) weight += asked[w].weight;
  }
  return weight;
}

}  // namespace

std::vector<SpanSentence> ChooseExcerpts(std::span<const AskedWord> asked, std::span<const SpanSentence> sentences,
                                         std::span<const double> scores, uint32_t tokens_max) {
  const std::vector<bool> nothing(asked.size(), false);
  std::vector<bool> covered = nothing;
  std::vector<bool> chosen(sentences.size(), false);
  uint64_t room = tokens_max;
  const auto choose = [&](size_t i) {
    const uint64_t need = sentences[i].tokens.size() + 1;  // with a line break
    if (need > room) return;
    room -= need;
    chosen[i] = true;
    for (size_t w = 0; w < asked.size(); ++w) covered[w] = covered[w] || sentences[i].found[w];
  };

  for (size_t s = 0; s < scores.size(); ++s) {
    if (scores[s] < kExcerptScoreMin) continue;
    const SpanSentence* best = nullptr;
    double most = -1;
    for (const SpanSentence& sentence : sentences) {
      if (sentence.span != s) continue;
      const double weight = Weight(asked, sentence.found, nothing) * (sentence.peak ? kPeakFactor : 1);
      if (weight < most || (weight == most && !sentence.peak)) continue;
      most = weight;
      best = &sentence;
    }
    if (best != nullptr) choose(static_cast<size_t>(best - sentences.data()));
  }

  double all = 0;
  for (const AskedWord& word : asked) all += word.function_word ? 0 : word.weight;
  for (;;) {
    size_t next = sentences.size();
    double most = kAddsMin * all;
    for (size_t i = 0; i < sentences.size(); ++i) {
      if (chosen[i] || scores[sentences[i].span] < kExcerptScoreMin || sentences[i].tokens.size() + 1 > room) continue;
      const double adds = Weight(asked, sentences[i].found, covered);
      if (adds <= most) continue;
      most = adds;
      next = i;
    }
    if (next == sentences.size()) break;
    choose(next);
  }

  std::vector<SpanSentence> out;
  for (size_t i = 0; i < sentences.size(); ++i) {
    if (chosen[i]) out.push_back(sentences[i]);
  }
  return out;
}

}  // namespace longhold
