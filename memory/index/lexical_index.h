// Finds the words of a question in the memory: n-grams of words, weighted by how rare they are.
//
// Purpose: an exact match signal with token positions, used together with the recall heads.
//
// It matches words, not tokens. "Methuselah" has four subword tokens and "METHUSELAH" four other
// ones. After a line break, words are split into other tokens. And "wrestled" should match
// "wrestleth". Measured on questions over the King James Bible (1.2M tokens), correct block among
// the first 1 / 4 / 32: tokens 23 / 26 / 31, stemmed words 25 / 28 / 33 of 37.
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
#include "memory/text/vocabulary.h"

namespace longhold {

// A word added by query expansion: its meaning is close to that of a query word. Value type.
struct ExpansionWord {
  uint32_t stem = 0;
  uint32_t of = 0;    // the stem of the query word that it expands
  TokenId token = 0;  // a token that is this word
  double weight = 0;  // how much a match counts compared with the query word: 0..1
};

inline constexpr uint32_t kLexicalSegmentTokensMax = 65536;

// The words of consecutive tokens of one document. Memory seals one segment every 4,096 tokens.
// Immutable; published once. Persisted by Memory as bytes (docs/formats/index.md): about 5 bytes
// per token.
struct LexicalSegment {
  DocumentId document{};
  uint64_t token_begin = 0;  // first token of the segment in its document; a multiple of 64
  uint32_t token_count = 0;  // 1..kLexicalSegmentTokensMax
  // The first word began before this segment. This segment holds the whole word; the segment before
  // holds a cut form of it.
  bool continues = false;
  std::vector<uint32_t> words;   // [words] LexicalWord::id
  std::vector<uint16_t> begins;  // [words] first token within the segment, ascending
  std::vector<uint8_t> lengths;  // [words] tokens, 1..255

  // `preceding` are the document's tokens right before `token_begin`. With them, a word that
  // crosses the segment's edge is whole in the later segment. 16 tokens are enough for words of up
  // to 16 tokens; pass none at the start of a document. Must hold: token_begin is a multiple of 64,
  // and there are 1..kLexicalSegmentTokensMax tokens.
  static LexicalSegment Build(const LexicalVocabulary& vocabulary, DocumentId document,
                              uint64_t token_begin, std::span<const TokenId> preceding,
                              std::span<const TokenId> tokens);
  // Exclusive.
  uint64_t token_end() const { return token_begin + token_count; }
  std::string Encode() const;
  // Errors: data_loss on anything wrong; failed_precondition when another version's format or word
  // rules made it (rebuild the segment from its tokens). Allocates at most a few times
  // bytes.size().
  static Result<LexicalSegment> Decode(std::string_view bytes);

  // Checks what every reader relies on. Returns null if all is well, else a description of the
  // fault.
  const char* Fault() const;

  friend bool operator==(const LexicalSegment&, const LexicalSegment&) = default;
};

// A place in the memory where consecutive words of the query occur. Maximal: neither end can be
// extended.
struct LexicalMatch {
  DocumentId document{};
  TokenSpan span;    // the tokens of the words; may cross blocks and segments
  double score = 0;  // sum of the weights of its n-grams
  // The matched words of the query: [query_begin, query_begin + query_words).
  uint32_t query_begin = 0;
  uint32_t query_words = 0;
};

// The scores of one query over all blocks, and the matches that produced them.
struct LexicalResult {
  struct BlockScore {
    BlockKey block;
    double score = 0;
    // The place in the block where matches are densest. The block's first token when all matches
    // are in neighbouring blocks.
    uint64_t peak_token = 0;
    double related = 0;  // the part of the score that only query expansion adds
  };
  // Descending by score, then ascending by block key. At most `max_blocks`. All scores are above 0.
  std::vector<BlockScore> blocks;
  // Blocks that together explain the query. Each one is chosen for the words that those before it
  // leave unexplained. A question that names several things needs a place for each, even if one
  // block explains most of it. The first is blocks[0]. At most kLexicalCoverMax.
  struct Complement {
    // Its score is over the whole query; its peak is at the words that are new with it.
    BlockScore block;
    double gain = 0;  // its score over the words that were still unexplained
  };
  std::vector<Complement> cover;
  // Matches that begin in those blocks: at most kLexicalMatchesPerBlock per block, descending by
  // score.
  std::vector<LexicalMatch> matches;
  // The score of a block that contains every n-gram of the query once. score / query_score is how
  // much of the query a block explains. A word that is not in the memory weighs as much as a word
  // that is in one block.
  double query_score = 0;
  // One word of the query.
  struct Word {
    uint32_t block_count = 0;  // blocks in which it begins; 0: it is not in the memory
    double weight = 0;         // of the word as a unigram, as in Query
    bool function_word = false;
  };
  std::vector<Word> words;  // [query words, or the last kLexicalQueryWordsMax of them]
};

inline constexpr uint32_t kLexicalMatchesPerBlock = 8;
inline constexpr size_t kLexicalCoverMax = 8;
// The least gain of a block in a cover, as a share of query_score. Below this, the block usually
// adds only a function word or a phrase of words that are already explained.
inline constexpr double kLexicalCoverGainMin = 0.04;

// The places of one sequence of words, if it is rare.
struct LexicalPlaces {
  struct Place {
    DocumentId document{};
    TokenSpan span;  // the tokens of the words; may cross blocks and segments
  };
  // Number of blocks in which the sequence begins. Counting stops at one more than `blocks_max`.
  uint32_t block_count = 0;
  double weight = 0;           // idf of block_count, as in LexicalIndex::Query
  bool function_word = false;  // it is a single English function word
  // In the memory's order, at most kLexicalMatchesPerBlock per block. Empty when the sequence is in
  // more than `blocks_max` blocks.
  std::vector<Place> places;
};
// Only the last words of a longer query count, because the question is at the end of a message.
inline constexpr uint32_t kLexicalQueryWordsMax = 256;
inline constexpr uint32_t kLexicalKeyWordsMax = 8;

// Owner: Memory. Thread use: *external* for Add and Remove. const methods are safe to call
// concurrently between them.
class LexicalIndex {
 public:
  // Adds a segment. It replaces an older one of the same document and token range. Errors:
  // invalid_argument when it is malformed or overlaps another segment.
  Status Add(std::shared_ptr<const LexicalSegment> segment);
  void Remove(DocumentId document);
  uint64_t token_count() const { return token_count_; }
  uint64_t block_count() const { return block_count_; }
  // Whether a word with this stem may be in the index. False is certain. True is wrong for one
  // absent stem in some hundreds.
  bool MayHold(uint32_t stem) const { return !may_hold_.empty() && may_hold_[stem % kMayHoldBits]; }

