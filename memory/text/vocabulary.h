// Reads words from tokens: the words that the lexical index stores and that questions search for.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/types.h"

namespace longhold {

// A word as the index stores it. Words with the same Stem() are inflections of one word. Words with
// the same id have the same form.
struct LexicalWord {
  uint32_t id = 0;  // hash of the stem (high 26 bits) and of the form (low 6 bits)
  // The tokens that contain the word: [begin, end) of the token sequence. Never empty.
  uint32_t begin = 0;
  uint32_t end = 0;

  uint32_t Stem() const { return id >> 6; }
  friend bool operator==(const LexicalWord&, const LexicalWord&) = default;
};

// Whether `stem` is that of an English function word ("the", "of"), which says little about the
// subject of a sentence.
bool IsFunctionWord(uint32_t stem);

// Reads words from token sequences. Holds the text of every token of one vocabulary. *immutable*.
//
// Rules (stored segments depend on them; change kLexicalRules when they change):
//   - A word is a run of letters or a run of ASCII digits. White space, punctuation and symbols end
//     it. A change from lower to upper case also ends it: "readFile" is two words. In ASCII,
//     several upper-case letters before lower-case ones end before the last: "LRUCache" is "lru"
//     and "cache", but "URLs" is one word. A change between letters and digits and a length of 64
//     bytes end it too.
//   - In scripts without spaces (Chinese, Japanese, Thai, ...), Hangul and emoji, every code point
//     is a word.
//   - Letter case is folded in Latin, Greek, Cyrillic and Armenian. Latin accents and combining
//     marks are removed.
//   - ASCII words that are irregular English forms (memory/text/english_irregular.h) become their
//     base form. Then English inflection endings are removed (plural, -ed, -ing, -ly, archaic -eth
//     and -est). Words of other languages match only in the same form.
inline constexpr uint32_t kLexicalRules = 3;

class LexicalVocabulary {
 public:
  // `pieces[id]` is the text of token `id` in bytes. It need not be whole UTF-8 characters:
  // characters are assembled across tokens. Pass control tokens as the empty string: they end a
  // word. The SentencePiece character U+2581 is read as a space.
  explicit LexicalVocabulary(std::vector<std::string> pieces);

  // The words of consecutive tokens, in order. Ids outside the vocabulary end a word. Malformed
  // UTF-8 is skipped.
  std::vector<LexicalWord> Words(std::span<const TokenId> tokens) const;
  uint32_t size() const { return static_cast<uint32_t>(pieces_.size()); }
  std::span<const std::string> pieces() const { return pieces_; }

 private:
  std::vector<std::string> pieces_;
};

}  // namespace longhold
