// The blocks that one question reads: each is read and decoded once, within the memory budget.
// Where the model has not read the text yet, it reads it now.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/memory_budget.h"
#include "base/status.h"
#include "memory/core/memory.h"
#include "memory/recall/planned_span.h"
#include "memory/recall/unread_blocks.h"

namespace longhold {

// Some rows of one block, as a recalled span wants them. Value type.
struct BlockRows {
  size_t span = 0;  // which of the plan's
  BlockKey key;
  uint32_t row_begin = 0, row_end = 0;
  uint32_t index = 0;      // where its keys go in the working set
  bool assistant = false;  // rows of assistant text: DocumentRecord::assistant_begin

  uint32_t rows() const { return row_end - row_begin; }
};

// The rows that the model has not read.
std::vector<NeededRows> UnreadRows(const Memory& memory, std::span<const BlockRows> rows);

// Appends the rows of `span`, block after block; those of its date line come first.
void AppendRows(const PlannedSpan& span, size_t index, std::vector<BlockRows>* rows);

// Owner: one question. Thread use: *confined*; blocks are read on the model's workers.
class BlockCache {
 public:
  BlockCache(Memory* memory, MemoryReservation reservation, std::unique_ptr<UnreadBlocks> unread)
      : memory_(memory), reservation_(std::move(reservation)), unread_(std::move(unread)) {}

  // Reads those blocks that are not there yet. Errors: resource_exhausted, and nothing is read
  // then; those of UnreadBlocks::Load. A damaged block is no error: see Find.
  Status Load(std::span<const BlockRows> rows, const ParallelFor& parallel);
  // The block that holds the rows; null when it is damaged. Must hold: it was loaded.
  const KvBlock* Find(const BlockRows& rows) const;
  // Size of the block on the disk. Must hold: it was loaded.
  uint64_t StoredBytes(const BlockKey& key) const { return blocks_.at(key).bytes; }
  // Of one decoded block.
  uint64_t BlockBytes() const { return memory_->block_shape().Elements() * sizeof(uint16_t); }

  UnreadBlocks& unread() { return *unread_; }

  // Gives back the blocks that none of `spans` needs.
  void KeepOnly(std::span<const PlannedSpan> spans);
  void Clear();
  // Reserves room for `blocks` in all, or for those that are there. Errors: resource_exhausted.
  Status Reserve(size_t blocks);

 private:
  struct Loaded {
    Result<KvBlock> block = DataLoss("not read");
    uint64_t bytes = 0;
  };

  Memory* const memory_;
  std::map<BlockKey, Loaded> blocks_;
  MemoryReservation reservation_;
  const std::unique_ptr<UnreadBlocks> unread_;
};

}  // namespace longhold
