// The index segments of a memory: reading, rebuilding damaged ones, and reindexing for other recall
// heads.
#include <algorithm>

#include "memory/core/memory.h"
#include "memory/index/segment_keys.h"
#include "memory/record/record_keys.h"

namespace longhold {
namespace {

// Blocks that are decoded at a time while a scan segment is built: 12 MB for SmolLM2.
constexpr uint32_t kBlocksAtATime = 8;

// Segments of keys: scan segments and summaries.
uint32_t KeySegments(const DocumentRecord& d) {
  return static_cast<uint32_t>((d.committed_tokens + kCommitTokens - 1) / kCommitTokens);
}

// Segments of text: lexical and passage segments. At least as many.
uint32_t TextSegments(const DocumentRecord& d) {
  return static_cast<uint32_t>((d.searchable_tokens + kCommitTokens - 1) / kCommitTokens);
}

// The committed tokens that segment `n` of keys covers.
TokenSpan KeyTokens(const DocumentRecord& d, uint32_t n) {
  const uint64_t begin = uint64_t{n} * kCommitTokens;
  return {begin, std::min(begin + kCommitTokens, d.committed_tokens)};
}

// The searchable tokens that segment `n` of text covers.
TokenSpan TextTokens(const DocumentRecord& d, uint32_t n) {
  const uint64_t begin = uint64_t{n} * kCommitTokens;
  return {begin, std::min(begin + kCommitTokens, d.searchable_tokens)};
}

// Errors that are not damage keep their code: unavailable (another writer changed the store) and
// resource_exhausted (the disk is full).
Status Damaged(const std::string& memory, const DocumentRecord& d, uint32_t n, const Status& why) {
  if (why.code() == StatusCode::kUnavailable || why.code() == StatusCode::kResourceExhausted)
    return why;
  const std::string what = why.code() == StatusCode::kNotFound ? "missing" : why.message();
  return DataLoss("memory " + memory + ": index segment " + std::to_string(n) + " of " + d.name +
                  ": " + what + "; 'longhold reindex " + memory + "' builds it again");
}

}  // namespace

bool Memory::HasHeadsOf(const RecallProfile& profile) const {
  std::vector<std::pair<uint32_t, uint32_t>> mine, theirs;
  for (size_t h = 0; h < manifest_.scan_layers.size(); ++h)
    mine.emplace_back(manifest_.scan_layers[h], manifest_.scan_kv_heads[h]);
  for (const RecallHead& head : profile.heads) theirs.emplace_back(head.layer, head.kv_head);
  std::sort(mine.begin(), mine.end());
  std::sort(theirs.begin(), theirs.end());
  return mine == theirs;
}

Result<std::shared_ptr<const ScanSegment>> Memory::ReadScan(const DocumentRecord& d,
                                                            uint32_t n) const {
  const Result<std::string> bytes =
      store_->Get(Table::kIndex, ScanKey(d.id, n, manifest_.index_generation));
  if (!bytes.ok()) return Damaged(name_, d, n, bytes.status());
  Result<ScanSegment> s = ScanSegment::Decode(*bytes);
  if (!s.ok()) return Damaged(name_, d, n, s.status());
  const TokenSpan span = KeyTokens(d, n);
  if (s->document != d.id || s->block_begin != span.begin / kBlockTokens ||
      s->token_count() != span.size() || s->heads != manifest_.scan_layers.size() ||
      s->head_dim != manifest_.head_dim) {
    return Damaged(name_, d, n, DataLoss("belongs to another place or document"));
  }
  return std::make_shared<const ScanSegment>(std::move(*s));
}

Result<std::shared_ptr<const LexicalSegment>> Memory::ReadLexical(const DocumentRecord& d,
                                                                  uint32_t n) const {
  const Result<std::string> bytes = store_->Get(Table::kIndex, LexicalKey(d.id, n));
  if (!bytes.ok()) return Damaged(name_, d, n, bytes.status());
  Result<LexicalSegment> s = LexicalSegment::Decode(*bytes);
  if (!s.ok()) return Damaged(name_, d, n, s.status());
  const TokenSpan span = TextTokens(d, n);
  if (s->document != d.id || s->token_begin != span.begin || s->token_count != span.size()) {
    return Damaged(name_, d, n, DataLoss("belongs to another place or document"));
  }
  return std::make_shared<const LexicalSegment>(std::move(*s));
}

Result<std::shared_ptr<const PassageSegment>> Memory::ReadPassages(const DocumentRecord& d,
                                                                   uint32_t n) const {
  const Result<std::string> bytes = store_->Get(Table::kIndex, PassagesKey(d.id, n));
  if (bytes.status().code() == StatusCode::kNotFound) return bytes.status();
  if (!bytes.ok()) return Damaged(name_, d, n, bytes.status());
  Result<PassageSegment> s = PassageSegment::Decode(*bytes);
  if (s.status().code() == StatusCode::kFailedPrecondition) return NotFound(s.status().message());
  if (!s.ok()) return Damaged(name_, d, n, s.status());
  const TokenSpan span = TextTokens(d, n);
  if (s->document != d.id || s->token_begin != span.begin || s->token_count > span.size())
    return Damaged(name_, d, n, DataLoss("belongs to another place or document"));
  // A shorter one is of a commit in mid-segment, and a later commit had no embedder.
  const bool other = embedder_ != nullptr &&
                     (s->embedder != embedder_->fingerprint() || s->dim != embedder_->dim());
  if (other || s->token_count < span.size())
    return NotFound("passage segment " + std::to_string(n) + " of " + d.name +
                    ": made by another embedding model, or from fewer tokens");
  return std::make_shared<const PassageSegment>(std::move(*s));
}

std::shared_ptr<const ScanSegment> Memory::BuildScan(const Manifest& manifest,
                                                     const DocumentRecord& d, uint32_t n,
                                                     const ParallelFor& parallel,
                                                     uint64_t* blocks_lost) {
  SegmentKeys keys(manifest);
  ForBlocks(d, n, parallel, [&](const KvBlock* block, uint32_t rows) {
    if (block != nullptr) {
      keys.Append(*block, rows);
    } else {
      keys.AppendLost(rows);
      ++*blocks_lost;
    }
  });
  return keys.Build(d.id, KeyTokens(d, n).begin);
}

void Memory::ForBlocks(const DocumentRecord& d, uint32_t n, const ParallelFor& parallel,
                       const std::function<void(const KvBlock* block, uint32_t rows)>& fn) {
  const TokenSpan span = KeyTokens(d, n);
  for (uint64_t begin = span.begin; begin < span.end;) {
    const uint64_t end = std::min(span.end, begin + uint64_t{kBlocksAtATime} * kBlockTokens);
    const uint32_t first = static_cast<uint32_t>(begin / kBlockTokens);
    const size_t count = (end - begin + kBlockTokens - 1) / kBlockTokens;
    std::vector<Result<KvBlock>> blocks(count, DataLoss("not read"));
    parallel(count, [&](size_t i) {
      blocks[i] = LoadBlock({d.id, first + static_cast<uint32_t>(i)});
    });
    for (const Result<KvBlock>& block : blocks) {
      const uint32_t rows = static_cast<uint32_t>(std::min<uint64_t>(kBlockTokens, end - begin));
      fn(block.ok() && block->tokens >= rows ? &*block : nullptr, rows);
      begin += rows;
    }
  }
}

Result<SummarySegment> Memory::ReadSummaries(const DocumentRecord& d, uint32_t n) const {
  const Result<std::string> bytes = store_->Get(Table::kIndex, SummariesKey(d.id, n));
  if (!bytes.ok())
    return bytes.status().code() == StatusCode::kNotFound ? bytes.status()
                                                          : Damaged(name_, d, n, bytes.status());
  Result<SummarySegment> s = SummarySegment::Decode(*bytes);
  if (!s.ok()) return Damaged(name_, d, n, s.status());
  const TokenSpan span = KeyTokens(d, n);
  if (s->document != d.id || s->block_begin != span.begin / kBlockTokens ||
      s->block_count != (span.size() + kBlockTokens - 1) / kBlockTokens ||
      s->layers != manifest_.layers.size() || s->kv_heads != manifest_.kv_heads ||
      s->head_dim != manifest_.head_dim) {
    return Damaged(name_, d, n, DataLoss("belongs to another place or document"));
  }
  return s;
}

Result<SummarySegment> Memory::SummariesOf(DocumentId document, uint32_t segment,
                                           const KvGeometry& geometry, const ParallelFor& parallel,
                                           uint64_t* blocks_lost) {
  const DocumentRecord& d = Get(document);
  Result<SummarySegment> stored = ReadSummaries(d, segment);
  if (stored.ok() || (stored.status().code() != StatusCode::kDataLoss &&
                      stored.status().code() != StatusCode::kNotFound))
    return stored;
  SummarySegment built = SummarySegment::Of(
      document, static_cast<uint32_t>(KeyTokens(d, segment).begin / kBlockTokens), geometry);
  const RopeTables ropes(geometry, kBlockTokens);
  const uint64_t lost_before = *blocks_lost;
  ForBlocks(d, segment, parallel, [&](const KvBlock* block, uint32_t rows) {
    if (block != nullptr) {
      built.Append(*block, rows, ropes);
    } else {
      built.AppendLost();
      ++*blocks_lost;
    }
  });
  if (*blocks_lost == lost_before) {
    WriteBatch batch;
    batch.Put(Table::kIndex, SummariesKey(document, segment), built.Encode());
    // The write fails with a read-only store or a full disk. The summaries can be used all the
    // same.
    (void)Write(std::move(batch), Durability::kBuffered);
  }
  return built;
}

Result<std::vector<SummarySegment>> Memory::Summaries(DocumentId document,
                                                      const KvGeometry& geometry,
                                                      const ParallelFor& parallel,
                                                      uint64_t* blocks_lost) {
  std::vector<SummarySegment> all;
  for (uint32_t n = 0; n < KeySegments(Get(document)); ++n) {
    LH_ASSIGN_OR_RETURN(SummarySegment segment,
                        SummariesOf(document, n, geometry, parallel, blocks_lost));
    all.push_back(std::move(segment));
  }
  return all;
}

Result<std::shared_ptr<const LexicalSegment>> Memory::BuildLexical(const DocumentRecord& d,
                                                                   uint32_t n) {
  LH_CHECK(vocabulary_ != nullptr);
  const TokenSpan span = TextTokens(d, n);
  LH_ASSIGN_OR_RETURN(
      const std::vector<TokenId> preceding,
      Tokens(d.id, {span.begin - std::min(span.begin, kPrecedingTokens), span.begin}));
  LH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, Tokens(d.id, span));
  return std::make_shared<const LexicalSegment>(
      LexicalSegment::Build(*vocabulary_, d.id, span.begin, preceding, tokens));
}

