#include "memory/core/memory.h"

#include <algorithm>

#include "base/text.h"
#include "memory/record/record_keys.h"
#include "memory/text/sentences.h"

namespace longhold {
namespace {

constexpr size_t kChunkCache = 32;

std::string Name(const BlockKey& key) {
  return "block d=" + std::to_string(static_cast<uint32_t>(key.document)) +
         " b=" + std::to_string(key.block);
}

DocumentId NextId(DocumentId id) { return DocumentId{static_cast<uint32_t>(id) + 1}; }

// The bytes of a chunk's text that its tokens [first, end) have; both count from the chunk's begin.
ByteSpan BytesOfTokens(const TextChunk& chunk, size_t first, size_t end) {
  ByteSpan bytes;
  for (size_t i = 0; i < end; ++i) {
    if (i < first) bytes.begin += chunk.token_bytes[i];
    bytes.end += chunk.token_bytes[i];
  }
  return bytes;
}

// Whether all fp16 elements are finite.
bool AllFinite(std::span<const uint16_t> fp16) {
  constexpr uint16_t kExponent = 0x7c00;
  bool finite = true;
  for (const uint16_t half : fp16) finite &= (half & kExponent) != kExponent;
  return finite;
}

}  // namespace

bool Memory::Exists(ColdStore& store) {
  return store.Get(Table::kMeta, kManifestKey).status().code() != StatusCode::kNotFound;
}

Result<std::string> Memory::NameInside(ColdStore& store) {
  LH_ASSIGN_OR_RETURN(const std::string bytes, store.Get(Table::kMeta, kManifestKey));
  LH_ASSIGN_OR_RETURN(const Manifest manifest, DecodeManifest(bytes));
  return manifest.name;
}

Result<std::unique_ptr<Memory>> Memory::Create(std::unique_ptr<ColdStore> store,
                                               const std::string& name, const ModelInfo& model,
                                               const RecallProfile& profile,
                                               std::string_view codec) {
  if (store->Get(Table::kMeta, kManifestKey).ok())
    return AlreadyExists("memory " + name + ": exists already");
  std::unique_ptr<Memory> memory(new Memory(std::move(store), name));
  Manifest& m = memory->manifest_;
  m.name = name;
  m.model_name = model.name;
  m.model_architecture = model.architecture;
  m.model_fingerprint = model.fingerprint;
  m.layers = model.geometry.layers;
  m.q_heads = model.geometry.q_heads;
  m.kv_heads = model.geometry.kv_heads;
  m.head_dim = model.geometry.head_dim;
  LH_CHECK(IsCodecName(codec));
  memory->codec_ = FindCodec(codec);
  m.codec = std::string(codec);
  m.profile = profile.name;
  for (const RecallHead& head : profile.heads) {
    m.scan_layers.push_back(head.layer);
    m.scan_kv_heads.push_back(head.kv_head);
  }
  m.sink_tokens = profile.sink_tokens;
  m.window_tokens = profile.window_tokens;
  WriteBatch batch;
  batch.Put(Table::kMeta, kManifestKey, Encode(m));
  LH_RETURN_IF_ERROR(memory->Write(std::move(batch), Durability::kSynced));
  return memory;
}

Result<std::unique_ptr<Memory>> Memory::Open(std::unique_ptr<ColdStore> store,
                                             const std::string& name, const ModelInfo* model) {
  std::unique_ptr<Memory> memory(new Memory(std::move(store), name));
  LH_RETURN_IF_ERROR(memory->LoadRecords());
  if (model != nullptr) LH_RETURN_IF_ERROR(memory->CheckModel(*model));
  return memory;
}

Status Memory::CheckModel(const ModelInfo& model) const {
  const Manifest& m = manifest_;
  if (m.model_fingerprint != model.fingerprint) {
    return FailedPrecondition("memory " + name_ + ": was written by model " + m.model_name + " (" +
                              m.model_fingerprint + ") and cannot be read by model " + model.name +
                              " (" + model.fingerprint +
                              "); use the first one with --model, or ingest into another memory");
  }
  const KvGeometry& g = model.geometry;
  if (m.layers == g.layers && m.q_heads == g.q_heads && m.kv_heads == g.kv_heads &&
      m.head_dim == g.head_dim)
    return OkStatus();
  return DataLoss("memory " + name_ +
                  ": its manifest does not have the layers and heads of its model " + m.model_name +
                  "; the memory is damaged or a forged import; forget it");
}

Status Memory::Write(WriteBatch batch, Durability durability) {
  uint64_t bytes = 0;
  for (const WriteBatch::Change& change : batch.changes()) {
    if (change.table != Table::kMeta && change.kind == WriteBatch::Change::Kind::kPut)
      bytes += change.key.size() + change.value.size();
  }
  LH_RETURN_IF_ERROR(store_->Write(std::move(batch), durability));
  written_bytes_ += bytes;
  return OkStatus();
}

Status Memory::LoadRecords() {
  LH_ASSIGN_OR_RETURN(opened_bytes_, store_->DiskBytes());
  const Result<std::string> bytes = store_->Get(Table::kMeta, kManifestKey);
  if (bytes.status().code() == StatusCode::kNotFound) {
    return NotFound("memory " + name_ + ": not found; 'longhold list' shows all memories");
  }
  if (!bytes.ok()) return bytes.status();
  Result<Manifest> manifest = DecodeManifest(*bytes);
  if (!manifest.ok())
    return Status(manifest.status().code(), "memory " + name_ + ": " + manifest.status().message());
  manifest_ = *manifest;
  codec_ = FindCodec(manifest_.codec);
  if (!IsCodecName(manifest_.codec)) {
    return FailedPrecondition("memory " + name_ + ": its blocks use codec " + manifest_.codec +
                              ", which this version of longhold does not support");
  }
  LoadBasis();
  Status bad;
  LH_RETURN_IF_ERROR(store_->Scan(
      Table::kMeta, kDocumentPrefix, kDocumentEnd,
      [&](std::string_view key, std::string_view value) {
        Result<DocumentRecord> record = DecodeDocument(value);
        // Records are found by id, and new ids count up, so a record under another id's key would
        // appear as two documents.
        if (record.ok() && (key != DocumentKey(record->id) ||
                            static_cast<uint32_t>(record->id) >= manifest_.next_document)) {
          record = DataLoss("document record: belongs to another document");
        }
        if (!record.ok()) {
          bad = DataLoss("memory " + name_ + ": " + record.status().message());
          return false;
        }
        documents_.push_back(*record);
        return true;
      }));
  return bad;
}

const DocumentRecord* Memory::Find(std::string_view document_name) const {
  const DocumentRecord* found = nullptr;
  for (const DocumentRecord& d : documents_) {
    if (d.HasName(document_name)) found = &d;
  }
  return found;
}

const DocumentRecord& Memory::Get(DocumentId id) const {
  for (const DocumentRecord& d : documents_) {
    if (d.id == id) return d;
  }
  LH_CHECK(false && "document id");
  __builtin_unreachable();
}

BlockShape Memory::block_shape() const {
  return {static_cast<uint32_t>(manifest_.layers.size()), manifest_.kv_heads * manifest_.head_dim};
}

uint64_t Memory::committed_tokens() const {
  uint64_t tokens = 0;
  for (const DocumentRecord& d : documents_) tokens += d.committed_tokens;
  return tokens;
}

uint64_t Memory::searchable_tokens() const {
  uint64_t tokens = 0;
  for (const DocumentRecord& d : documents_) tokens += d.searchable_tokens;
  return tokens;
}

Result<KvBlock> Memory::LoadBlock(const BlockKey& key, uint64_t* bytes_read) {
  const Result<std::string> bytes =
      store_->Get(Table::kBlocks, NumberedKey(key.document, key.block));
  if (!bytes.ok()) {
    return DataLoss(
        "memory " + name_ + ": " + Name(key) + ": " +
        (bytes.status().code() == StatusCode::kNotFound ? "missing" : bytes.status().message()));
  }
  if (bytes_read != nullptr) *bytes_read += bytes->size();
  Result<KvBlock> block = DecodeBlock(*bytes, block_shape(), archive_.get());
  const auto damaged = [&](const std::string& why) {
    return DataLoss("memory " + name_ + ": " + Name(key) + ": " + why);
  };
  if (!block.ok()) return damaged(block.status().message());
  // The last block of an unfinished ingest may hold more tokens than are committed, but never
  // fewer.
  const uint64_t begin = uint64_t{key.block} * kBlockTokens,
                 committed = Get(key.document).committed_tokens;
  if (block->tokens < std::min<uint64_t>(kBlockTokens, committed - std::min(begin, committed))) {
    return damaged("holds only " + std::to_string(block->tokens) + " tokens");
  }
  // One infinite key would turn a whole answer into NaN.
  if (!AllFinite(block->data)) return damaged("holds an element that is not finite");
  return block;
}

Result<std::shared_ptr<const TextChunk>> Memory::LoadChunk(DocumentId document, uint32_t chunk) {
  const std::pair key(document, chunk);
  for (const auto& [k, value] : chunks_) {
    if (k == key) return value;
  }
  const auto where = [&] {
    return "memory " + name_ + ": text chunk " + std::to_string(chunk) + " of " +
           Get(document).name;
  };
  const Result<std::string> bytes = store_->Get(Table::kText, NumberedKey(document, chunk));
  if (!bytes.ok()) return DataLoss(where() + ": " + bytes.status().message());
  Result<TextChunk> decoded = DecodeTextChunk(*bytes);
  if (!decoded.ok()) return DataLoss(where() + ": " + decoded.status().message());
  const DocumentRecord& record = Get(document);
  const uint64_t end =
      chunk + 1 < record.chunk_tokens.size() ? record.chunk_tokens[chunk + 1] : record.tokens;
  if (decoded->token_begin != record.chunk_tokens[chunk] ||
      decoded->token_begin + decoded->tokens.size() != end) {
    return DataLoss(where() + ": does not match its document record");
  }
  const auto unknown = [&](TokenId token) {
    return token < 0 || static_cast<uint32_t>(token) >= vocabulary_->size();
  };
  if (vocabulary_ != nullptr &&
      std::any_of(decoded->tokens.begin(), decoded->tokens.end(), unknown)) {
    return DataLoss(where() + ": holds a token that the model does not have");
  }
  auto shared = std::make_shared<const TextChunk>(std::move(*decoded));
  if (chunks_.size() >= kChunkCache) chunks_.erase(chunks_.begin());
  chunks_.emplace_back(key, shared);
  return shared;
}

Result<std::shared_ptr<const TextChunk>> Memory::ChunkOf(DocumentId document, uint64_t token) {
  const std::vector<uint64_t>& starts = Get(document).chunk_tokens;
  const auto after = std::upper_bound(starts.begin(), starts.end(), token);
  LH_CHECK(after != starts.begin());
  return LoadChunk(document, static_cast<uint32_t>(after - starts.begin() - 1));
}

Status Memory::EachChunk(
    DocumentId document, TokenSpan span,
    const std::function<void(const TextChunk& chunk, size_t first, size_t end)>& fn) {
  for (uint64_t t = span.begin; t < span.end;) {
    LH_ASSIGN_OR_RETURN(const auto chunk, ChunkOf(document, t));
    const uint64_t end = std::min(span.end, chunk->token_begin + chunk->tokens.size());
    if (end <= t)
      return DataLoss("memory " + name_ + ": text of " + Get(document).name + " ends early");
    fn(*chunk, t - chunk->token_begin, end - chunk->token_begin);
    t = end;
  }
  return OkStatus();
}

Result<std::vector<TokenId>> Memory::Tokens(DocumentId document, TokenSpan span) {
  std::vector<TokenId> tokens;
  LH_RETURN_IF_ERROR(
      EachChunk(document, span, [&](const TextChunk& chunk, size_t first, size_t end) {
        tokens.insert(tokens.end(), chunk.tokens.begin() + static_cast<ptrdiff_t>(first),
                      chunk.tokens.begin() + static_cast<ptrdiff_t>(end));
      }));
  return tokens;
}

Result<TokenText> Memory::TextOf(DocumentId document, TokenSpan span) {
  LH_CHECK(span.begin <= span.end && span.end <= Get(document).tokens);
  TokenText all;
  LH_RETURN_IF_ERROR(
      EachChunk(document, span, [&](const TextChunk& chunk, size_t first, size_t end) {
        const ByteSpan bytes = BytesOfTokens(chunk, first, end);
        all.text.append(chunk.text, bytes.begin, bytes.size());
        all.token_bytes.insert(all.token_bytes.end(),
                               chunk.token_bytes.begin() + static_cast<ptrdiff_t>(first),
                               chunk.token_bytes.begin() + static_cast<ptrdiff_t>(end));
      }));
  return all;
}

Result<TextPlace> Memory::Locate(DocumentId document, TokenSpan span) {
  LH_CHECK(span.begin <= span.end && span.end <= Get(document).tokens);
  TextPlace place;
  bool begun = false;
  LH_RETURN_IF_ERROR(
      EachChunk(document, span, [&](const TextChunk& chunk, size_t first, size_t end) {
        const ByteSpan bytes = BytesOfTokens(chunk, first, end);
        const std::string_view text(chunk.text);
        if (!begun) {
          place.bytes.begin = chunk.byte_begin + bytes.begin;
          const auto lines =
              std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(bytes.begin), '\n');
          place.line_begin = chunk.line_begin + static_cast<uint64_t>(lines) + 1;
          begun = true;
        }
        place.text += text.substr(bytes.begin, bytes.size());
        place.bytes.end = chunk.byte_begin + bytes.end;
      }));
  // A final newline belongs to the line that it ends.
  const size_t counted = place.text.size() - (place.text.ends_with('\n') ? 1 : 0);
  place.line_end =
      place.line_begin +
      static_cast<uint64_t>(std::count(place.text.begin(),
                                       place.text.begin() + static_cast<ptrdiff_t>(counted), '\n'));
  return place;
}