  // Scores every block by the distinct n-grams of the query's stems, n = 1..4, that begin in it or
  // near it.
  //   idf(g)    = ln(1 + (blocks - df + 1/2) / (df + 1/2))
  //               df = number of blocks in which an occurrence of g begins;
  //               idf is 0 when df is more than 64 and more than half of the blocks
  //   weight(g) = idf(g), halved for English function words                     n = 1
  //             = 0.6 / n * min(idf(g), sum of its words' weights)              n > 1
  //   tf(g, w)  = sum over occurrences of g of near * form
  //               near = 1 if the occurrence begins in window w,
  //                      0.3 * (64 - d) / 64 at a distance of d = 1..64 tokens from w
  //               form = 1 if every word has a form that the query has too,
  //                      0.7 otherwise (another inflection)
  //   score(w)  = sum over g of weight(g) * 1.4 * tf / (tf + 0.4)
  //   score(b)  = largest score of its windows of 64 tokens: the block itself, and each window
  //               across one of its edges (32 tokens on either side, both with weight) that has
  //               more weight in b than on the other side
  //
  // Every n-gram has its own frequency. So the tokens of an identifier or a number may be common
  // while their sequence is rare. Adjacent words score higher, and words in any order within a
  // window add up. Windows across edges keep needles that straddle a block edge in first place (40
  // of 40, without them 39). Matches near a window give context: 61% of 400 paraphrased verses rank
  // first, 57% without it. Cost: one pass over all words and some work per occurrence. Over 1.2M
  // tokens: median 6 to 8 ms, 99% 8 to 12 ms of one core. A sorted n-gram array per segment was
  // planned and not built. It needs half as much memory again. By estimate, its 256 segments x 40
  // words x 4 lengths of binary searches cost as much as the pass.
  //
  // If a window lacks a query word, or holds another inflection of it, an expansion word from
  // `related` may score instead:
  //   related(r, w) = r.weight * min(idf(r), idf of the query word) * 1.4 * tf / (tf + 0.4)
  //                   tf = tf(r, w) with form = 1
  // The largest related(r, w) of a query word counts if it is more than the word's own score in the
  // window. Expansion words are not part of phrases. They alone do not put a block into `cover`.
  LexicalResult Query(std::span<const LexicalWord> query, std::span<const ExpansionWord> related,
                      size_t max_blocks) const;
  LexicalResult Query(std::span<const LexicalWord> query, size_t max_blocks) const {
    return Query(query, {}, max_blocks);
  }

  // For each of `keys`, returns the places where its words' stems occur in that order, if these
  // begin in at most `blocks_max` blocks. A key (a bridge term of multi-hop retrieval) is one word
  // or several in a row. Keys of no words, or of more than kLexicalKeyWordsMax, have no places.
  // Cost: one pass over all words for all keys together. Places of common keys are not kept.
  std::vector<LexicalPlaces> Places(std::span<const std::vector<LexicalWord>> keys,
                                    uint32_t blocks_max) const;

 private:
  // Ascending by (document, token_begin).
  std::vector<std::shared_ptr<const LexicalSegment>> segments_;
  uint64_t token_count_ = 0;
  uint64_t block_count_ = 0;
  static constexpr uint32_t kMayHoldBits = 1u << 23;  // one mebibyte
  // [kMayHoldBits] indexed by the stems' low bits. Empty before the first segment.
  std::vector<bool> may_hold_;
};

}  // namespace longhold