Result<std::shared_ptr<const PassageSegment>> Memory::BuildPassages(const DocumentRecord& d,
                                                                    uint32_t n,
                                                                    IndexReport* report) {
  LH_CHECK(embedder_ != nullptr);
  const TokenSpan span = TextTokens(d, n);
  const Result<TokenText> text = TextOf(d.id, span);
  if (!text.ok()) {
    ++report->segments_lost;
    report->tokens_without_vectors += span.size();
    return std::shared_ptr<const PassageSegment>();
  }
  LH_ASSIGN_OR_RETURN(PassageSegment built,
                      PassageSegment::Build(*embedder_, d.id, d.name, span.begin, *text));
  ++report->segments_rebuilt;
  WriteBatch batch;
  batch.Put(Table::kIndex, PassagesKey(d.id, n), built.Encode());
  if (Write(std::move(batch), Durability::kBuffered).ok()) ++report->segments_stored;
  return std::make_shared<const PassageSegment>(std::move(built));
}

Result<std::shared_ptr<const PassageSegment>> Memory::PassagesOrRebuild(const DocumentRecord& d,
                                                                        uint32_t n,
                                                                        IndexReport* report) {
  ++report->segments;
  Result<std::shared_ptr<const PassageSegment>> stored = ReadPassages(d, n);
  if (stored.ok()) return stored;
  if (stored.status().code() == StatusCode::kDataLoss) {
    Result<std::shared_ptr<const PassageSegment>> built = BuildPassages(d, n, report);
    if (built.ok()) return built;  // a failing embedder must not stop the other signals
  } else if (stored.status().code() != StatusCode::kNotFound) {
    return stored;
  }
  report->tokens_without_vectors += TextTokens(d, n).size();
  return std::shared_ptr<const PassageSegment>();
}