Result<std::vector<uint64_t>> Memory::CharactersBefore(DocumentId document,
                                                       std::span<const uint64_t> bytes) {
  std::vector<uint64_t> before;
  uint64_t characters = 0;
  const auto chunks = static_cast<uint32_t>(Get(document).chunk_tokens.size());
  for (uint32_t c = 0; c < chunks && before.size() < bytes.size(); ++c) {
    LH_ASSIGN_OR_RETURN(const auto chunk, LoadChunk(document, c));
    const std::string_view text(chunk->text);
    while (before.size() < bytes.size() && bytes[before.size()] < chunk->byte_begin + text.size()) {
      before.push_back(characters +
                       CountCharacters(text.substr(0, bytes[before.size()] - chunk->byte_begin)));
    }
    characters += CountCharacters(text);
  }
  before.resize(bytes.size(), characters);
  return before;
}

Result<std::string> Memory::LineAt(DocumentId document, uint64_t at, size_t bytes_max) {
  LH_ASSIGN_OR_RETURN(const auto chunk, ChunkOf(document, at));
  const size_t tokens = std::min<size_t>(at - chunk->token_begin, chunk->token_bytes.size());
  size_t byte = BytesOfTokens(*chunk, 0, tokens).end;
  const std::string_view text(chunk->text);
  // A token may begin with the newline that ends the line before.
  while (byte + 1 < text.size() && text[byte] == '\n') ++byte;
  const size_t newline = byte == 0 ? std::string_view::npos : text.rfind('\n', byte - 1);
  const std::string_view line = text.substr(newline == std::string_view::npos ? 0 : newline + 1);
  return std::string(line.substr(0, std::min(line.find('\n'), bytes_max)));
}

