#include "memory/ingest/text_segments.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

namespace longhold {

Result<TextSegmentPair> BuildTextSegments(Memory& memory, const LexicalVocabulary& vocabulary,
                                          DocumentId document, uint64_t end) {
  const uint64_t begin = (end - 1) / kCommitTokens * kCommitTokens;
  LH_ASSIGN_OR_RETURN(
      const std::vector<TokenId> preceding,
      memory.Tokens(document, {begin - std::min<uint64_t>(begin, kPrecedingTokens), begin}));
  LH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, memory.Tokens(document, {begin, end}));
  TextSegmentPair text{.lexical = std::make_shared<const LexicalSegment>(
                           LexicalSegment::Build(vocabulary, document, begin, preceding, tokens))};
  if (memory.embedder() == nullptr) return text;
  LH_ASSIGN_OR_RETURN(const TokenText passages, memory.TextOf(document, {begin, end}));
  LH_ASSIGN_OR_RETURN(PassageSegment segment,
                      PassageSegment::Build(*memory.embedder(), document, memory.Get(document).name,
                                            begin, passages));
  text.passages = std::make_shared<const PassageSegment>(std::move(segment));
  return text;
}

Status MakeDocumentSearchable(Memory& memory, const LexicalVocabulary& vocabulary,
                              DocumentId document, const DocumentId* retire,
                              const std::atomic<bool>* stop,
                              const std::function<void(uint64_t tokens)>& on_segment) {
  const uint64_t tokens = memory.Get(document).tokens;
  for (uint64_t at = memory.Get(document).searchable_tokens; at < tokens;) {
    if (stop != nullptr && stop->load()) return OkStatus();
    at = std::min(tokens, at / kCommitTokens * kCommitTokens + kCommitTokens);
    LH_ASSIGN_OR_RETURN(const TextSegmentPair text,
                        BuildTextSegments(memory, vocabulary, document, at));
    LH_RETURN_IF_ERROR(memory.MakeSearchable(document, at, text, at == tokens ? retire : nullptr));
    if (on_segment) on_segment(at);
  }
  return OkStatus();
}

}  // namespace longhold
