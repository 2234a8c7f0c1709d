#include "eval/bm25.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <unordered_set>

namespace longhold {
namespace {

// ------------------------------------------------------------------------------------------------
// stemmer

// The word being stemmed. Porter's m is the number of vowel-consonant sequences of a stem.
class Stem {
 public:
  explicit Stem(std::string_view word) : w_(word) {}
  std::string Take() && { return std::move(w_); }

  bool Ends(std::string_view suffix) const {
    return w_.size() >= suffix.size() && w_.ends_with(suffix);
  }
  size_t Base(std::string_view suffix) const { return w_.size() - suffix.size(); }
  void Cut(size_t length, std::string_view by = {}) {
    w_.resize(length);
    w_ += by;
  }
  size_t size() const { return w_.size(); }

  bool Consonant(size_t i) const {
    switch (w_[i]) {
      case 'a':
      case 'e':
      case 'i':
      case 'o':
      case 'u': return false;
      case 'y': return i == 0 || !Consonant(i - 1);
      default: return true;
    }
  }
  // Porter's m of the first `length` letters.
  int Measure(size_t length) const {
    int m = 0;
    bool vowel = false;
    for (size_t i = 0; i < length; ++i) {
      if (!Consonant(i))
        vowel = true;
      else if (vowel) {
        ++m;
        vowel = false;
      }
    }
    return m;
  }
  bool HasVowel(size_t length) const {
    for (size_t i = 0; i < length; ++i) {
      if (!Consonant(i)) return true;
    }
    return false;
  }
  bool DoubleConsonant() const {
    const size_t n = w_.size();
    return n >= 2 && w_[n - 1] == w_[n - 2] && Consonant(n - 1);
  }
  // Whether the first `length` letters end in consonant, vowel, consonant, the last not w, x or y.
  bool Cvc(size_t length) const {
    if (length < 3 || !Consonant(length - 3) || Consonant(length - 2) || !Consonant(length - 1))
      return false;
    const char c = w_[length - 1];
    return c != 'w' && c != 'x' && c != 'y';
  }
  char Last() const { return w_.back(); }

