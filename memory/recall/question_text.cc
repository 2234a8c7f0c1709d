#include "memory/recall/question_text.h"

#include <algorithm>
#include <utility>

namespace longhold {

Result<std::span<const TokenId>> QuestionText::Tokens(DocumentId document, TokenSpan span) {
  auto& regions = regions_[document];
  const auto slice = [&](const Region& region) {
    return std::span(region.tokens).subspan(span.begin - region.span.begin, span.size());
  };
  for (const auto& region : regions) {
    if (region->span.begin <= span.begin && span.end <= region->span.end) return slice(*region);
  }
  TokenSpan wide{span.begin - std::min(span.begin, kAroundTokens),
                 std::min(span.end + kAroundTokens, memory_->Get(document).tokens)};
  Result<std::vector<TokenId>> tokens = memory_->Tokens(document, wide);
  if (!tokens.ok()) {  // what stands around it may be damaged, and it may not be
    wide = span;
    tokens = memory_->Tokens(document, wide);
  }
  if (!tokens.ok()) return tokens.status();
  regions.push_back(
      std::make_unique<const Region>(Region{.span = wide, .tokens = std::move(*tokens)}));
  return slice(*regions.back());
}

Result<std::span<const LexicalWord>> QuestionText::Words(DocumentId document, TokenSpan span) {
  const Place place{document, span.begin, span.end};
  auto found = words_.find(place);
  if (found == words_.end()) {
    LH_ASSIGN_OR_RETURN(const std::span<const TokenId> tokens, Tokens(document, span));
    found = words_.emplace(place, vocabulary_->Words(tokens)).first;
  }
  return std::span<const LexicalWord>(found->second);
}

Result<TokenSpan> QuestionText::SentenceAt(DocumentId document, uint64_t at,
                                           uint32_t reach_tokens) {
  const std::pair key(Place{document, at, at}, reach_tokens);
  const auto found = sentences_.find(key);
  if (found != sentences_.end()) return found->second;
  LH_ASSIGN_OR_RETURN(const TokenSpan sentence, memory_->SentenceAt(document, at, reach_tokens));
  sentences_.emplace(key, sentence);
  return sentence;
}

}  // namespace longhold