Result<std::shared_ptr<const ScanSegment>> Memory::ScanOrBuild(
    const DocumentRecord& d, uint32_t n, Result<std::shared_ptr<const ScanSegment>> stored,
    const ParallelFor& parallel, IndexReport* report) {
  ++report->segments;
  if (stored.ok() || stored.status().code() != StatusCode::kDataLoss) return stored;
  uint64_t lost = 0;
  std::shared_ptr<const ScanSegment> built = BuildScan(manifest_, d, n, parallel, &lost);
  report->blocks_lost += lost;
  ++report->segments_rebuilt;
  WriteBatch batch;
  batch.Put(Table::kIndex, ScanKey(d.id, n, manifest_.index_generation), built->Encode());
  // The write fails with a read-only store or a full disk. The segment can be used all the same.
  if (Write(std::move(batch), Durability::kBuffered).ok()) ++report->segments_stored;
  return built;
}

Result<std::shared_ptr<const LexicalSegment>> Memory::LexicalOrBuild(
    const DocumentRecord& d, uint32_t n, Result<std::shared_ptr<const LexicalSegment>> stored,
    IndexReport* report) {
  ++report->segments;
  if (stored.ok() || stored.status().code() != StatusCode::kDataLoss || vocabulary_ == nullptr)
    return stored;
  Result<std::shared_ptr<const LexicalSegment>> built = BuildLexical(d, n);
  if (!built.ok()) {  // its text is damaged as well
    ++report->segments_lost;
    return std::shared_ptr<const LexicalSegment>();
  }
  ++report->segments_rebuilt;
  WriteBatch batch;
  batch.Put(Table::kIndex, LexicalKey(d.id, n), (*built)->Encode());
  if (Write(std::move(batch), Durability::kBuffered).ok()) ++report->segments_stored;
  return built;
}