Result<TokenSpan> Memory::GrowToLines(DocumentId document, TokenSpan span, uint32_t tokens_max) {
  const DocumentRecord& record = Get(document);
  // Whether a line begins at token t, that is, whether the token before it ends with a newline.
  const auto line_starts = [&](uint64_t t) -> Result<bool> {
    if (t == 0 || t >= record.tokens) return true;
    LH_ASSIGN_OR_RETURN(const auto chunk, ChunkOf(document, t - 1));
    size_t byte = 0;
    for (size_t i = 0; i <= t - 1 - chunk->token_begin; ++i) byte += chunk->token_bytes[i];
    return byte > 0 && chunk->text[byte - 1] == '\n';
  };
  TokenSpan grown = span;
  for (uint32_t i = 0; i <= tokens_max && i <= span.begin; ++i) {
    const Result<bool> starts = line_starts(span.begin - i);
    if (!starts.ok()) break;
    if (*starts) {
      grown.begin = span.begin - i;
      break;
    }
  }
  for (uint64_t t = span.end; t <= record.tokens && t - span.end <= tokens_max; ++t) {
    const Result<bool> starts = line_starts(t);
    if (!starts.ok()) break;
    if (*starts) {
      grown.end = t;
      break;
    }
  }
  return grown;
}

Result<TextWindow> Memory::TextAround(DocumentId document, TokenSpan span, TextReach reach) {
  const DocumentRecord& record = Get(document);
  LH_CHECK(span.begin < span.end && span.end <= record.tokens);
  TextWindow window;
  window.begin = span.begin - std::min<uint64_t>(span.begin, reach.before);
  const uint64_t end = std::min(span.end + reach.after, record.tokens);
  const std::vector<uint64_t>& starts = record.chunk_tokens;
  for (uint64_t t = window.begin; t < end;) {
    const auto after = std::upper_bound(starts.begin(), starts.end(), t);
    const uint64_t chunk_end = after == starts.end() ? end : std::min(end, *after);
    Result<TokenText> part = TextOf(document, {t, chunk_end});
    if (!part.ok()) {
      const bool before = chunk_end <= span.begin;
      if (part.status().code() != StatusCode::kDataLoss || (!before && t < span.end))
        return part.status();
      if (!before) break;
      window.text = {};
      window.begin = chunk_end;
    } else {
      window.text.text += part->text;
      window.text.token_bytes.insert(window.text.token_bytes.end(), part->token_bytes.begin(),
                                     part->token_bytes.end());
    }
    t = chunk_end;
  }
  window.from_start = window.begin == 0;
  window.to_end = window.begin + window.text.token_bytes.size() == record.tokens;
  return window;
}

