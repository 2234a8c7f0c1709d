// Finds where the words of a question stand in the memory: n-grams of words, weighted by how rare
// they are.
//
// Purpose: an exact, position-level match signal beside the recall heads.
//
// Words, not tokens, are matched: "Methuselah" is four subword pieces and other four in
// "METHUSELAH", pieces split differently after a line break, and "wrestled" should meet
// "wrestleth". Measured on questions over the King James Bible (1.2M tokens), right block among the
// first 1 / 4 / 32: pieces 23 / 26 / 31, stemmed words 25 / 28 / 33 of 37.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"

namespace longhold {

// A word as the index sees it. Words with the same Stem() are inflections of one word; equal ids
// are the same form.
struct LexicalWord {
  uint32_t id = 0;  // stem hash, 26 bits, above form hash, 6 bits
  // the tokens that hold it: [begin, end) of the sequence that was read. Not empty.
  uint32_t begin = 0;
  uint32_t end = 0;

  uint32_t Stem() const { return id >> 6; }
  friend bool operator==(const LexicalWord&, const LexicalWord&) = default;
};

// A word that means nearly what a word of a query means. Value type.
struct ExpansionWord {
  uint32_t stem = 0;
  uint32_t of = 0;    // the stem of the query's word
  TokenId token = 0;  // one that is this word
  double weight = 0;  // how much of a match it is: 0..1
};

// Whether the stem is an English function word's: it says how a sentence is built rather than what
// it is about.
bool IsFunctionWord(uint32_t stem);

// Reads words out of token sequences. Knows the text of every token of one vocabulary; *immutable*.
//
// Rules (a contract of the stored segments; kLexicalRules changes with them):
//   - A word is a run of letters or a run of ASCII digits. White space, punctuation and symbols end
//   it, as does a change
//     from lower to upper case ("readFile" is two words), from letter to digit, and a length of 64
//     bytes.
//   - Scripts written without spaces (Chinese, Japanese, Thai, ...), Hangul and emoji: every code
//   point is a word.
//   - Letter case folds in Latin, Greek, Cyrillic and Armenian; Latin accents and combining marks
//   are dropped.
//   - ASCII words that are irregular English forms (memory/text/english_irregular.h) become their
//   base form; then they lose
//     English inflection endings (plural, -ed, -ing, -ly, archaic -eth and -est). Other languages
//     match by form only.
inline constexpr uint32_t kLexicalRules = 2;

class LexicalVocabulary {
 public:
  // `pieces[id]` is the text of token `id` in bytes, which need not be whole UTF-8 characters:
  // characters are put together across tokens. Give control tokens as the empty string: they end a
  // word. The SentencePiece mark U+2581 is a space.
  explicit LexicalVocabulary(std::vector<std::string> pieces);

  // The words of consecutive tokens, in order. Ids outside the vocabulary end a word; malformed
  // UTF-8 is skipped.
  std::vector<LexicalWord> Words(std::span<const TokenId> tokens) const;
  uint32_t size() const { return static_cast<uint32_t>(pieces_.size()); }
  std::span<const std::string> pieces() const { return pieces_; }

 private:
  std::vector<std::string> pieces_;
};

inline constexpr uint32_t kLexicalSegmentTokensMax = 65536;

// The words of consecutive tokens of one document; Memory seals one every 4,096 tokens. Immutable;
// published once. Persisted by Memory as bytes (docs/formats/index.md); about 5 bytes per token.
struct LexicalSegment {
  DocumentId document{};
  uint64_t token_begin = 0;  // of the segment within its document; a multiple of 64
  uint32_t token_count = 0;  // 1..kLexicalSegmentTokensMax
  // the first word began in the tokens before; here it is whole, there it was cut short
  bool continues = false;
  std::vector<uint32_t> words;   // [words] LexicalWord::id
  std::vector<uint16_t> begins;  // [words] first token within the segment, ascending
  std::vector<uint8_t> lengths;  // [words] tokens, 1..255