uint64_t Memory::SegmentBytes(const DocumentRecord& d) const {
  const auto padded = [](uint64_t tokens) {
    return (tokens + kBlockTokens - 1) / kBlockTokens * kBlockTokens;
  };
  // A key and its scale for every head, and 7 bytes per word, which has at least one token. Vectors
  // of passages are counted when they are read: their number depends on the text.
  return padded(d.committed_tokens) * manifest_.scan_layers.size() *
             (manifest_.head_dim + sizeof(float)) +
         padded(d.searchable_tokens) * 7;
}

// IvfIndex keeps head_dim + 8 bytes per token and head; 4 more are for the segment that it is built
// from.
uint64_t Memory::ListBytes(const DocumentRecord& d) const {
  return d.tokens * manifest_.scan_layers.size() * (manifest_.head_dim + 12);
}

Status Memory::ReserveIndex(uint64_t bytes) {
  if (budget_ == nullptr) return OkStatus();
  if (index_memory_.bytes() == 0) {
    LH_ASSIGN_OR_RETURN(index_memory_, ReserveFor(0, "the index"));
  }
  return index_memory_.Resize(index_memory_.bytes() + bytes);
}

Status Memory::LoadIndexes(const ParallelFor& parallel) {
  if (indexes_loaded_) return OkStatus();
  relevance_ = IvfIndex(ivf_search_);
  lexical_ = LexicalIndex();
  passages_ = PassageIndex();
  index_report_ = {};
  index_memory_.Release();
  const bool heads = !manifest_.scan_layers.empty();
  for (const DocumentRecord& d : documents_) {
    LH_RETURN_IF_ERROR(ReserveIndex(SegmentBytes(d)));
    const uint32_t count = TextSegments(d), key_count = heads ? KeySegments(d) : 0;
    std::vector<Result<std::shared_ptr<const ScanSegment>>> scans(key_count, DataLoss("not read"));
    std::vector<Result<std::shared_ptr<const LexicalSegment>>> words(count, DataLoss("not read"));
    parallel(count, [&](size_t n) {
      if (n < key_count) scans[n] = ReadScan(d, static_cast<uint32_t>(n));
      words[n] = ReadLexical(d, static_cast<uint32_t>(n));
    });
    for (uint32_t n = 0; n < count; ++n) {
      if (n < key_count) {
        LH_ASSIGN_OR_RETURN(auto scan,
                            ScanOrBuild(d, n, std::move(scans[n]), SerialFor, &index_report_));
        LH_RETURN_IF_ERROR(relevance_.Add(std::move(scan)));
      }
      LH_ASSIGN_OR_RETURN(auto lexical, LexicalOrBuild(d, n, std::move(words[n]), &index_report_));
      if (lexical != nullptr) LH_RETURN_IF_ERROR(lexical_.Add(std::move(lexical)));
      if (embedder_ == nullptr) continue;
      LH_ASSIGN_OR_RETURN(auto passages, PassagesOrRebuild(d, n, &index_report_));
      if (passages == nullptr) continue;
      // A stranger's segment may have a vector for each token, so what it has is counted.
      LH_RETURN_IF_ERROR(ReserveIndex(PassageIndex::Bytes(*passages)));
      LH_RETURN_IF_ERROR(passages_.Add(*passages));
    }
    if (!WantsLists(d)) continue;
    // Scanning is slower but gives correct answers, so neither lack of memory nor damaged lists are
    // an error.
    if (!ReserveIndex(ListBytes(d)).ok()) continue;
    const Result<std::vector<IvfSegment>> lists = ReadAllLists(d);
    if (!lists.ok() || !relevance_.AddLists(*lists).ok()) ++index_report_.lists_lost;
  }
  indexes_loaded_ = true;
  return OkStatus();
}