Result<TokenSpan> Memory::SentenceAt(DocumentId document, uint64_t at, uint32_t tokens_max) {
  LH_ASSIGN_OR_RETURN(const TextWindow window,
                      TextAround(document, {at, at + 1}, {tokens_max, tokens_max}));
  std::vector<std::string> pieces;
  size_t byte = 0;
  for (const uint16_t bytes : window.text.token_bytes) {
    pieces.push_back(window.text.text.substr(byte, bytes));
    byte += bytes;
  }
  const PieceRange found =
      SentenceAround(pieces, at - window.begin, window.from_start, window.to_end);
  return TokenSpan{window.begin + found.begin, window.begin + found.end};
}

Result<DocumentId> Memory::AddDocument(DocumentRecord record,
                                       const std::vector<TextChunk>& chunks) {
  record.id = DocumentId{manifest_.next_document};
  record.committed_tokens = record.searchable_tokens = 0;
  record.chunk_tokens.clear();
  WriteBatch batch;
  for (const TextChunk& chunk : chunks) {
    batch.Put(Table::kText,
              NumberedKey(record.id, static_cast<uint32_t>(record.chunk_tokens.size())),
              Encode(chunk));
    record.chunk_tokens.push_back(chunk.token_begin);
  }
  batch.Put(Table::kMeta, DocumentKey(record.id), Encode(record));
  Manifest manifest = manifest_;
  ++manifest.next_document;
  batch.Put(Table::kMeta, kManifestKey, Encode(manifest));
  LH_RETURN_IF_ERROR(Write(std::move(batch), Durability::kBuffered));
  manifest_ = manifest;
  documents_.push_back(record);
  return record.id;
}

