#include "memory/answer/copy_bias.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/text.h"

namespace longhold {
namespace {

// Words with fewer tokens are seldom miscopied and often begin like others ("wild", "wilderness").
constexpr size_t kTokensMin = 4;
constexpr size_t kBegunMin = 2;  // tokens that must be copied already
// Nats per copied token, and the limit. After two tokens, a model that is sure of something else
// still wins. After ten, the word is certain.
constexpr float kRaisePerToken = 1, kRaiseMax = 10;
// An answer with at least this many of these words is enumerating them. Its next word is then
// probably another one of them.
constexpr size_t kListMin = 2;
constexpr float kListRaise = 2;
// Nats for an identifier next to one of the prefix, at the start of the answer. It is probably what
// is asked for, but a small model often fails to begin it.
constexpr float kBesideRaise = 4;
// Nats subtracted from the first token of words that are already written.
constexpr float kLower = 6;

// Punctuation inside a word belongs to it ("79f34d45-2a8a", "memory/engine.h"); punctuation around
// it does not.
bool InWord(char c) { return IsWordByte(c) || c == '_'; }

bool HasDigit(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](unsigned char c) { return c >= '0' && c <= '9'; });
}

bool Holds(std::string_view text, std::string_view word) {
  for (size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    const size_t end = at + word.size();
    if ((at == 0 || !InWord(text[at - 1])) && (end == text.size() || !InWord(text[end])))
      return true;
  }
  return false;
}

}  // namespace

void CopyBias::Add(std::span<const TokenId> tokens, std::span<const std::string> pieces) {
  std::string text;
  std::vector<size_t> begins;
  const size_t first_word = words_.size();
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
    Word word{.text = text.substr(first, last - first), .parts = {}};
    size_t t = static_cast<size_t>(std::upper_bound(begins.begin(), begins.end(), first) -
                                   begins.begin()) -
               1;
    word.after_blank = begins[t] < first && IsSpace(text[begins[t]]);
    word.said = Holds(said_, word.text);
    for (; t < begins.size() && begins[t] < last; ++t)
      word.parts.push_back({std::max(begins[t], first) - first, tokens[t]});
    if (word.parts.size() >= kTokensMin) words_.push_back(std::move(word));
  }
  const std::span<Word> line = std::span(words_).subspan(first_word);
  const bool said = std::any_of(line.begin(), line.end(),
                                [](const Word& word) { return word.said && HasDigit(word.text); });
  for (Word& word : line) word.beside_said = said && !word.said && HasDigit(word.text);
}

bool CopyBias::Guide(std::string_view answer, std::span<const float> logits,
                     std::vector<float>* guided) const {
  size_t begin = answer.size();
  while (begin > 0 && !IsSpace(answer[begin - 1])) --begin;
  while (begin < answer.size() && !InWord(answer[begin])) ++begin;
  const std::string_view begun = answer.substr(begin), before = answer.substr(0, begin);
  const auto may_follow = [&](const Word& word, size_t part) {
    if (part == 0) return word.after_blank || begun.empty();
    return word.parts[part].offset == begun.size() && word.text.starts_with(begun);
  };
  std::map<TokenId, float> change;
  std::set<TokenId> wanted;         // tokens of words that are not written yet
  std::vector<const Word*> others;  // neither in the prefix nor in the answer
  size_t listed = 0;                // words that are in the answer
  for (const Word& word : words_) {
    if (word.said) continue;
    if (Holds(before, word.text))
      ++listed;
    else
      others.push_back(&word);
  }
  bool within_other = false;
  const bool nothing_said = std::none_of(answer.begin(), answer.end(), InWord);
  for (const Word* word : others) {
    for (size_t n = 0; n < word->parts.size(); ++n) {
      if (!may_follow(*word, n)) continue;
      wanted.insert(word->parts[n].token);
      within_other |= n > 0;
      float& raise = change[word->parts[n].token];
      if (n >= kBegunMin || listed >= kListMin)
        raise = std::max(raise,
                         std::clamp(kRaisePerToken * static_cast<float>(n), kListRaise, kRaiseMax));
      if (word->beside_said && listed == 0 && (n > 0 || nothing_said))
        raise = std::max(raise, kBesideRaise);
    }
  }
  for (const Word& word : words_) {
    if (!word.said || others.empty() || listed > 0) continue;
    for (size_t n = 0; n < word.parts.size(); ++n) {
      if (may_follow(word, n) && !wanted.contains(word.parts[n].token) && (n == 0 || within_other))
        change[word.parts[n].token] = -kLower;
    }
  }
  std::erase_if(change, [](const auto& entry) { return entry.second == 0; });
  if (change.empty()) return false;
  guided->assign(logits.begin(), logits.end());
  for (const auto& [token, by] : change) (*guided)[static_cast<size_t>(token)] += by;
  return true;
}

}  // namespace longhold