bool Memory::WantsLists(const DocumentRecord& d) const {
  return !manifest_.scan_layers.empty() && committed_tokens() >= ivf_limits_.memory_tokens_min &&
         d.complete() && d.tokens >= ivf_limits_.document_tokens_min && d.tokens <= kIvfTokensMax;
}

Result<IvfSegment> Memory::ReadLists(const DocumentRecord& d, uint32_t head) const {
  const auto damaged = [&](const std::string& why) {
    return DataLoss("memory " + name_ + ": inverted lists of head " + std::to_string(head) +
                    " of " + d.name + ": " + why + "; 'longhold reindex " + name_ +
                    "' builds them again");
  };
  const Result<std::string> bytes = store_->Get(Table::kIndex, ListsKey(d.id, head));
  if (!bytes.ok())
    return bytes.status().code() == StatusCode::kDataLoss ? damaged(bytes.status().message())
                                                          : bytes.status();
  Result<IvfSegment> lists = IvfSegment::Decode(*bytes);
  if (!lists.ok()) return damaged(lists.status().message());
  if (lists->document != d.id || lists->head != head || lists->tokens != d.tokens)
    return damaged("belong to another head or document");
  return lists;
}

Result<std::vector<IvfSegment>> Memory::ReadAllLists(const DocumentRecord& d) const {
  std::vector<IvfSegment> all;
  for (uint32_t head = 0; head < manifest_.scan_layers.size(); ++head) {
    LH_ASSIGN_OR_RETURN(IvfSegment lists, ReadLists(d, head));
    all.push_back(std::move(lists));
  }
  return all;
}

Status Memory::BuildLists(const ParallelFor& parallel) {
  const auto wants = [&](const DocumentRecord& d) { return WantsLists(d); };
  if (std::none_of(documents_.begin(), documents_.end(), wants)) return OkStatus();
  LH_RETURN_IF_ERROR(LoadIndexes());
  for (const DocumentRecord& d : documents_) {
    if (!WantsLists(d) || relevance_.HasLists(d.id)) continue;
    if (!ReserveIndex(ListBytes(d)).ok()) continue;
    std::vector<IvfSegment> lists;
    for (uint32_t head = 0; head < manifest_.scan_layers.size(); ++head) {
      LH_ASSIGN_OR_RETURN(IvfSegment segment,
                          BuildIvfSegment(relevance_.Segments(d.id), head, parallel));
      // One write per head: the store accepts no batch of 2 GiB. Lists of only some heads are not
      // used.
      WriteBatch batch;
      batch.Put(Table::kIndex, ListsKey(d.id, head), segment.Encode());
      // As with a rebuilt segment: lists that cannot be stored can be used all the same.
      (void)Write(std::move(batch), Durability::kBuffered);
      lists.push_back(std::move(segment));
    }
    LH_RETURN_IF_ERROR(relevance_.AddLists(lists));
  }
  index_report_.lists_lost = 0;
  return OkStatus();
}