Status Memory::PutBlocks(DocumentId document, uint32_t first, std::span<const KvBlock> blocks,
                         const ParallelFor& parallel) {
  std::vector<std::string> values(blocks.size());
  parallel(blocks.size(), [&](size_t i) {
    LH_CHECK(blocks[i].shape == block_shape());
    const bool sink = (uint64_t{first} + i) * kBlockTokens < manifest_.sink_tokens;
    values[i] = (sink ? ExactCodec() : codec()).Encode(blocks[i]);
  });
  for (size_t i = 0; i < blocks.size(); ++i) {
    WriteBatch batch;
    batch.Put(Table::kBlocks, NumberedKey(document, first + static_cast<uint32_t>(i)),
              std::move(values[i]));
    LH_RETURN_IF_ERROR(Write(std::move(batch), Durability::kBuffered));
  }
  return OkStatus();
}

Status Memory::MakeSearchable(DocumentId document, uint64_t end, const TextSegmentPair& text,
                              const DocumentId* retire) {
  DocumentRecord record = Get(document);
  LH_CHECK(end > record.searchable_tokens && end <= record.tokens);
  // An earlier version was interrupted inside this segment, while it read the text.
  const bool grows = record.searchable_tokens % kCommitTokens != 0;
  record.searchable_tokens = end;
  WriteBatch batch;
  AppendText(document, static_cast<uint32_t>((end - 1) / kCommitTokens), text, &batch);
  batch.Put(Table::kMeta, DocumentKey(document), Encode(record));
  if (retire != nullptr) AppendForget(*retire, record.name, &batch);
  LH_RETURN_IF_ERROR(
      Write(std::move(batch), record.searchable() ? Durability::kSynced : Durability::kBuffered));
  Replace(record);
  if (retire != nullptr) ForgetInRam(*retire, record.name);
  return AddToIndexes({.text = text}, grows);
}

