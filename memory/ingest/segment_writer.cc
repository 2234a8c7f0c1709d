#include "memory/ingest/segment_writer.h"

#include <algorithm>
#include <utility>

#include "memory/ingest/text_segments.h"

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
  appended_ = committed_;
  return OkStatus();
}

Status SegmentWriter::Append(uint32_t first, std::span<const KvBlock> blocks) {
  LH_CHECK(uint64_t{first} * kBlockTokens == appended_);
  for (const KvBlock& block : blocks) {
    keys_.Append(block, block.tokens);
    summaries_.Append(block, block.tokens, ropes_);
  }
  LH_RETURN_IF_ERROR(memory_.PutBlocks(document_, first, blocks, parallel_));
  for (const KvBlock& block : blocks) appended_ += block.tokens;
  return OkStatus();
}

Status SegmentWriter::Commit(uint64_t end, const ResumeRecord* resume, const DocumentId* retire) {
  if (end == committed_) return OkStatus();
  LH_CHECK(end == appended_);
  SealedSegments segments{
      .text = {}, .scan = keys_.Build(document_, begin_), .summaries = &summaries_};
  if (end > memory_.Get(document_).searchable_tokens) {
    LH_ASSIGN_OR_RETURN(segments.text, BuildTextSegments(memory_, vocabulary_, document_, end));
  }
  LH_RETURN_IF_ERROR(memory_.Commit(document_, end, segments, resume, retire));
  committed_ = end;
  LH_RETURN_IF_ERROR(memory_.LearnBasis());
  if (end % kCommitTokens != 0) return OkStatus();
  begin_ = end;
  keys_.Clear();
  summaries_ = SummarySegment::Of(document_, static_cast<uint32_t>(end / kBlockTokens), geometry_);
  return OkStatus();
}

Status BuildListsIfRoom(Memory& memory, const ParallelFor& parallel) {
  const Status lists = memory.BuildLists(parallel);
  return lists.code() == StatusCode::kResourceExhausted ? OkStatus() : lists;
}

}  // namespace longhold
