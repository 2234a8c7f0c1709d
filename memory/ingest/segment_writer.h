// Stores the blocks of one document, and seals its index segments at each commit. Both ways to get
// keys and values end here: reading by a model (ingest.h) and rows from another engine
// (document_writer.h).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "attention/geometry.h"
#include "attention/rope.h"
#include "base/parallel.h"
#include "base/status.h"
#include "memory/core/memory.h"
#include "memory/index/segment_keys.h"
#include "memory/index/summaries.h"
#include "memory/text/vocabulary.h"

namespace longhold {

// Owner: who writes the document. Thread use: *confined*. Memory: that of SegmentKeys.
class SegmentWriter {
 public:
  // Borrows all of them. Must hold: the document exists, `geometry` is that of the memory's model.
  SegmentWriter(Memory* memory, const LexicalVocabulary* vocabulary, const KvGeometry& geometry,
                ParallelFor parallel, DocumentId document);

  // Continues after the document's last commit. An unfinished segment's keys come from `keys` (what
  // SaveKeys gave), or, where that is null, from its blocks, which `block` returns. Errors:
  // data_loss.
  Status Restore(const std::string* keys, const std::function<const KvBlock&(uint32_t)>& block);
  // Stores blocks, which follow each other from block `first` on. Only the document's last block
  // may have fewer than 64 tokens. Must hold: the first follows what was stored before.
  Status Append(uint32_t first, std::span<const KvBlock> blocks);
  // Commits all tokens before `end`. `resume` and `retire` as Memory::Commit has them. Does nothing
  // where they are committed already. Must hold: all of them were appended.
  Status Commit(uint64_t end, const ResumeRecord* resume, const DocumentId* retire);

  uint64_t committed() const { return committed_; }
  // The keys of the unfinished segment, for Restore.
  std::string SaveKeys() const { return keys_.Save(); }

 private:
  Memory& memory_;
  const LexicalVocabulary& vocabulary_;
  const KvGeometry& geometry_;
  const ParallelFor parallel_;
  const DocumentId document_;
  uint64_t committed_ = 0, appended_ = 0;
  // The unfinished index segment: recall-head keys and summaries since the last multiple of
  // kCommitTokens.
  uint64_t begin_ = 0;
  SegmentKeys keys_;
  RopeTables ropes_;  // positions within a block
  SummarySegment summaries_;
};

// Memory::BuildLists after a document's last commit. Without room for lists there are none, and the
// document is scanned: the first question reports what is missing.
Status BuildListsIfRoom(Memory& memory, const ParallelFor& parallel);

}  // namespace longhold