  // `preceding` are tokens of the document that stand before `token_begin` (16 are enough for words
  // of up to 16 tokens; none at the start of a document): with them a word that crosses the
  // segment's edge is whole in the later segment. Must hold: token_begin is a multiple of
  // 64; 1..kLexicalSegmentTokensMax tokens.
  static LexicalSegment Build(const LexicalVocabulary& vocabulary, DocumentId document,
                              uint64_t token_begin, std::span<const TokenId> preceding,
                              std::span<const TokenId> tokens);
  // Exclusive.
  uint64_t token_end() const { return token_begin + token_count; }
  std::string Encode() const;
  // data_loss on anything wrong; failed_precondition when format or word rules are another
  // version's (rebuild the segment from its tokens). Allocates no more than a few times
  // bytes.size().
  static Result<LexicalSegment> Decode(std::string_view bytes);

  friend bool operator==(const LexicalSegment&, const LexicalSegment&) = default;
};

// A place where consecutive words of the query stand in the memory. Maximal: neither end can be
// extended.
struct LexicalMatch {
  DocumentId document{};
  TokenSpan span;    // the tokens that hold the words; may cross blocks and segments
  double score = 0;  // sum of the weights of the n-grams in it
  // the matched words of the query: [query_begin, query_begin + query_words)
  uint32_t query_begin = 0;
  uint32_t query_words = 0;
};

// Scores of one query over all blocks, and the matches behind them.
struct LexicalResult {
  struct BlockScore {
    BlockKey block;
    double score = 0;
    // Where in the block the matches are densest; its first token when all of them stand in
    // neighbours.
    uint64_t peak_token = 0;
    double related = 0;  // what of the score only related words give
  };
  // descending by score, then ascending by key; at most `max_blocks`; scores > 0
  std::vector<BlockScore> blocks;
  // Blocks that explain the query together, each what those before it leave unexplained: a question
  // that names several things needs a place for each, however well one of them explains the rest.
  // The first is blocks[0]; at most kLexicalCoverMax.
  struct Complement {
    // its score over the whole query; its peak where the words stand that are new with it
    BlockScore block;
    double gain = 0;  // its score over the words that were left
  };
  std::vector<Complement> cover;
  // Beginning in those blocks, at most kLexicalMatchesPerBlock of each; descending by score.
  std::vector<LexicalMatch> matches;
  // What a block would score that held every n-gram of the query once: score / query_score says how
  // much of the query a block explains. Words the memory does not hold weigh as much as words that
  // stand in one block.
  double query_score = 0;
  // A word of the query by itself.
  struct Word {
    uint32_t block_count = 0;  // blocks in which it begins; 0: it stands nowhere in the memory
    double weight = 0;         // of the word alone, as in Query
    bool function_word = false;
  };
  std::vector<Word> words;  // [the query's words, or the last kLexicalQueryWordsMax of them]
};

inline constexpr uint32_t kLexicalMatchesPerBlock = 8;
inline constexpr size_t kLexicalCoverMax = 8;
// What a block must add to a cover, as a share of query_score: less is a function word, or a phrase
// of words that are there.
inline constexpr double kLexicalCoverGainMin = 0.04;

// Where one sequence of words stands, if it is rare.
struct LexicalPlaces {
  struct Place {
    DocumentId document{};
    TokenSpan span;  // the tokens that hold the words; may cross blocks and segments
  };
  // blocks in which it begins; counted up to one more than was asked for
  uint32_t block_count = 0;
  double weight = 0;           // idf of block_count, as in LexicalIndex::Query
  bool function_word = false;  // it is an English function word alone
  // in the memory's order, at most kLexicalMatchesPerBlock of each block; empty when it is in more
  // blocks
  std::vector<Place> places;
};
// Of a longer query the last words count: the question ends a message.
inline constexpr uint32_t kLexicalQueryWordsMax = 256;
inline constexpr uint32_t kLexicalKeyWordsMax = 8;

// Owner: Memory. Thread use: *external* for Add and Remove; const methods are safe to call
// concurrently between them.
class LexicalIndex {
 public:
  // A segment of the same document and token range takes the older one's place. invalid_argument
  // when it is malformed or overlaps another.
  Status Add(std::shared_ptr<const LexicalSegment> segment);
  void Remove(DocumentId document);
  uint64_t token_count() const { return token_count_; }
  uint64_t block_count() const { return block_count_; }
  // False where no word of this stem was ever added; true for all that were and, by chance, for one
  // other in some hundreds.
  bool MayHold(uint32_t stem) const { return !may_hold_.empty() && may_hold_[stem % kMayHoldBits]; }