Status Memory::VerifySegments(const DocumentRecord& d) const {
  for (uint32_t n = 0; n < TextSegments(d); ++n) {
    LH_RETURN_IF_ERROR(ReadLexical(d, n).status());
    const Status passages = ReadPassages(d, n).status();
    if (!passages.ok() && passages.code() != StatusCode::kNotFound) return passages;
  }
  for (uint32_t n = 0; n < KeySegments(d); ++n) {
    if (!manifest_.scan_layers.empty()) LH_RETURN_IF_ERROR(ReadScan(d, n).status());
    // A memory of an earlier version has no summaries yet.
    const Status summaries = ReadSummaries(d, n).status();
    if (!summaries.ok() && summaries.code() != StatusCode::kNotFound) return summaries;
  }
  if (!WantsLists(d)) return OkStatus();
  for (uint32_t head = 0; head < manifest_.scan_layers.size(); ++head) {
    const Status lists = ReadLists(d, head).status();
    // Missing lists are no damage: the last document may have taken the memory beyond the limit, or
    // building was interrupted.
    if (!lists.ok() && lists.code() != StatusCode::kNotFound) return lists;
  }
  return OkStatus();
}

Result<IndexReport> Memory::Reindex(
    const RecallProfile& profile, const ParallelFor& parallel, const std::atomic<bool>* stop,
    const std::function<void(uint64_t done, uint64_t total)>& on_progress) {
  Manifest next = manifest_;
  const bool other_heads = !HasHeadsOf(profile);
  next.profile = profile.name;
  if (other_heads) {
    ++next.index_generation;
    next.scan_layers.clear();
    next.scan_kv_heads.clear();
    for (const RecallHead& head : profile.heads) {
      next.scan_layers.push_back(head.layer);
      next.scan_kv_heads.push_back(head.kv_head);
    }
  }
  IndexReport report;
  uint64_t done = 0;
  WriteBatch last;
  for (const DocumentRecord& d : documents_) {
    for (uint32_t n = 0; n < TextSegments(d); ++n) {
      if (stop != nullptr && stop->load())
        return Cancelled("reindexing of memory " + name_ + ": stopped; the memory is unchanged");
      LH_RETURN_IF_ERROR(LexicalOrBuild(d, n, ReadLexical(d, n), &report).status());
      if (embedder_ != nullptr) {
        const Result<std::shared_ptr<const PassageSegment>> passages = ReadPassages(d, n);
        ++report.segments;
        if (!passages.ok() && passages.status().code() != StatusCode::kNotFound &&
            passages.status().code() != StatusCode::kDataLoss)
          return passages.status();
        if (!passages.ok()) LH_RETURN_IF_ERROR(BuildPassages(d, n, &report).status());
      }
      done += TextTokens(d, n).size();
      if (on_progress) on_progress(done, searchable_tokens());
      if (n >= KeySegments(d)) continue;
      // Damaged summaries are deleted. They are made from the blocks when they are needed.
      if (ReadSummaries(d, n).status().code() == StatusCode::kDataLoss)
        last.Delete(Table::kIndex, SummariesKey(d.id, n));
      if (other_heads) {
        last.Delete(Table::kIndex, ScanKey(d.id, n, manifest_.index_generation));
        if (!next.scan_layers.empty()) {
          ++report.segments;
          ++report.segments_rebuilt;
          ++report.segments_stored;
          WriteBatch batch;
          batch.Put(Table::kIndex, ScanKey(d.id, n, next.index_generation),
                    BuildScan(next, d, n, parallel, &report.blocks_lost)->Encode());
          LH_RETURN_IF_ERROR(Write(std::move(batch), Durability::kBuffered));
        }
      } else if (!manifest_.scan_layers.empty()) {
        LH_RETURN_IF_ERROR(ScanOrBuild(d, n, ReadScan(d, n), parallel, &report).status());
      }
    }
  }
  if (other_heads) {
    for (const DocumentRecord& d : documents_) {
      for (uint32_t head = 0; head < manifest_.scan_layers.size(); ++head)
        last.Delete(Table::kIndex, ListsKey(d.id, head));
    }
  }
  last.Put(Table::kMeta, kManifestKey, Encode(next));
  LH_RETURN_IF_ERROR(Write(std::move(last), Durability::kSynced));
  manifest_ = next;
  indexes_loaded_ = false;
  return report;
}

}  // namespace longhold