 private:
  std::string w_;
};

struct Rule {
  std::string_view suffix, by;
};

// Applies the first rule whose suffix matches, if the remaining stem has m > `measure`. Later rules
// are not tried.
void Apply(Stem* w, const std::vector<Rule>& rules, int measure) {
  for (const Rule& rule : rules) {
    if (!w->Ends(rule.suffix)) continue;
    if (w->Measure(w->Base(rule.suffix)) > measure) w->Cut(w->Base(rule.suffix), rule.by);
    return;
  }
}

void Plurals(Stem* w) {
  if (w->Ends("sses"))
    w->Cut(w->Base("es"));
  else if (w->Ends("ies"))
    w->Cut(w->Base("es"));
  else if (w->Ends("s") && !w->Ends("ss"))
    w->Cut(w->Base("s"));
}

void PastAndGerund(Stem* w) {
  if (w->Ends("eed")) {
    if (w->Measure(w->Base("eed")) > 0) w->Cut(w->Base("d"));
    return;
  }
  const std::string_view suffix = w->Ends("ed") ? "ed" : w->Ends("ing") ? "ing" : "";
  if (suffix.empty() || !w->HasVowel(w->Base(suffix))) return;
  w->Cut(w->Base(suffix));
  if (w->Ends("at") || w->Ends("bl") || w->Ends("iz"))
    w->Cut(w->size(), "e");
  else if (w->DoubleConsonant() && w->Last() != 'l' && w->Last() != 's' && w->Last() != 'z')
    w->Cut(w->size() - 1);
  else if (w->Measure(w->size()) == 1 && w->Cvc(w->size()))
    w->Cut(w->size(), "e");
}

void Endings(Stem* w) {
  static const std::vector<Rule> second = {
      {"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"},   {"anci", "ance"},
      {"izer", "ize"},    {"abli", "able"},   {"alli", "al"},     {"entli", "ent"},
      {"eli", "e"},       {"ousli", "ous"},   {"ization", "ize"}, {"ation", "ate"},
      {"ator", "ate"},    {"alism", "al"},    {"iveness", "ive"}, {"fulness", "ful"},
      {"ousness", "ous"}, {"aliti", "al"},    {"iviti", "ive"},   {"biliti", "ble"}};
  static const std::vector<Rule> third = {{"icate", "ic"}, {"ative", ""},  {"alize", "al"},
                                          {"iciti", "ic"}, {"ical", "ic"}, {"ful", ""},
                                          {"ness", ""}};
  // A suffix comes before every shorter suffix of itself, because the first match wins.
  static const std::vector<std::string_view> fourth = {
      "al",  "ance", "ence", "er",  "ic",  "able", "ible", "ant", "ement", "ment",
      "ent", "ion",  "ou",   "ism", "ate", "iti",  "ous",  "ive", "ize"};
  Apply(w, second, 0);
  Apply(w, third, 0);
  for (const std::string_view suffix : fourth) {
    if (!w->Ends(suffix)) continue;
    const size_t base = w->Base(suffix);
    Stem left = *w;
    left.Cut(base);
    const bool allowed = suffix != "ion" || left.Ends("s") || left.Ends("t");
    if (allowed && w->Measure(base) > 1) w->Cut(base);
    break;
  }
}

void FinalLetters(Stem* w) {
  if (w->Ends("e")) {
    const size_t base = w->Base("e");
    const int m = w->Measure(base);
    if (m > 1 || (m == 1 && !w->Cvc(base))) w->Cut(base);
  }
  if (w->Ends("ll") && w->Measure(w->size()) > 1) w->Cut(w->size() - 1);
}

}  // namespace

std::string PorterStem(std::string_view word) {
  const bool plain =
      std::all_of(word.begin(), word.end(), [](char c) { return c >= 'a' && c <= 'z'; });
  if (word.size() < 3 || !plain) return std::string(word);
  Stem w(word);
  Plurals(&w);
  PastAndGerund(&w);
  if (w.Ends("y") && w.HasVowel(w.Base("y"))) w.Cut(w.Base("y"), "i");
  Endings(&w);
  FinalLetters(&w);
  return std::move(w).Take();
}

bool IsStopWord(std::string_view word) {
  static const std::unordered_set<std::string_view> words = {
      "a",     "about", "after", "all",   "also",   "am",    "an",    "and",    "any",    "are",
      "as",    "at",    "be",    "been",  "before", "being", "but",   "by",     "can",    "could",
      "did",   "do",    "does",  "for",   "from",   "had",   "has",   "have",   "having", "he",
      "her",   "here",  "him",   "his",   "how",    "i",     "if",    "in",     "into",   "is",
      "it",    "its",   "me",    "might", "must",   "my",    "no",    "nor",    "not",    "of",
      "on",    "or",    "our",   "out",   "s",      "shall", "she",   "should", "so",     "some",
      "such",  "t",     "than",  "that",  "the",    "thee",  "their", "them",   "then",   "there",
      "these", "they",  "this",  "those", "thou",   "thy",   "to",    "unto",   "up",     "upon",
      "us",    "was",   "we",    "were",  "what",   "when",  "where", "which",  "while",  "who",
      "whom",  "whose", "why",   "will",  "with",   "would", "ye",    "you",    "your"};
  return words.count(word) > 0;
}

std::vector<std::string> SearchWords(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  for (size_t i = 0; i <= text.size(); ++i) {
    const unsigned char c = i < text.size() ? static_cast<unsigned char>(text[i]) : ' ';
    const bool upper = c >= 'A' && c <= 'Z';
    if (upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c >= 0x80) {
      word += static_cast<char>(upper ? c - 'A' + 'a' : c);
    } else if (!word.empty()) {
      if (!IsStopWord(word)) words.push_back(PorterStem(word));
      word.clear();
    }
  }
  return words;
}

Bm25Retriever::Bm25Retriever(std::string_view text, const Bm25Options& options)
    : Bm25Retriever(text, CutPassages(text, options.passages), options) {}

Bm25Retriever::Bm25Retriever(std::string_view text, std::vector<ByteSpan> passages,
                             const Bm25Options& options)
    : options_(options), passages_(std::move(passages)) {
  uint64_t total = 0;
  for (uint32_t p = 0; p < passages_.size(); ++p) {
    const std::vector<std::string> words =
        SearchWords(text.substr(passages_[p].begin, passages_[p].size()));
    words_.push_back(static_cast<uint32_t>(words.size()));
    total += words.size();
    for (const std::string& word : words) {
      std::vector<Posting>& list = postings_[word];
      if (list.empty() || list.back().passage != p) list.push_back({p, 0});
      ++list.back().count;
    }
  }
  words_mean_ =
      passages_.empty()
          ? 1
          : std::max(1e-9, static_cast<double>(total) / static_cast<double>(passages_.size()));
}

Result<std::vector<Passage>> Bm25Retriever::Retrieve(std::string_view question, size_t count) {
  const std::vector<std::string> words = SearchWords(question);
  const std::set<std::string> distinct(words.begin(), words.end());
  std::vector<double> scores(passages_.size(), 0);
  const double n = static_cast<double>(passages_.size());
  for (const std::string& word : distinct) {
    const auto found = postings_.find(word);
    if (found == postings_.end()) continue;
    const double df = static_cast<double>(found->second.size());
    const double idf = std::log(1 + (n - df + 0.5) / (df + 0.5));
    for (const Posting& posting : found->second) {
      const double tf = posting.count;
      const double length =
          options_.k1 * (1 - options_.b + options_.b * words_[posting.passage] / words_mean_);
      scores[posting.passage] += idf * tf * (options_.k1 + 1) / (tf + length);
    }
  }
  std::vector<uint32_t> order;
  for (uint32_t p = 0; p < scores.size(); ++p) {
    if (scores[p] > 0) order.push_back(p);
  }
  const size_t kept = std::min(count, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(kept), order.end(),
                    [&](uint32_t a, uint32_t b) {
                      return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
                    });
  std::vector<Passage> out;
  for (size_t i = 0; i < kept; ++i)
    out.push_back({passages_[order[i]].begin, passages_[order[i]].end, scores[order[i]]});
  return out;
}

uint64_t Bm25Retriever::ram_bytes() const {
  uint64_t bytes = passages_.size() * (sizeof(ByteSpan) + sizeof(uint32_t));
  // A node of the map holds the word, its posting list and a link.
  for (const auto& [word, list] : postings_)
    bytes += word.size() + sizeof(word) + sizeof(list) + 2 * sizeof(void*) +
             list.capacity() * sizeof(Posting);
  return bytes;
}

}  // namespace longhold
