#include "memory/ingest/segment_writer.h"

#include <algorithm>
#include <utility>

namespace longhold {

SegmentWriter::SegmentWriter(Memory* memory, const LexicalVocabulary* vocabulary,
                             const KvGeometry& geometry, ParallelFor parallel, DocumentId document)
    : memory_(*memory),
      vocabulary_(*vocabulary),
      geometry_(geometry),
      parallel_(std::move(parallel)),
      document_(document),
      keys_(memory->manifest()),
      ropes_(geometry, kBlockTokens),
      summaries_(SummarySegment::Of(document, 0, geometry)) {}

Status SegmentWriter::Restore(const std::string* keys,
                              const std::function<const KvBlock&(uint32_t)>& block) {
  committed_ = memory_.Get(document_).committed_tokens;
  begin_ = committed_ / kCommitTokens * kCommitTokens;
  if (keys != nullptr) {
    LH_RETURN_IF_ERROR(keys_.Restore(*keys, committed_ - begin_));
  } else {
    for (uint64_t b = begin_ / kBlockTokens; b * kBlockTokens < committed_; ++b)
      keys_.Append(block(static_cast<uint32_t>(b)), kBlockTokens);
  }
  if (begin_ < committed_) {
    uint64_t lost = 0;  // lost blocks get a mean of 0
    LH_ASSIGN_OR_RETURN(
        summaries_, memory_.SummariesOf(document_, static_cast<uint32_t>(begin_ / kCommitTokens),
                                        geometry_, parallel_, &lost));
  } else {
    summaries_ =
        SummarySegment::Of(document_, static_cast<uint32_t>(begin_ / kBlockTokens), geometry_);
  }
  const uint64_t before = std::min(begin_, kPrecedingTokens);
  LH_ASSIGN_OR_RETURN(preceding_, memory_.Tokens(document_, {begin_ - before, begin_}));
  LH_ASSIGN_OR_RETURN(tokens_, memory_.Tokens(document_, {begin_, committed_}));
  return OkStatus();
}

Status SegmentWriter::Append(uint32_t first, std::span<const KvBlock> blocks,
                             std::span<const TokenId> tokens) {
  LH_CHECK(uint64_t{first} * kBlockTokens == begin_ + tokens_.size());
  for (const KvBlock& block : blocks) {
    keys_.Append(block, block.tokens);
    summaries_.Append(block, block.tokens, ropes_);
  }
  LH_RETURN_IF_ERROR(memory_.PutBlocks(document_, first, blocks, parallel_));
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  return OkStatus();
}

Result<std::shared_ptr<const PassageSegment>> SegmentWriter::EmbedTo(uint64_t end) {
  TextEmbedder* const embedder = memory_.embedder();
  if (embedder == nullptr) return std::shared_ptr<const PassageSegment>();
  LH_ASSIGN_OR_RETURN(const TokenText text, memory_.TextOf(document_, {begin_, end}));
  LH_ASSIGN_OR_RETURN(
      PassageSegment passages,
      PassageSegment::Build(*embedder, document_, memory_.Get(document_).name, begin_, text));
  return std::shared_ptr<const PassageSegment>(
      std::make_shared<const PassageSegment>(std::move(passages)));
}

Status SegmentWriter::Commit(uint64_t end, const ResumeRecord* resume, const DocumentId* retire) {
  if (end == committed_) return OkStatus();
  LH_CHECK(end == begin_ + tokens_.size());
  SealedSegments segments{.lexical = std::make_shared<const LexicalSegment>(LexicalSegment::Build(
                              vocabulary_, document_, begin_, preceding_, tokens_)),
                          .scan = keys_.Build(document_, begin_),
                          .summaries = &summaries_};
  LH_ASSIGN_OR_RETURN(segments.passages, EmbedTo(end));
  LH_RETURN_IF_ERROR(memory_.Commit(document_, end, segments, resume, retire));
  committed_ = end;
  LH_RETURN_IF_ERROR(memory_.LearnBasis());
  if (end % kCommitTokens != 0) return OkStatus();
  begin_ = end;
  keys_.Clear();
  summaries_ = SummarySegment::Of(document_, static_cast<uint32_t>(end / kBlockTokens), geometry_);
  preceding_.assign(
      tokens_.end() - static_cast<ptrdiff_t>(std::min<uint64_t>(tokens_.size(), kPrecedingTokens)),
      tokens_.end());
  tokens_.clear();
  return OkStatus();
}

Status BuildListsIfRoom(Memory& memory, const ParallelFor& parallel) {
  const Status lists = memory.BuildLists(parallel);
  return lists.code() == StatusCode::kResourceExhausted ? OkStatus() : lists;
}

}  // namespace longhold
