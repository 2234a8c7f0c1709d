#include "memory/recall/excerpts.h"

#include <algorithm>

#include "base/text.h"

namespace longhold {
namespace {

// The peak takes the words around a sentence into account, which a sentence's own weight does not.
// Another sentence must therefore have twice the peak sentence's weight.
constexpr double kPeakFactor = 2;
constexpr double kShareMin = 0.75;
constexpr double kAddsMin = 0.2;
constexpr double kLacksMin = 0.02;
// In shorter sentences the share of common words is not meaningful.
constexpr size_t kFormWordsMin = 4;
constexpr double kFormShareMin = 0.6;

// The weight of the question's words that `other` has and `sentence` lacks. With `about`, words
// that `other` contains only by chance are not counted. 0 if `sentence` has a word that `other`
// lacks.
double Lacks(std::span<const AskedWord> asked, const SpanSentence& sentence,
             const SpanSentence& other, bool about) {
  double lacks = 0;
  for (size_t w = 0; w < asked.size(); ++w) {
    if (asked[w].function_word || sentence.has[w] == other.has[w]) continue;
    if (sentence.has[w]) return 0;
    lacks += !about || other.about[w] > 0 ? asked[w].weight : 0;
  }
  return lacks;
}

double Weight(std::span<const AskedWord> asked, const SpanSentence& sentence) {
  double sum = 0;
  for (size_t w = 0; w < asked.size(); ++w) {
    if (asked[w].function_word || sentence.about[w] <= 0) continue;
    sum += asked[w].weight * (sentence.has[w] ? 1 : sentence.about[w]);
  }
  return sum;
}

// Whether `sentence` has the form of `other` but is about something else: `other` has all of its
// question words, and more. Among lines of one form no word is there by chance.
bool IsDistractor(std::span<const AskedWord> asked, const SpanSentence& sentence,
                  const SpanSentence& other) {
  if (sentence.form.size() < kFormWordsMin || other.form.size() < kFormWordsMin) return false;
  size_t common = 0;
  for (const uint32_t word : sentence.form)
    common += std::binary_search(other.form.begin(), other.form.end(), word);
  if (static_cast<double>(common) < kFormShareMin * static_cast<double>(sentence.form.size()))
    return false;
  double all = 0;
  for (size_t w = 0; w < asked.size(); ++w)
    all += other.has[w] && !asked[w].function_word ? asked[w].weight : 0;
  return Lacks(asked, sentence, other, false) > kLacksMin * all;
}

// Whether the text from `word` to the end of `next` is ASCII, without a space between the two.
bool StandTogether(const LexicalWord& word, const LexicalWord& next,
                   std::span<const TokenId> tokens, std::span<const std::string> pieces) {
  for (size_t t = word.begin; t < next.end; ++t) {
    const std::string& piece = pieces[static_cast<size_t>(tokens[t])];
    if (std::any_of(piece.begin(), piece.end(),
                    [](char c) { return static_cast<uint8_t>(c) >= 0x80; }))
      return false;
    if (t >= word.end && t <= next.begin && std::any_of(piece.begin(), piece.end(), IsSpace))
      return false;
  }
  return true;
}

}  // namespace

std::vector<uint32_t> FormWords(std::span<const LexicalWord> words, std::span<const TokenId> tokens,
                                std::span<const std::string> pieces) {
  std::vector<uint32_t> out;
  for (size_t i = 0; i < words.size();) {
    size_t end = i + 1;
    uint32_t form = words[i].Stem();
    for (; end < words.size() && StandTogether(words[end - 1], words[end], tokens, pieces); ++end)
      form = form * 0x01000193u ^ words[end].Stem();
    out.push_back(form);
    i = end;
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

std::vector<SpanSentence> ChooseExcerpts(std::span<const AskedWord> asked,
                                         std::span<const SpanSentence> sentences,
                                         std::span<const ExcerptSpan> spans, uint32_t tokens_max) {
  std::vector<double> weight;  // [sentences]
  double heaviest = 0;
  for (const SpanSentence& sentence : sentences) {
    weight.push_back(Weight(asked, sentence));
    heaviest = std::max(heaviest, weight.back());
  }
  std::vector<bool> is_part(sentences.size(), false);
  for (size_t i = 0; i < sentences.size(); ++i) {
    for (size_t j = 0; j < sentences.size() && spans[sentences[i].span].by_question && !is_part[i];
         ++j) {
      if (weight[j] < kShareMin * heaviest || spans[sentences[j].span].score < kExcerptScoreMin)
        continue;
      is_part[i] = IsDistractor(asked, sentences[i], sentences[j]) ||
                   (sentences[j].span != sentences[i].span &&
                    Lacks(asked, sentences[i], sentences[j], true) > kLacksMin * heaviest);
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
    for (size_t w = 0; w < asked.size(); ++w)
      covered[w] = std::max(covered[w], sentences[i].about[w]);
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
      if (chosen[i] || is_part[i] || spans[sentences[i].span].score < kExcerptScoreMin ||
          sentences[i].tokens.size() + 1 > room)
        continue;
      double adds = 0;
      for (size_t w = 0; w < asked.size(); ++w) {
        if (!asked[w].function_word)
          adds += asked[w].weight * std::max(0.0, sentences[i].about[w] - covered[w]);
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
    if (!chosen[i]) continue;
    out.push_back(sentences[i]);
    out.back().share = heaviest > 0 ? weight[i] / heaviest : 0;
  }
  return out;
}

std::vector<SpanSentence> Distractors(std::span<const AskedWord> asked,
                                      std::span<const SpanSentence> sentences,
                                      std::span<const SpanSentence> chosen) {
  const auto is_chosen = [&](const SpanSentence& s) {
    return std::any_of(chosen.begin(), chosen.end(), [&](const SpanSentence& c) {
      return c.span == s.span && c.tokens == s.tokens;
    });
  };
  std::vector<SpanSentence> out;
  for (const SpanSentence& s : sentences) {
    if (is_chosen(s)) continue;
    const bool alike = std::any_of(chosen.begin(), chosen.end(), [&](const SpanSentence& c) {
      return IsDistractor(asked, s, c);
    });
    if (alike) out.push_back(s);
  }
  return out;
}

}  // namespace longhold
