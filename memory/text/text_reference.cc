#include "memory/text/text_reference.h"

#include <algorithm>
#include <array>
#include <string>

#include "base/text.h"

namespace longhold {
namespace {

constexpr std::array kVerbs = {"mentioned", "stated",    "described", "given",
                               "provided",  "specified", "according"};
constexpr std::array kPrepositions = {"in", "from",   "within", "by",  "to",
                                      "of", "inside", "on",     "upon"};
constexpr std::array kArticles = {"the",   "a",     "an", "this", "that",
                                  "these", "those", "my", "our",  "your"};
// Words that alone show that the text given to the model is meant.
constexpr std::array kPointing = {"provided",  "given",    "following", "above",    "below",
                                  "preceding", "previous", "attached",  "supplied", "quoted",
                                  "enclosed",  "included", "foregoing"};
constexpr std::array kOther = {"entire", "whole",  "full",     "long", "same",
                               "input",  "source", "original", "main"};
constexpr std::array kNouns = {"text",      "texts",   "passage", "passages", "document",
                               "documents", "context", "excerpt", "excerpts"};
// Nouns that can also name things inside a text.
constexpr std::array kThings = {
    "article", "articles", "paragraph", "paragraphs",   "content",    "story",  "book",  "novel",
    "chapter", "file",     "files",     "conversation", "transcript", "report", "paper", "essay"};

struct Word {
  size_t begin = 0, end = 0;  // byte range in the question
  std::string lower;
  bool punctuation_after = false;  // punctuation or the end of the question follows
};

std::vector<Word> WordsOf(std::string_view text) {
  std::vector<Word> words;
  for (size_t i = 0; i < text.size();) {
    if (!IsWordByte(text[i])) {
      if (!words.empty() && !IsSpace(text[i])) words.back().punctuation_after = true;
      ++i;
      continue;
    }
    Word word{.begin = i};
    while (i < text.size() && IsWordByte(text[i])) {
      const char c = text[i++];
      word.lower.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c);
    }
    word.end = i;
    words.push_back(std::move(word));
  }
  if (!words.empty()) words.back().punctuation_after = true;
  return words;
}

template <size_t n>
bool IsOne(const std::array<const char*, n>& list, const Word& word) {
  return std::find(list.begin(), list.end(), word.lower) != list.end();
}

// The phrase whose preposition is words[at]: returns the index after its last word, or `at` if
// there is no such phrase.
size_t PhraseEnd(const std::vector<Word>& words, size_t at) {
  const auto more = [&](size_t i) { return i < words.size() && !words[i - 1].punctuation_after; };
  size_t i = at + 1;
  bool pointing = false, article = false;
  if (more(i) && IsOne(kArticles, words[i])) {
    article = true;
    pointing = words[i].lower == "this" || words[i].lower == "these";
    ++i;
  }
  for (; more(i) && (IsOne(kPointing, words[i]) || IsOne(kOther, words[i])); ++i)
    pointing |= IsOne(kPointing, words[i]);
  if (!more(i) || !(IsOne(kNouns, words[i]) || IsOne(kThings, words[i])) || !(article || pointing))
    return at;
  const bool thing = IsOne(kThings, words[i]);
  ++i;
  if (more(i) && IsOne(kPointing, words[i])) {
    pointing = true;
    ++i;
  }
  return words[i - 1].punctuation_after && (pointing || !thing) ? i : at;
}

}  // namespace

std::vector<ByteSpan> TextReferences(std::string_view question) {
  const std::vector<Word> words = WordsOf(question);
  std::vector<ByteSpan> spans;
  for (size_t i = 0; i < words.size();) {
    const size_t end = IsOne(kPrepositions, words[i]) ? PhraseEnd(words, i) : i;
    if (end == i) {
      ++i;
      continue;
    }
    const bool verb = i > 0 && !words[i - 1].punctuation_after && IsOne(kVerbs, words[i - 1]);
    spans.push_back({words[verb ? i - 1 : i].begin, words[end - 1].end});
    i = end;
  }
  return spans;
}

}  // namespace longhold
