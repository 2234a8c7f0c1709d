#include "memory/recall/block_cache.h"

#include <algorithm>
#include <set>
#include <utility>

namespace longhold {

void AppendRows(const PlannedSpan& span, size_t index, std::vector<BlockRows>* rows) {
  for (const TokenSpan& tokens : {span.date_line, span.tokens}) {
    for (uint64_t b = tokens.begin / kBlockTokens; b * kBlockTokens < tokens.end; ++b) {
      const uint64_t base = b * kBlockTokens;
      rows->push_back(
          {.span = index,
           .key = {span.document, static_cast<uint32_t>(b)},
           .row_begin = static_cast<uint32_t>(std::max(tokens.begin, base) - base),
           .row_end = static_cast<uint32_t>(std::min(tokens.end, base + kBlockTokens) - base)});
    }
  }
}

std::vector<NeededRows> UnreadRows(const Memory& memory, std::span<const BlockRows> rows) {
  std::vector<NeededRows> unread;
  for (const BlockRows& r : rows) {
    const uint64_t end = uint64_t{r.key.block} * kBlockTokens + r.row_end;
    if (UnreadBlocks::IsUnread(memory, r.key.document, end))
      unread.push_back({r.key, r.row_begin, r.row_end});
  }
  return unread;
}

Status BlockCache::Load(std::span<const BlockRows> rows, const ParallelFor& parallel) {
  std::set<BlockKey> wanted, unread;
  std::vector<NeededRows> needed;
  for (const NeededRows& r : UnreadRows(*memory_, rows)) {
    unread.insert(r.key);
    const auto there = blocks_.find(r.key);
    if (there == blocks_.end() || there->second.block->tokens < r.end) needed.push_back(r);
  }
  for (const BlockRows& r : rows) {
    if (!blocks_.contains(r.key)) wanted.insert(r.key);
  }
  LH_RETURN_IF_ERROR(reservation_.Resize((blocks_.size() + wanted.size()) * BlockBytes()));
  if (!needed.empty()) {
    LH_ASSIGN_OR_RETURN(auto read, unread_->Load(needed));
    for (auto& [key, block] : read) {
      if (unread.contains(key)) blocks_[key].block = std::move(block);
    }
  }
  std::vector<std::pair<const BlockKey, Loaded>*> missing;
  for (const BlockKey& key : wanted) {
    if (!unread.contains(key)) missing.push_back(&*blocks_.try_emplace(key).first);
  }
  parallel(missing.size(), [&](size_t i) {
    missing[i]->second.block = memory_->LoadBlock(missing[i]->first, &missing[i]->second.bytes);
  });
  return OkStatus();
}

const KvBlock* BlockCache::Find(const BlockRows& rows) const {
  const Loaded& loaded = blocks_.at(rows.key);
  return loaded.block.ok() && loaded.block->tokens >= rows.row_end ? &*loaded.block : nullptr;
}

void BlockCache::KeepOnly(std::span<const PlannedSpan> spans) {
  std::vector<BlockRows> rows;
  for (size_t i = 0; i < spans.size(); ++i) AppendRows(spans[i], i, &rows);
  std::set<BlockKey> needed;
  for (const BlockRows& r : rows) needed.insert(r.key);
  std::erase_if(blocks_, [&](const auto& entry) { return !needed.contains(entry.first); });
  LH_CHECK(reservation_.Resize(blocks_.size() * BlockBytes()).ok());
}

void BlockCache::Clear() {
  blocks_.clear();
  LH_CHECK(reservation_.Resize(0).ok());
}

Status BlockCache::Reserve(size_t blocks) {
  return reservation_.Resize(std::max(reservation_.bytes(), blocks * BlockBytes()));
}

}  // namespace longhold
