#include "memory/excerpts.h"

#include <algorithm>

namespace longhold {
namespace {

// The peak knows the words' neighbourhood, which a sentence by itself does not: another must hold twice as much of the question.
constexpr double kPeakFactor = 2;
constexpr double kShareMin = 0.75;
constexpr double kAddsMin = 0.2;
constexpr double kLacksMin = 0.02;

// The weight of the question's words that only `other` has and does not hold by chance; 0 where `sentence` has one that `other` has not.
double Lacks(std::span<const AskedWord> asked, const SpanSentence& sentence, const SpanSentence& other) {
  double lacks = 0;
  for (size_t w = 0; w < asked.size(); ++w) {
    if (asked[w].function_word || sentence.has[w] == other.has[w]) continue;
    if (sentence.has[w]) return 0;
    lacks += other.about[w] > 0 ? asked[w].weight : 0;
  }
  return lacks;
}

}  // namespace

std::vector<SpanSentence> ChooseExcerpts(std::span<const AskedWord> asked, std::span<const SpanSentence> sentences,
                                         std::span<const ExcerptSpan> spans, uint32_t tokens_max) {
  std::vector<double> weight;  // [sentences]
  double heaviest = 0;
  for (const SpanSentence& sentence : sentences) {
    double sum = 0;
    for (size_t w = 0; w < asked.size(); ++w) sum += sentence.about[w] > 0 && !asked[w].function_word ? asked[w].weight : 0;
    weight.push_back(sum);
    heaviest = std::max(heaviest, sum);
  }
  std::vector<bool> is_part(sentences.size(), false);  // of another span's sentence
  for (size_t i = 0; i < sentences.size(); ++i) {
    for (size_t j = 0; j < sentences.size() && spans[sentences[i].span].by_question && !is_part[i]; ++j) {
      if (sentences[j].span == sentences[i].span || spans[sentences[j].span].score < kExcerptScoreMin) continue;
      is_part[i] = weight[j] >= kShareMin * heaviest && Lacks(asked, sentences[i], sentences[j]) > kLacksMin * heaviest;
    }
  }
  std::vector<double> covered(asked.size(), 0);
  std::vector<bool> chosen(sentences.size(), false);
  uint64_t room = tokens_max;
  const auto choose = [&](size_t i) {
    const uint64_t need = sentences[i].tokens.size() + 1;  // with a line break
    if (chosen[i] || need > room || is_part[i]) return;
    room -= need;
    chosen[i] = true;
    for (size_t w = 0; w < asked.size(); ++w) covered[w] = std::max(covered[w], sentences[i].about[w]);
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
      if (chosen[i] || is_part[i] || spans[sentences[i].span].score < kExcerptScoreMin || sentences[i].tokens.size() + 1 > room) continue;
      double adds = 0;
      for (size_t w = 0; w < asked.size(); ++w) {
        if (!asked[w].function_word) adds += asked[w].weight * std::max(0.0, sentences[i].about[w] - covered[w]);
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