  // Scores every block by the distinct n-grams of the query's stems, n = 1..4, that begin in it or
  // near it.
  //   idf(g)    = ln(1 + (blocks - df + 1/2) / (df + 1/2)),  df = blocks in which an occurrence of
  //   g begins;
  //               0 when df is more than 64 and more than half of the blocks
  //   weight(g) = idf(g), halved for English function words n = 1
  //             = 0.6 / n * min(idf(g), sum of its words' weights) n > 1
  //   tf(g, w)  = sum over occurrences of g of near * form
  //               near = 1 where it begins in window w, 0.3 * (64 - d) / 64 where d = 1..64 tokens
  //               outside of w; form = 1 when every word has a form that the query has too, else
  //               0.7 (another inflection)
  //   score(w)  = sum over g of weight(g) * 1.4 * tf / (tf + 0.4)
  //   score(b)  = largest score of its windows of 64 tokens: the block itself, and each window
  //   across one of its edges
  //               (32 tokens on either side, both with weight) that has more weight in b than on
  //               the other side
  //
  // Every n-gram has its own frequency, so the pieces of an identifier or a number may be common
  // and their sequence rare. Words that stand next to each other add up, and so do words in any
  // order within a window. Windows across edges keep needles that straddle one in first place (40
  // of 40, else 39). What stands just outside gives context: of 400 paraphrased verses 61% come
  // first, 57% without it. Cost: a pass over all words and some work per occurrence; over 1.2M
  // tokens median 6 to 8 ms, 99% 8 to 12 ms of one core. A sorted n-gram array per segment was
  // planned and not built: half as much memory again, and by estimate its 256 segments x 40 words x
  // 4 lengths of binary searches cost as much as the pass.
  //
  // A block that lacks a word of the query, or has another inflection of it, may have one of
  // `related` instead:
  //   related(r, w) = r.weight * min(idf(r), idf of the query's word) * 1.4 * tf(r, w) / (tf(r, w)
  //   + 0.4), form = 1
  // The largest of a query's word counts where it is more than what the word itself gives the
  // window. Related words are parts of no phrase, and a place is not kept beside others for them
  // alone (`cover`).
  LexicalResult Query(std::span<const LexicalWord> query, std::span<const ExpansionWord> related,
                      size_t max_blocks) const;
  LexicalResult Query(std::span<const LexicalWord> query, size_t max_blocks) const {
    return Query(query, {}, max_blocks);
  }

  // For each of `keys`, one word or several in a row, the places where its stems stand in that
  // order, when these begin in at most `blocks_max` blocks; keys of more than kLexicalKeyWordsMax
  // words, or of none, have none. Cost: one pass over all words, whatever the keys; nothing is kept
  // of common ones.
  std::vector<LexicalPlaces> Places(std::span<const std::vector<LexicalWord>> keys,
                                    uint32_t blocks_max) const;

 private:
  // ascending by (document, token_begin)
  std::vector<std::shared_ptr<const LexicalSegment>> segments_;
  uint64_t token_count_ = 0;
  uint64_t block_count_ = 0;
  static constexpr uint32_t kMayHoldBits = 1u << 23;  // a mebibyte
  // [kMayHoldBits] by the stems' low bits; empty before the first segment
  std::vector<bool> may_hold_;
};

}  // namespace longhold
