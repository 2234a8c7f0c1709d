#include "memory/recall/unread_blocks.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "memory/attend/pass_blocks.h"

namespace longhold {
namespace {

// Of one pass: most spans fit with their run-up.
constexpr uint32_t kPassTokensMax = 256;

uint64_t BlockBegin(uint64_t token) { return token / kBlockTokens * kBlockTokens; }

}  // namespace

bool UnreadBlocks::IsStored(const NeededRows& rows) {
  const auto [known, first] = stored_.try_emplace(rows.key);
  if (first) {
    const Result<ProvisionalInfo> found = memory_.FindProvisional(rows.key);
    if (found.ok()) known->second = *found;
  }
  const ProvisionalInfo& info = known->second;
  const bool from_start = info.run_up == uint64_t{rows.key.block} * kBlockTokens;
  return info.tokens >= rows.end && (from_start || info.run_up + rows.begin >= run_up_);
}

std::vector<NeededRows> UnreadBlocks::Missing(std::span<const NeededRows> needed) {
  std::map<BlockKey, NeededRows> blocks;
  for (const NeededRows& rows : needed) {
    NeededRows& all = blocks.try_emplace(rows.key, rows).first->second;
    all.begin = std::min(all.begin, rows.begin);
    all.end = std::max(all.end, rows.end);
  }
  std::vector<NeededRows> missing;
  for (const auto& [key, rows] : blocks) {
    if (!IsStored(rows)) missing.push_back(rows);
  }
  return missing;
}

std::vector<UnreadBlocks::Run> UnreadBlocks::Plan(std::span<const NeededRows> missing) const {
  std::vector<Run> runs;
  for (const NeededRows& rows : missing) {
    const uint64_t base = uint64_t{rows.key.block} * kBlockTokens, need = base + rows.begin;
    uint64_t begin = BlockBegin(need - std::min<uint64_t>(need, run_up_));
    if (begin <= SinkTokens()) begin = 0;  // the sinks are part of the run-up
    Run* last = runs.empty() ? nullptr : &runs.back();
    if (last != nullptr && last->document == rows.key.document && begin <= last->end) {
      last->end = base + rows.end;
    } else {
      runs.push_back({rows.key.document, begin, base + rows.end, rows.key.block});
    }
  }
  return runs;
}

std::vector<NeededRows> UnreadBlocks::SinkRows(DocumentId document) const {
  std::vector<NeededRows> rows;
  for (uint32_t b = 0; b < SinkTokens() / kBlockTokens; ++b) {
    if (IsUnread(memory_, document, uint64_t{b + 1} * kBlockTokens))
      rows.push_back({{document, b}, 0, kBlockTokens});
  }
  return rows;
}

uint64_t UnreadBlocks::TokensToRead(std::span<const NeededRows> needed) {
  uint64_t tokens = 0;
  std::set<DocumentId> with_sinks;
  for (const Run& run : Plan(Missing(needed))) {
    tokens += run.end - run.begin;
    if (run.begin == 0 || sinks_.contains(run.document) || !with_sinks.insert(run.document).second)
      continue;
    if (!Missing(SinkRows(run.document)).empty()) tokens += SinkTokens();
  }
  return tokens;
}

Result<std::vector<KvBlock>> UnreadBlocks::Sinks(DocumentId document) {
  if (const auto known = sinks_.find(document); known != sinks_.end()) return known->second;
  const std::vector<NeededRows> unread = SinkRows(document);
  std::map<BlockKey, KvBlock> read;
  if (!Missing(unread).empty()) LH_RETURN_IF_ERROR(Read({document, 0, SinkTokens(), 0}, &read));
  std::vector<KvBlock> sinks;
  for (uint32_t b = 0; b < SinkTokens() / kBlockTokens; ++b) {
    const BlockKey key{document, b};
    if (!IsUnread(memory_, document, uint64_t{b + 1} * kBlockTokens)) {
      LH_ASSIGN_OR_RETURN(sinks.emplace_back(), memory_.LoadBlock(key));
    } else if (const auto now = read.find(key); now != read.end()) {
      sinks.push_back(std::move(now->second));
    } else {
      LH_ASSIGN_OR_RETURN(sinks.emplace_back(), memory_.LoadProvisional(key));
    }
  }
  return sinks_.emplace(document, std::move(sinks)).first->second;
}

HotWindowOptions UnreadBlocks::Window() const {
  HotWindowOptions window{SinkTokens(), memory_.manifest().window_tokens,
                          std::max(SinkTokens(), kBlockTokens)};
  while (2 * window.pass_tokens <= std::min(model_.batch_tokens(), kPassTokensMax))
    window.pass_tokens *= 2;
  return window;
}

Status UnreadBlocks::Reserve() {
  if (reading_.bytes() > 0) return OkStatus();
  const HotWindowOptions window = Window();
  const KvGeometry& geometry = model_.info().geometry;
  const uint64_t row_bytes = geometry.layers.size() * geometry.kv_width() * 2 * sizeof(uint16_t);
  const uint64_t rows = window.sink_tokens + window.window_tokens + window.pass_tokens;
  // The window's rows, the float panels of one layer, the pass's blocks, and one that is encoded.
  LH_ASSIGN_OR_RETURN(
      reading_, budget_.Reserve(rows * row_bytes + rows * geometry.kv_width() * 2 * sizeof(float) +
                                    (window.pass_tokens + 2 * kBlockTokens) * row_bytes,
                                "reading for a question"));
  return OkStatus();
}

Status UnreadBlocks::Read(const Run& run, std::map<BlockKey, KvBlock>* blocks) {
  std::vector<KvBlock> sinks;
  if (run.begin > 0) {
    LH_ASSIGN_OR_RETURN(sinks, Sinks(run.document));
  }
  LH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens,
                      memory_.Tokens(run.document, {run.begin, run.end}));
  LH_RETURN_IF_ERROR(Reserve());
  const HotWindowOptions options = Window();
  HotWindow window(model_.info().geometry, options);
  if (run.begin > 0)
    window.Restore(SinkTokens(), [&](uint32_t b) -> const KvBlock& { return sinks[b]; });
  model_.NativeForget(0, UINT32_MAX);
  for (size_t at = 0; at < tokens.size();) {
    const auto pass =
        std::span(tokens).subspan(at, std::min<size_t>(options.pass_tokens, tokens.size() - at));
    const auto count = static_cast<uint32_t>(pass.size());
    const auto native = static_cast<uint32_t>(window.position());
    window.BeginPass(count);
    LH_RETURN_IF_ERROR(model_.Forward(pass, native, &window, /*want_logits=*/false));
    window.EndPass();
    uint32_t index = static_cast<uint32_t>((run.begin + at) / kBlockTokens);
    for (KvBlock& block : PassBlocks(window, memory_.block_shape(), count)) {
      const BlockKey key{run.document, index++};
      if (key.block < run.first) continue;
      const auto run_up = static_cast<uint32_t>(uint64_t{key.block} * kBlockTokens - run.begin);
      if (memory_.PutProvisional(key, block, run_up).ok()) {
        stored_[key] = {run_up, block.tokens};
      } else {
        unkept_.push_back({key, block, run_up});
      }
      (*blocks)[key] = std::move(block);
    }
    at += count;
  }
  tokens_read_ += tokens.size();
  return OkStatus();
}

Result<std::map<BlockKey, KvBlock>> UnreadBlocks::Load(std::span<const NeededRows> needed) {
  std::map<BlockKey, KvBlock> blocks;
  std::vector<NeededRows> missing = Missing(needed);
  for (const NeededRows& rows : needed) {
    if (blocks.contains(rows.key) || !IsStored(rows)) continue;
    if (Result<KvBlock> stored = memory_.LoadProvisional(rows.key); stored.ok()) {
      blocks.emplace(rows.key, std::move(*stored));
    } else {  // damaged
      stored_[rows.key] = {};
      missing = Missing(needed);
    }
  }
  if (!missing.empty()) {
    LH_ASSIGN_OR_RETURN(const std::string native, model_.NativeSave());
    Status read;
    for (const Run& run : Plan(missing)) {
      read = Read(run, &blocks);
      if (!read.ok()) break;
    }
    LH_RETURN_IF_ERROR(model_.NativeRestore(native));
    LH_RETURN_IF_ERROR(read);
  }
  return blocks;
}

}  // namespace longhold
