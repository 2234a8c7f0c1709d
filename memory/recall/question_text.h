// The memory's text as the stages of one question read it: fetched once, split into words once.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <tuple>
#include <vector>

#include "base/status.h"
#include "base/types.h"
#include "memory/core/memory.h"
#include "memory/text/vocabulary.h"

namespace longhold {

// Owner: one question. Thread use: *confined*. What it returns lives as long as it does.
class QuestionText {
 public:
  // Borrows both.
  QuestionText(Memory* memory, const LexicalVocabulary* vocabulary)
      : memory_(memory), vocabulary_(vocabulary) {}
  QuestionText(const QuestionText&) = delete;
  QuestionText& operator=(const QuestionText&) = delete;

  // Must hold: span.end <= the document's tokens. Errors: data_loss.
  Result<std::span<const TokenId>> Tokens(DocumentId document, TokenSpan span);
  // The words of those tokens; their places count from span.begin.
  Result<std::span<const LexicalWord>> Words(DocumentId document, TokenSpan span);
  // Memory::SentenceAt.
  Result<TokenSpan> SentenceAt(DocumentId document, uint64_t at, uint32_t reach_tokens);

 private:
  // Around what is asked for, that much more is fetched: its sentences reach so far.
  static constexpr uint64_t kAroundTokens = 128;
  struct Region {
    TokenSpan span;
    std::vector<TokenId> tokens;
  };
  using Place = std::tuple<DocumentId, uint64_t, uint64_t>;

  Memory* const memory_;
  const LexicalVocabulary* const vocabulary_;
  std::map<DocumentId, std::vector<std::unique_ptr<const Region>>> regions_;
  std::map<Place, std::vector<LexicalWord>> words_;            // by begin and end
  std::map<std::pair<Place, uint32_t>, TokenSpan> sentences_;  // by token and reach
};

}  // namespace longhold
