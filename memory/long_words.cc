#include "memory/long_words.h"

#include <algorithm>

#include "base/text.h"

namespace longhold {
namespace {

// Words of fewer tokens are seldom miscopied, and often begin like others ("wild", "wilderness").
constexpr size_t kTokensMin = 4;
constexpr size_t kBegunMin = 2;  // tokens
// 5 answers as 2 does; what the model is sure of stays.
constexpr float kBonus = 2;      // nats

// Inside of a word punctuation counts ("79f34d45-2a8a", "memory/engine.h"), around it it does not.
bool InWord(char c) { return IsWordByte(c) || c == '_'; }

bool Holds(std::string_view text, std::string_view word) {
  for (size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    const size_t end = at + word.size();
    if ((at == 0 || !InWord(text[at - 1])) && (end == text.size() || !InWord(text[end]))) return true;
  }
  return false;
}

}  // namespace

void LongWords::Add(std::span<const TokenId> tokens, std::span<const std::string> pieces) {
  std::string text;
  std::vector<size_t> begins;
  for (const std::string& piece : pieces) {
    begins.push_back(text.size());
    text += piece;
  }
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    while (end < text.size() && !IsSpace(text[end])) ++end;
    size_t first = at, last = end;
    while (first < last && !InWord(text[first])) ++first;
    while (last > first && !InWord(text[last - 1])) --last;
    at = end + 1;
    if (first == last) continue;
    Word word{.text = text.substr(first, last - first), .next = {}};
    const size_t t0 = static_cast<size_t>(std::upper_bound(begins.begin(), begins.end(), first) - begins.begin()) - 1;
    size_t t = t0;
    for (; t < begins.size() && begins[t] < last; ++t) {
      if (t >= t0 + kBegunMin) word.next.push_back({begins[t] - first, tokens[t]});
    }
    if (t - t0 >= kTokensMin) words_.push_back(std::move(word));
  }
}

bool LongWords::Favour(std::string_view answer, std::span<const float> logits, std::vector<float>* favoured) const {
  size_t begin = answer.size();
  while (begin > 0 && !IsSpace(answer[begin - 1])) --begin;
  while (begin < answer.size() && !InWord(answer[begin])) ++begin;
  const std::string_view begun = answer.substr(begin);
  if (begun.empty()) return false;
  std::vector<TokenId> raised;
  for (const Word& word : words_) {
    if (word.text.size() <= begun.size() || !word.text.starts_with(begun)) continue;
    const auto next = std::find_if(word.next.begin(), word.next.end(), [&](const Next& n) { return n.offset == begun.size(); });
    if (next == word.next.end() || Holds(answer.substr(0, begin), word.text)) continue;
    if (std::find(raised.begin(), raised.end(), next->token) == raised.end()) raised.push_back(next->token);
  }
  if (raised.empty()) return false;
  favoured->assign(logits.begin(), logits.end());
  for (const TokenId token : raised) (*favoured)[static_cast<size_t>(token)] += kBonus;
  return true;
}

}  // namespace longhold
