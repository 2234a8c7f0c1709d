#include "memory/text/vocabulary.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/hash.h"
#include "memory/text/english_irregular.h"

namespace longhold {
namespace {

constexpr size_t kWordBytesMax = 64;

// How a code point continues or ends the word before it.
enum class Letter : uint8_t {
  kBreak,   // ends the word
  kSkip,    // no effect: a combining mark
  kLower,   // continues it, like any letter of a script without upper case
  kUpper,   // continues it, but not after a lower-case letter
  kDigit,   // continues digits
  kSingle,  // is a word of its own
};

struct Folded {
  Letter letter = Letter::kBreak;
  uint32_t code = 0;  // folded to lower case without accent
};

// Base letters of U+00C0 to U+017F; a space where there is none.
constexpr std::string_view kLatinBase =
    "aaaaaaaceeeeiiiidnooooo ouuuuyts"
    "aaaaaaaceeeeiiiidnooooo ouuuuyty"
    "aaaaaaccccccccddddeeeeeeeeeegggggggghhhhiiiiiiiiiiiijj"
    "kkkllllllllllnnnnnnnnnoooooooorrrrrrsssssssstttttt"
    "uuuuuuuuuuuuwwyyyzzzzzzs";
static_assert(kLatinBase.size() == 0x180 - 0xC0);

uint32_t FoldGreekCyrillicArmenian(uint32_t c) {
  switch (c) {
    case 0x386:
    case 0x3AC: return 0x3B1;
    case 0x388:
    case 0x3AD: return 0x3B5;
    case 0x389:
    case 0x3AE: return 0x3B7;
    case 0x38A:
    case 0x3AF:
    case 0x3AA:
    case 0x3CA:
    case 0x390: return 0x3B9;
    case 0x38C:
    case 0x3CC: return 0x3BF;
    case 0x38E:
    case 0x3CD:
    case 0x3AB:
    case 0x3CB:
    case 0x3B0: return 0x3C5;
    case 0x38F:
    case 0x3CE: return 0x3C9;
    case 0x3C2: return 0x3C3;  // final sigma
    case 0x401:
    case 0x451: return 0x435;  // yo, often written as ye
    default: break;
  }
  if ((c >= 0x391 && c <= 0x3A9) || (c >= 0x410 && c <= 0x42F)) return c + 32;
  if (c >= 0x400 && c <= 0x40F) return c + 80;
  if ((c >= 0x460 && c <= 0x481) || (c >= 0x48A && c <= 0x4BF) || (c >= 0x4D0 && c <= 0x52F))
    return c | 1;
  if (c >= 0x531 && c <= 0x556) return c + 48;
  return c;
}

Folded Fold(uint32_t c) {
  if (c >= 0xFF01 && c <= 0xFF5E) c -= 0xFEE0;  // full-width forms of ASCII
  if (c < 0x80) {
    if (c >= 'a' && c <= 'z') return {Letter::kLower, c};
    if (c >= 'A' && c <= 'Z') return {Letter::kUpper, c + ('a' - 'A')};
    if (c >= '0' && c <= '9') return {Letter::kDigit, c};
    return {};
  }
  if (c < 0xC0) return c == 0xAD ? Folded{Letter::kSkip, c} : Folded{};  // soft hyphen
  if (c < 0x180) {
    const char base = kLatinBase[c - 0xC0];
    return base == ' ' ? Folded{} : Folded{Letter::kLower, static_cast<uint32_t>(base)};
  }
  if (c >= 0x300 && c <= 0x36F) return {Letter::kSkip, c};
  if (c >= 0x370 && c < 0x590) return {Letter::kLower, FoldGreekCyrillicArmenian(c)};
  const bool unspaced = (c >= 0xE00 && c <= 0xEFF) || (c >= 0x1000 && c <= 0x109F) ||
                        (c >= 0x1780 && c <= 0x17FF) || (c >= 0x2E80 && c <= 0xA4CF) ||
                        (c >= 0xAC00 && c <= 0xD7AF) || (c >= 0xF900 && c <= 0xFAFF) ||
                        (c >= 0xFF66 && c <= 0xFFDC) || (c >= 0x1F000 && c <= 0x1FAFF) ||
                        (c >= 0x20000 && c <= 0x3FFFF);
  const bool cjk_punctuation =
      (c >= 0x3000 && c <= 0x3004) || (c >= 0x3008 && c <= 0x3020) || c == 0x3030 || c == 0x30FB;
  if (cjk_punctuation) return {};
  if (unspaced) return {Letter::kSingle, c};
  if (c >= 0xFE00 && c <= 0xFE0F) return {Letter::kSkip, c};  // variation selectors
  // Joiners within a word.
  if (c == 0x200C || c == 0x200D || c == 0x2060) return {Letter::kSkip, c};
  if ((c >= 0x2000 && c < 0x2C00) || (c >= 0xE000 && c <= 0xF8FF) || c >= 0xFE10) {
    return c >= 0x10000 && c < 0x1F000 ? Folded{Letter::kLower, c} : Folded{};
  }
  return {Letter::kLower, c};
}

void AppendUtf8(uint32_t c, std::string& out) {
  if (c < 0x80) {
    out += static_cast<char>(c);
    return;
  }
  if (c >= 0x10000) out += static_cast<char>(0xF0 | (c >> 18));
  if (c >= 0x800)
    out += static_cast<char>(c >= 0x10000 ? 0x80 | ((c >> 12) & 63) : 0xE0 | (c >> 12));
  out += static_cast<char>(c >= 0x800 ? 0x80 | ((c >> 6) & 63) : 0xC0 | (c >> 6));
  out += static_cast<char>(0x80 | (c & 63));
}

bool EndsWith(std::string_view word, std::string_view ending) { return word.ends_with(ending); }

// Whether `word` has a vowel. An ending is only removed if the rest has one: "being" loses -ing,
// "string" keeps it.
bool HasVowel(std::string_view word) {
  return word.find_first_of("aeiouy") != std::string_view::npos;
}

bool IsVowel(char c) { return c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u'; }

// A light English stemmer. It replaces irregular forms, then removes endings of number, tense or
// degree, but never endings that change the part of speech. It is light because a wrong merge takes
// the weight of a rare name away, while a missed merge costs little. Words of other scripts do not
// change.
std::string_view Stem(std::string& word) {
  const bool letters =
      std::all_of(word.begin(), word.end(), [](char c) { return c >= 'a' && c <= 'z'; });
  if (!letters) return word;
  if (const std::string_view base = EnglishBaseForm(word); !base.empty()) word = base;
  if (word.size() < 3) return word;
  if (EndsWith(word, "ies") || EndsWith(word, "ied")) {
    word.resize(word.size() - (word.size() == 4 ? 1 : 2));  // "ties" becomes "tie", "flies" "fly"
  } else if (EndsWith(word, "sses")) {
    word.resize(word.size() - 2);
  } else if (word.size() > 3 && EndsWith(word, "s") && !EndsWith(word, "ss") &&
             !EndsWith(word, "us") && !EndsWith(word, "is")) {
    word.pop_back();
  }
  const size_t size = word.size();
  size_t cut = 0;
  if (EndsWith(word, "ing") && size >= 6) {
    cut = 3;
  } else if (EndsWith(word, "ed") && !EndsWith(word, "eed") && size >= 5) {
    cut = 2;
  } else if ((EndsWith(word, "eth") || EndsWith(word, "est")) && size >= 7) {
    cut = 3;
  } else if (EndsWith(word, "ly") && size >= 6) {
    cut = 2;
  }
  if (cut > 0 && HasVowel(std::string_view(word).substr(0, size - cut))) {
    word.resize(size - cut);
    const char last = word.back();
    // "running" becomes "run", but "adding" "add" and "agreeing" "agree".
    const bool doubled = word.size() >= 4 && word[word.size() - 2] == last && !IsVowel(last);
    if (doubled && last != 'l' && last != 's' && last != 'z') word.pop_back();
  }
  if (word.size() > 3 && word.back() == 'e') word.pop_back();
  // "day" changes too, to match "days".
  if (word.size() > 2 && word.back() == 'y') word.back() = 'i';
  return word;
}

uint32_t WordId(std::string& word) {
  const uint64_t form = Hash64(word);
  const uint64_t stem = Hash64(Stem(word));
  return static_cast<uint32_t>(stem >> 38 << 6) | static_cast<uint32_t>(form & 63);
}

// Stems of function words, which shape a sentence but say little about its subject. Their frequency
// in the memory is no sufficient guide: "what" and "did" are rare in a narrative and frequent in
// questions about it. Their weight is halved. Dropping them would break phrases like "pillar of
// salt"; using their frequency alone gave 29 of 37 questions among the first four, halving 31.
const std::vector<uint32_t>& FunctionStems() {
  static const std::vector<uint32_t> stems = [] {
    std::vector<uint32_t> out;
    for (const char* word :
         {"the",  "a",     "an",    "of",   "and",   "or",     "in",    "on",    "at",   "to",
          "for",  "from",  "by",    "with", "as",    "is",     "are",   "was",   "were", "be",
          "been", "did",   "do",    "does", "done",  "has",    "have",  "had",   "what", "which",
          "who",  "whom",  "whose", "when", "where", "why",    "how",   "many",  "much", "that",
          "this", "these", "those", "it",   "its",   "he",     "his",   "him",   "she",  "her",
          "they", "them",  "their", "i",    "you",   "your",   "my",    "we",    "our",  "us",
          "me",   "not",   "no",    "if",   "then",  "so",     "but",   "there", "into", "out",
          "up",   "will",  "would", "can",  "could", "should", "shall", "may"}) {
      std::string copy = word;
      out.push_back(WordId(copy) >> 6);
    }
    std::sort(out.begin(), out.end());
    return out;
  }();
  return stems;
}

// Assembles code points into words.
class WordBuilder {
 public:
  explicit WordBuilder(std::vector<LexicalWord>& out) : out_(out) {}

  // Adds a code point that occupies tokens [begin, end).
  void Put(uint32_t code, uint32_t begin, uint32_t end) {
    const Folded folded = Fold(code);
    if (folded.letter == Letter::kSkip) {
      if (!text_.empty()) end_ = end;
      return;
    }
    const bool digit = folded.letter == Letter::kDigit;
    if (folded.letter == Letter::kBreak || folded.letter == Letter::kSingle ||
        digit != (last_ == Letter::kDigit) ||
        (folded.letter == Letter::kUpper && last_ == Letter::kLower) ||
        text_.size() >= kWordBytesMax) {
      Flush();
    }
    if (folded.letter == Letter::kBreak) return;
    const bool ascii = code < 0x80 && !text_.empty() && (text_.back() & 0x80) == 0;
    if (folded.letter == Letter::kLower && ascii && capitals_ >= 2 && lowers_ == 1)
      EndBeforeLastCapital();
    if (text_.empty()) {
      begin_ = begin;
      capitals_ = lowers_ = 0;
    }
    if (folded.letter == Letter::kUpper) {
      ++capitals_;
      before_capital_end_ = end_;
      capital_begin_ = begin;
    }
    if (folded.letter == Letter::kLower) ++lowers_;
    end_ = end;
    AppendUtf8(folded.code, text_);
    last_ = folded.letter;
    if (folded.letter == Letter::kSingle) Flush();
  }

  void Flush() {
    if (text_.empty()) return;
    out_.push_back({.id = WordId(text_), .begin = begin_, .end = end_});
    text_.clear();
  }

 private:
  // Of "LRUCa": ends the word after "LRU" and goes on with "Ca". Must hold: the last two letters
  // are a capital and a lower-case letter, both ASCII.
  void EndBeforeLastCapital() {
    std::string rest = text_.substr(text_.size() - 2);
    text_.resize(text_.size() - 2);
    out_.push_back({.id = WordId(text_), .begin = begin_, .end = before_capital_end_});
    text_ = std::move(rest);
    begin_ = capital_begin_;
    capitals_ = 1;
  }

  std::vector<LexicalWord>& out_;
  std::string text_;
  // Of the word so far: capitals in it, lower-case letters after the last capital, where the last
  // capital begins, and where the letter before it ends.
  uint32_t capitals_ = 0, lowers_ = 0;
  uint32_t capital_begin_ = 0, before_capital_end_ = 0;
  uint32_t begin_ = 0;
  uint32_t end_ = 0;
  Letter last_ = Letter::kBreak;
};

}  // namespace

bool IsFunctionWord(uint32_t stem) {
  return std::binary_search(FunctionStems().begin(), FunctionStems().end(), stem);
}

LexicalVocabulary::LexicalVocabulary(std::vector<std::string> pieces)
    : pieces_(std::move(pieces)) {}

std::vector<LexicalWord> LexicalVocabulary::Words(std::span<const TokenId> tokens) const {
  std::vector<LexicalWord> words;
  words.reserve(tokens.size());
  WordBuilder builder(words);
  uint32_t code = 0;        // of the incomplete character
  uint32_t code_begin = 0;  // token in which it begins
  int missing = 0;          // bytes of it that are still to come
  for (uint32_t t = 0; t < tokens.size(); ++t) {
    const TokenId id = tokens[t];
    if (id < 0 || static_cast<size_t>(id) >= pieces_.size() || pieces_[id].empty()) {
      builder.Flush();
      missing = 0;
      continue;
    }
    for (const char c : pieces_[id]) {
      const auto byte = static_cast<uint8_t>(c);
      if (missing > 0 && (byte & 0xC0) == 0x80) {
        code = code << 6 | (byte & 63);
        if (--missing == 0) builder.Put(code, code_begin, t + 1);
        continue;
      }
      missing = 0;
      if (byte < 0x80) {
        builder.Put(byte, t, t + 1);
      } else if (byte >= 0xC2 && byte < 0xF5) {
        missing = byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : 1;
        code = byte & (0x3F >> missing);
        code_begin = t;
      }
    }
  }
  builder.Flush();
  return words;
}

}  // namespace longhold