void Memory::AppendText(DocumentId document, uint32_t segment, const TextSegmentPair& text,
                        WriteBatch* batch) {
  batch->Put(Table::kIndex, LexicalKey(document, segment), text.lexical->Encode());
  if (text.passages != nullptr)
    batch->Put(Table::kIndex, PassagesKey(document, segment), text.passages->Encode());
}

void Memory::Replace(const DocumentRecord& record) {
  for (DocumentRecord& d : documents_) {
    if (d.id == record.id) d = record;
  }
}

Status Memory::AddToIndexes(const SealedSegments& segments, bool grows) {
  if (!indexes_loaded_) return OkStatus();
  if (grows) {
    // The indexes hold the segment's shorter version and would not replace it by a longer one. This
    // is rare, so all indexes are loaded again.
    indexes_loaded_ = false;
    return LoadIndexes();
  }
  if (segments.scan != nullptr) LH_RETURN_IF_ERROR(relevance_.Add(segments.scan));
  const TextSegmentPair& text = segments.text;
  if (text.passages != nullptr) LH_RETURN_IF_ERROR(passages_.Add(*text.passages));
  return text.lexical == nullptr ? OkStatus() : lexical_.Add(text.lexical);
}

Status Memory::Commit(DocumentId document, uint64_t tokens, const SealedSegments& segments,
                      const ResumeRecord* resume, const DocumentId* retire) {
  DocumentRecord record = Get(document);
  LH_CHECK(tokens > record.committed_tokens && tokens <= record.tokens);
  const bool has_text = segments.text.lexical != nullptr;
  LH_CHECK(has_text || tokens <= record.searchable_tokens);
  // The last commit ended inside this segment, because the ingest was stopped there.
  const bool grows =
      record.committed_tokens % kCommitTokens != 0 && (has_text || segments.scan != nullptr);
  const uint32_t segment = static_cast<uint32_t>((tokens - 1) / kCommitTokens);
  const auto first = static_cast<uint32_t>(record.committed_tokens / kBlockTokens);
  record.committed_tokens = tokens;
  record.searchable_tokens = std::max(record.searchable_tokens, tokens);
  WriteBatch batch;
  if (segments.scan != nullptr)
    batch.Put(Table::kIndex, ScanKey(document, segment, manifest_.index_generation),
              segments.scan->Encode());
  if (has_text) AppendText(document, segment, segments.text, &batch);
  if (segments.summaries != nullptr)
    batch.Put(Table::kIndex, SummariesKey(document, segment), segments.summaries->Encode());
  batch.Put(Table::kMeta, DocumentKey(document), Encode(record));
  if (resume != nullptr) {
    batch.Put(Table::kMeta, ResumeKey(document), Encode(*resume));
  } else {
    batch.Delete(Table::kMeta, ResumeKey(document));
  }
  LH_RETURN_IF_ERROR(DropProvisional(
      document, first, static_cast<uint32_t>((tokens + kBlockTokens - 1) / kBlockTokens), &batch));
  if (retire != nullptr) AppendForget(*retire, record.name, &batch);
  // The last commit of a document is synced to disk. Earlier ones survive a crash of the process,
  // but maybe not of the machine.
  LH_RETURN_IF_ERROR(
      Write(std::move(batch), record.complete() ? Durability::kSynced : Durability::kBuffered));
  Replace(record);
  if (retire != nullptr) ForgetInRam(*retire, record.name);
  return AddToIndexes(segments, grows);
}

Status Memory::DropProvisional(DocumentId document, uint32_t begin, uint32_t end,
                               WriteBatch* batch) {
  // A deleted range costs every later read a little, so there is none where nothing is to be
  // deleted.
  const std::string from = ProvisionalKey(document, begin), to = ProvisionalKey(document, end);
  bool any = false;
  LH_RETURN_IF_ERROR(
      store_->Scan(Table::kBlocks, from, to, [&](std::string_view, std::string_view) {
        any = true;
        return false;
      }));
  if (any) batch->DeleteRange(Table::kBlocks, from, to);
  return OkStatus();
}

Status Memory::PutProvisional(const BlockKey& key, const KvBlock& block, uint32_t run_up) {
  LH_CHECK(block.shape == block_shape());
  const auto d = std::find_if(documents_.begin(), documents_.end(),
                              [&](const DocumentRecord& r) { return r.id == key.document; });
  if (d == documents_.end() || uint64_t{key.block} * kBlockTokens < d->committed_tokens)
    return OkStatus();
  const bool sink = uint64_t{key.block} * kBlockTokens < manifest_.sink_tokens;
  WriteBatch batch;
  batch.Put(Table::kBlocks, ProvisionalKey(key.document, key.block),
            Encode(ProvisionalRecord{run_up, block.tokens,
                                     (sink ? ExactCodec() : codec()).Encode(block)}));
  return Write(std::move(batch), Durability::kBuffered);
}

