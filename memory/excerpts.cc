#include "memory/excerpts.h"

#include <algorithm>

namespace longhold {
namespace {

// The peak knows the words' neighbourhood, which a sentence by itself does not: another must hold twice as much of the question.
constexpr double kPeakFactor = 2;
constexpr double kShareMin = 0.75;
constexpr double kAddsMin = 0.2;

}  // namespace

std::vector<SpanSentence> ChooseExcerpts(std::span<const AskedWord> asked, std::span<const SpanSentence> sentences,
                                         std::span<const ExcerptSpan> spans, uint32_t tokens_max) {
  std::vector<double> weight;  // [sentences]
  double heaviest = 0;
  for (const SpanSentence& sentence : sentences) {
    double sum = 0;
    for (size_t w = 0; w < asked.size(); ++w) sum += sentence.found[w] > 0 && !asked[w].function_word ? asked[w].weight : 0;
    weight.push_back(sum);
    heaviest = std::max(heaviest, sum);
  }
  std::vector<double> covered(asked.size(), 0);
  std::vector<bool> chosen(sentences.size(), false);
  uint64_t room = tokens_max;
  const auto choose = [&](size_t i) {
    const uint64_t need = sentences[i].tokens.size() + 1;  // with a line break
    if (chosen[i] || need > room) return;
    room -= need;
    chosen[i] = true;
    for (size_t w = 0; w < asked.size(); ++w) covered[w] = std::max(covered[w], sentences[i].found[w]);
  };

  for (size_t i = 0; i < sentences.size();) {
    const size_t span = sentences[i].span;
    size_t best = i;
    double most = -1;
    for (; i < sentences.size() && sentences[i].span == span; ++i) {
      const double w = weight[i] * (sentences[i].peak ? kPeakFactor : 1);
      if (w < most || (w == most && !sentences[i].peak)) continue;
      most = w;
      best = i;
    }
    if (spans[span].score < kExcerptScoreMin) continue;
    if (!spans[span].by_question || weight[best] >= kShareMin * heaviest) choose(best);
  }
  for (size_t i = 0; i < sentences.size() && heaviest > 0; ++i) {
    if (weight[i] >= kShareMin * heaviest) choose(i);
  }
  for (;;) {
    size_t next = sentences.size();
    double most = kAddsMin * heaviest;
    for (size_t i = 0; i < sentences.size(); ++i) {
      if (chosen[i] || spans[sentences[i].span].score < kExcerptScoreMin || sentences[i].tokens.size() + 1 > room) continue;
      double adds = 0;
      for (size_t w = 0; w < asked.size(); ++w) {
        if (!asked[w].function_word) adds += asked[w].weight * std::max(0.0, sentences[i].found[w] - covered[w]);
      }
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
