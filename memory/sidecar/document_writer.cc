#include "memory/sidecar/document_writer.h"

#include <algorithm>
#include <utility>

#include "base/hash.h"
#include "base/utf8.h"
#include "memory/ingest/held_versions.h"

namespace longhold {
namespace {

// Blocks that are encoded together, on all processors.
constexpr size_t kFlushBlocks = 8;

bool IsContinuation(char c) { return (static_cast<uint8_t>(c) & 0xC0) == 0x80; }

}  // namespace

Result<std::vector<TextChunk>> CutGivenText(std::span<const std::string> pieces,
                                            const GivenDocument& document) {
  const auto wrong = [&](const std::string& what) {
    return InvalidArgument("document " + std::string(document.name) + ": " + what);
  };
  const std::span<const TokenId> tokens = document.tokens;
  if (document.text.empty() || tokens.empty())
    return wrong("is empty; there is nothing to remember");
  if (!document.token_bytes.empty() && document.token_bytes.size() != tokens.size())
    return wrong("has " + std::to_string(document.token_bytes.size()) + " token lengths for " +
                 std::to_string(tokens.size()) + " tokens");
  std::vector<TextChunk> chunks;
  uint64_t byte = 0, line = 0;
  for (size_t first = 0; first < tokens.size();) {
    TextChunk chunk;
    chunk.byte_begin = byte;
    chunk.line_begin = line;
    chunk.token_begin = first;
    // Where the chunk may end: tokens and bytes of it. After a line break rather than elsewhere,
    // and never inside a character.
    size_t end = first, end_bytes = 0, line_end = first, line_bytes = 0, bytes = 0;
    for (size_t t = first; t < tokens.size(); ++t) {
      if (tokens[t] < 0 || static_cast<size_t>(tokens[t]) >= pieces.size())
        return wrong("token " + std::to_string(t) + " is " + std::to_string(tokens[t]) +
                     ", which is not in the model's vocabulary");
      const size_t length = document.token_bytes.empty()
                                ? pieces[static_cast<size_t>(tokens[t])].size()
                                : document.token_bytes[t];
      if (length > document.text.size() - byte - bytes)
        return wrong("its tokens have more bytes than its text");
      if (length > kChunkBytesMax)
        return wrong("token " + std::to_string(t) + " has " + std::to_string(length) + " bytes");
      if (bytes + length > kChunkBytesMax || t - first == kChunkTokensMax) break;
      bytes += length;
      chunk.token_bytes.push_back(static_cast<uint16_t>(length));
      const size_t at = byte + bytes;
      if (at < document.text.size() && IsContinuation(document.text[at])) continue;
      end = t + 1;
      end_bytes = bytes;
      if (bytes > 0 && document.text[at - 1] == '\n') {
        line_end = end;
        line_bytes = bytes;
      }
    }
    if (end == first) return wrong("its text is not UTF-8, or its tokens do not add up to it");
    const bool all = end == tokens.size();
    if (!all && line_end > first) {
      end = line_end;
      end_bytes = line_bytes;
    }
    chunk.tokens.assign(tokens.begin() + static_cast<ptrdiff_t>(first),
                        tokens.begin() + static_cast<ptrdiff_t>(end));
    chunk.token_bytes.resize(end - first);
    chunk.text = std::string(document.text.substr(byte, end_bytes));
    if (FirstInvalidUtf8(chunk.text)) return wrong("its text is not UTF-8");
    byte += end_bytes;
    line += static_cast<uint64_t>(std::count(chunk.text.begin(), chunk.text.end(), '\n'));
    first = end;
    chunks.push_back(std::move(chunk));
  }
  if (byte != document.text.size())
    return wrong("its tokens have " + std::to_string(byte) + " bytes, and its text " +
                 std::to_string(document.text.size()));
  return chunks;
}

Result<std::unique_ptr<DocumentWriter>> DocumentWriter::Begin(MemoryLease memory,
                                                              const ModelContext& context,
                                                              const GivenDocument& document) {
  const std::string name(document.name);
  if (name.empty()) return InvalidArgument("a document needs a name");
  LH_ASSIGN_OR_RETURN(const std::vector<TextChunk> chunks,
                      CutGivenText(context.vocabulary->pieces(), document));
  memory.MakeExclusive();
  std::unique_ptr<DocumentWriter> writer(new DocumentWriter(std::move(memory), context));
  Memory& m = *writer->memory_;
  LH_RETURN_IF_ERROR(m.LearnBasis());
  DocumentRecord record;
  record.name = name;
  record.sha256 = Sha256Hex(document.text);
  record.bytes = document.text.size();
  record.tokens = document.tokens.size();
  LH_ASSIGN_OR_RETURN(const HeldDocument held,
                      HoldDocument(m, name, record.sha256, [&](uint32_t version) {
                        record.version = version;
                        return m.AddDocument(record, chunks);
                      }));
  const DocumentRecord& stored = m.Get(held.id);
  writer->id_ = held.id;
  writer->retire_ = held.retire;
  writer->tokens_ = stored.tokens;
  writer->position_ = stored.committed_tokens;
  if (stored.complete()) return writer;
  bool same_tokens = stored.tokens == record.tokens;
  if ((held.begun || held.searchable) && same_tokens) {
    LH_ASSIGN_OR_RETURN(const std::vector<TokenId> begun, m.Tokens(held.id, {0, stored.tokens}));
    same_tokens = std::equal(begun.begin(), begun.end(), document.tokens.begin());
  }
  if (!same_tokens) {
    return FailedPrecondition("document " + name +
                              ": was begun with other tokens of the same text; forget it, and put "
                              "it again");
  }
  writer->allowance_.emplace(document.disk_bytes_max, name, m);
  LH_RETURN_IF_ERROR(writer->allowance_->Ask());
  writer->writer_.emplace(&m, context.vocabulary.get(), context.info().geometry,
                          WorkersOf(*context.model), held.id);
  std::vector<KvBlock> blocks;
  const uint64_t committed = stored.committed_tokens;
  const uint64_t segment = committed / kCommitTokens * kCommitTokens;
  for (uint64_t b = segment / kBlockTokens; b * kBlockTokens < committed; ++b) {
    LH_ASSIGN_OR_RETURN(blocks.emplace_back(), m.LoadBlock({held.id, static_cast<uint32_t>(b)}));
  }
  LH_RETURN_IF_ERROR(writer->writer_->Restore(
      nullptr, [&](uint32_t b) -> const KvBlock& { return blocks[b - segment / kBlockTokens]; }));
  return writer;
}

Status DocumentWriter::Append(const KvArrays<const void>& arrays, size_t count,
                              int64_t rotary_position) {
  const KvGeometry& geometry = context_.info().geometry;
  if (count > tokens_ - position_) {
    return InvalidArgument("document " + memory_->Get(id_).name + ": got " + std::to_string(count) +
                           " rows at token " + std::to_string(position_) + " of " +
                           std::to_string(tokens_));
  }
  if (count > 0) {
    const uint64_t held =
        blocks_.empty() ? 0 : (blocks_.size() - 1) * kBlockTokens + blocks_.back().tokens;
    LH_RETURN_IF_ERROR(allowance_->Admit(held + count, /*all=*/false));
  }
  for (size_t done = 0; done < count;) {
    const auto row = static_cast<uint32_t>(position_ % kBlockTokens);
    const auto take = static_cast<uint32_t>(std::min<size_t>(kBlockTokens - row, count - done));
    if (row == 0) blocks_.push_back(KvBlock::Empty(memory_->block_shape()));
    std::optional<RopeTables> ropes;
    if (arrays.layout.rotated)
      ropes.emplace(geometry, take, rotary_position + static_cast<int64_t>(done));
    const Status status =
        FillBlock(geometry, arrays, done, row, take, ropes ? &*ropes : nullptr, &blocks_.back());
    if (!status.ok()) {
      if (row == 0) blocks_.pop_back();
      return status;
    }
    position_ += take;
    done += take;
    LH_RETURN_IF_ERROR(Flush(false));
  }
  return OkStatus();
}

Status DocumentWriter::Flush(bool last) {
  if (blocks_.empty()) return OkStatus();
  const bool commits = position_ % kCommitTokens == 0;
  const bool partial = blocks_.back().tokens < kBlockTokens;
  if (!last && (partial || (!commits && blocks_.size() < kFlushBlocks))) return OkStatus();
  const uint64_t begin =
      (position_ - 1) / kBlockTokens * kBlockTokens - (blocks_.size() - 1) * kBlockTokens;
  LH_RETURN_IF_ERROR(writer_->Append(static_cast<uint32_t>(begin / kBlockTokens), blocks_));
  blocks_.clear();
  allowance_->Wrote(position_ - begin);
  LH_RETURN_IF_ERROR(allowance_->Ask());
  if (!commits || position_ == tokens_) return OkStatus();
  return writer_->Commit(position_, nullptr, nullptr);
}

Status DocumentWriter::Finish() {
  if (!writer_) return OkStatus();
  const bool complete = position_ == tokens_;
  if (!complete && !blocks_.empty() && blocks_.back().tokens < kBlockTokens) {
    position_ -= blocks_.back().tokens;
    blocks_.pop_back();
  }
  LH_RETURN_IF_ERROR(Flush(true));
  LH_RETURN_IF_ERROR(
      writer_->Commit(position_, nullptr, complete && retire_ ? &*retire_ : nullptr));
  if (!complete) return OkStatus();
  return BuildListsIfRoom(*memory_, WorkersOf(*context_.model));
}

}  // namespace longhold