Result<ProvisionalRecord> Memory::ReadProvisional(const BlockKey& key) const {
  LH_ASSIGN_OR_RETURN(const std::string bytes,
                      store_->Get(Table::kBlocks, ProvisionalKey(key.document, key.block)));
  Result<ProvisionalRecord> record = DecodeProvisional(bytes);
  return record.ok() ? std::move(record) : NotFound(record.status().message());
}

Result<ProvisionalInfo> Memory::FindProvisional(const BlockKey& key) {
  LH_ASSIGN_OR_RETURN(const ProvisionalRecord record, ReadProvisional(key));
  return ProvisionalInfo{record.run_up, record.tokens};
}

Result<KvBlock> Memory::LoadProvisional(const BlockKey& key) {
  LH_ASSIGN_OR_RETURN(const ProvisionalRecord record, ReadProvisional(key));
  Result<KvBlock> block = DecodeBlock(record.block, block_shape(), archive_.get());
  if (!block.ok() || block->tokens != record.tokens || !AllFinite(block->data))
    return NotFound("memory " + name_ + ": " + Name(key) + ": its provisional version is damaged");
  return block;
}

Result<ResumeRecord> Memory::LoadResume(DocumentId document) {
  const Result<std::string> bytes = store_->Get(Table::kMeta, ResumeKey(document));
  Result<ResumeRecord> resume = bytes.ok() ? DecodeResume(*bytes) : bytes.status();
  if (resume.ok()) return resume;
  const std::string what = "memory " + name_ + ": resume state of " + Get(document).name + ": ";
  if (resume.status().code() == StatusCode::kNotFound) return NotFound(what + "missing");
  return DataLoss(what + resume.status().message() + "; forget and ingest the document again");
}

Status Memory::Restart(DocumentId document) {
  DocumentRecord record = Get(document);
  LH_CHECK(!record.complete());
  const uint64_t segments = (record.committed_tokens + kCommitTokens - 1) / kCommitTokens;
  record.committed_tokens = 0;
  WriteBatch batch;
  batch.Put(Table::kMeta, DocumentKey(document), Encode(record));
  batch.Delete(Table::kMeta, ResumeKey(document));
  for (uint32_t n = 0; n < segments; ++n) {
    batch.Delete(Table::kIndex, ScanKey(document, n, manifest_.index_generation));
    batch.Delete(Table::kIndex, SummariesKey(document, n));
  }
  batch.DeleteRange(Table::kBlocks, NumberedKey(document, 0), NumberedKey(NextId(document), 0));
  LH_RETURN_IF_ERROR(Write(std::move(batch), Durability::kBuffered));
  Replace(record);
  relevance_.Remove(document);
  return OkStatus();
}

namespace {

// Removes `name` from a record. Returns false, without a change, if it is the only name.
bool DropName(DocumentRecord* record, const std::string& name) {
  if (record->name != name) {
    std::erase(record->aliases, name);
    return true;
  }
  if (record->aliases.empty()) return false;
  record->name = record->aliases.front();
  record->aliases.erase(record->aliases.begin());
  return true;
}

}  // namespace

void Memory::AppendForget(DocumentId document, const std::string& name, WriteBatch* batch) const {
  DocumentRecord record = Get(document);
  if (DropName(&record, name)) {
    batch->Put(Table::kMeta, DocumentKey(document), Encode(record));
    return;
  }
  batch->Delete(Table::kMeta, DocumentKey(document));
  batch->Delete(Table::kMeta, ResumeKey(document));
  const std::string begin = NumberedKey(document, 0);
  const std::string end = NumberedKey(NextId(document), 0);
  for (Table table : {Table::kText, Table::kIndex, Table::kBlocks})
    batch->DeleteRange(table, begin, end);
}

void Memory::ForgetInRam(DocumentId document, const std::string& name) {
  const auto at = std::find_if(documents_.begin(), documents_.end(),
                               [&](const DocumentRecord& d) { return d.id == document; });
  LH_CHECK(at != documents_.end());
  if (DropName(&*at, name)) return;
  documents_.erase(at);
  std::erase_if(chunks_, [&](const auto& c) { return c.first.first == document; });
  lexical_.Remove(document);
  relevance_.Remove(document);
  passages_.Remove(document);
}

