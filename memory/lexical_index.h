// Finds where the words of a question stand in the memory: n-grams of canonical tokens, weighted by rarity.
//
// Purpose: an exact, position-level match signal beside the recall heads.
// Owner: Memory. Thread use: *external* for Add; const methods are safe to call concurrently between Adds.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"

namespace longhold {

// Maps a token id to its canonical id: tokens that differ only by letter case or by leading white space share one, so that
// "Methuselah", " Methuselah" and " METHUSELAH" match. Tokens without a letter or digit map to kCanonicalBreak unless they
// are pure punctuation that carries meaning in code (kept as themselves). Immutable.
class CanonicalTokens {
 public:
  // `piece(id)` is the text of a token. Cost: one pass over the vocabulary.
  CanonicalTokens(uint32_t vocab_size, const std::vector<std::string>& pieces);
  uint32_t Of(TokenId token) const { return canonical_[static_cast<uint32_t>(token)]; }
  // How many letters or digits the token's text has: a match on more text says more.
  uint8_t Weight(TokenId token) const { return weight_[static_cast<uint32_t>(token)]; }
  uint32_t vocab_size() const { return static_cast<uint32_t>(canonical_.size()); }

 private:
  std::vector<uint32_t> canonical_;
  std::vector<uint8_t> weight_;
};

// One document's segment: canonical tokens and a 4-gram-sorted array of their positions. Immutable; published once.
// Persisted by Memory as bytes (docs/formats/index.md).
struct LexicalSegment {
  DocumentId document{};
  uint64_t token_begin = 0;             // of the segment within its document; a multiple of 64
  std::vector<uint32_t> canonical;      // [tokens]
  std::vector<uint32_t> sorted;         // [tokens] offsets, ordered by their next four canonical tokens

  static LexicalSegment Build(DocumentId document, uint64_t token_begin, std::span<const uint32_t> canonical);
  std::string Encode() const;
  static Result<LexicalSegment> Decode(std::string_view bytes);  // data_loss on anything wrong
};

// A place where part of the question stands in the memory.
struct LexicalMatch {
  DocumentId document{};
  TokenSpan span;        // the matched tokens, extended to their full length
  double score = 0;      // see LexicalIndex::Query
  uint32_t query_begin = 0;  // the matched part of the query: [query_begin, query_begin + span.size())
};

// Scores of one query over all blocks, and the matches behind them.
struct LexicalResult {
  struct BlockScore {
    BlockKey block;
    double score = 0;
    uint64_t peak_token = 0;  // position of the best match's end within the document
  };
  std::vector<BlockScore> blocks;      // descending by score; at most `max_blocks`
  std::vector<LexicalMatch> matches;   // of those blocks; descending by score
};

class LexicalIndex {
 public:
  void Add(std::shared_ptr<const LexicalSegment> segment);
  void Remove(DocumentId document);
  uint64_t token_count() const;

  // Score of a block: sum over maximal distinct query n-grams (n = 1..4, longer matches extended) that stand in it, of
  //   weight(n-gram) = idf(n-gram) * (1 + ln n) * length factor,   idf = ln(1 + blocks / blocks that hold the n-gram)
  // where an n-gram inside a longer matched one of the same place counts once. Unigrams that stand in more than 5% of the
  // blocks are skipped. `query` holds canonical ids.
  LexicalResult Query(std::span<const uint32_t> query, size_t max_blocks) const;

 private:
  std::vector<std::shared_ptr<const LexicalSegment>> segments_;
};

}  // namespace longhold