Status Memory::Forget(DocumentId document, const std::string& name) {
  WriteBatch batch;
  AppendForget(document, name, &batch);
  LH_RETURN_IF_ERROR(Write(std::move(batch), Durability::kSynced));
  ForgetInRam(document, name);
  return OkStatus();
}

Status Memory::AddName(DocumentId document, const std::string& name) {
  DocumentRecord record = Get(document);
  LH_CHECK(record.searchable());
  WriteBatch batch;
  std::vector<DocumentId> others;
  for (const DocumentRecord& d : documents_) {
    if (d.id == document || !d.HasName(name)) continue;
    others.push_back(d.id);
    AppendForget(d.id, name, &batch);
  }
  if (record.HasName(name) && others.empty()) return OkStatus();
  if (!record.HasName(name)) record.aliases.push_back(name);
  batch.Put(Table::kMeta, DocumentKey(document), Encode(record));
  LH_RETURN_IF_ERROR(Write(std::move(batch), Durability::kSynced));
  for (const DocumentId other : others) ForgetInRam(other, name);
  Replace(record);
  return OkStatus();
}

Status Memory::PutManifest(Manifest next) {
  WriteBatch batch;
  batch.Put(Table::kMeta, kManifestKey, Encode(next));
  LH_RETURN_IF_ERROR(Write(std::move(batch), Durability::kSynced));
  manifest_ = std::move(next);
  return OkStatus();
}

Status Memory::Rename(const std::string& name) {
  Manifest next = manifest_;
  next.name = name;
  LH_RETURN_IF_ERROR(PutManifest(std::move(next)));
  name_ = name;
  return OkStatus();
}

Status Memory::Verify() {
  // Values in RAM prove nothing, so everything is read from the store. Index segments are decoded
  // into temporaries.
  chunks_.clear();
  const auto damaged = [&](const Status& status) {
    return DataLoss("memory " + name_ + ": " + status.message());
  };
  const auto read = [&](const std::string& key) { return store_->Get(Table::kMeta, key); };
  const Result<std::string> manifest = read(kManifestKey);
  if (!manifest.ok()) return damaged(manifest.status());
  if (const Result<Manifest> m = DecodeManifest(*manifest); !m.ok()) return damaged(m.status());
  if (const Status basis = ReadBasis().status();
      !basis.ok() && basis.code() != StatusCode::kNotFound)
    return damaged(basis);
  // One block at a time, encoded and decoded.
  LH_ASSIGN_OR_RETURN(
      const MemoryReservation reading,
      ReserveFor(2 * block_shape().Elements() * sizeof(uint16_t), "reading a block"));
  for (const DocumentRecord& d : documents_) {
    const Result<std::string> record = read(DocumentKey(d.id));
    if (!record.ok()) return damaged(record.status());
    if (const Result<DocumentRecord> r = DecodeDocument(*record); !r.ok())
      return damaged(r.status());
    if (!d.complete() && d.committed_tokens > 0) {
      // Without a resume state the ingest starts again.
      if (const Status resume = LoadResume(d.id).status();
          !resume.ok() && resume.code() != StatusCode::kNotFound)
        return resume;
    }
    LH_RETURN_IF_ERROR(VerifySegments(d));
    uint64_t bytes = 0, tokens = 0;
    for (uint32_t c = 0; c < d.chunk_tokens.size(); ++c) {
      LH_ASSIGN_OR_RETURN(const auto chunk, LoadChunk(d.id, c));
      if (chunk->token_begin != tokens || chunk->byte_begin != bytes) {
        return DataLoss("memory " + name_ + ": text chunk " + std::to_string(c) + " of " + d.name +
                        " is out of place");
      }
      bytes += chunk->text.size();
      tokens += chunk->tokens.size();
    }
    if (bytes != d.bytes || tokens != d.tokens)
      return DataLoss("memory " + name_ + ": text of " + d.name + " is incomplete");
    const uint32_t blocks =
        static_cast<uint32_t>((d.committed_tokens + kBlockTokens - 1) / kBlockTokens);
    for (uint32_t b = 0; b < blocks; ++b) {
      LH_RETURN_IF_ERROR(LoadBlock({d.id, b}).status());
    }
  }
  return OkStatus();
}

}  // namespace longhold
