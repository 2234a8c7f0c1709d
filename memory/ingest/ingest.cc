#include "memory/ingest/ingest.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>

#include "base/hash.h"
#include "memory/attend/pass_blocks.h"
#include "memory/ingest/held_versions.h"
#include "memory/ingest/segment_writer.h"
#include "memory/ingest/text_segments.h"

namespace longhold {
namespace {

using Clock = std::chrono::steady_clock;

// Native positions stay below twice this (Reader::NativePosition), because libllama computes RoPE
// in float32. At this position it is 0.004 rad off.
constexpr uint64_t kRebaseTokens = 32768;
// Tokens at the start and at the end of a document over which speed is reported.
constexpr uint64_t kSpeedTokens = 65536;

double Seconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// The length of the next chunk. Text is cut after the last newline within the limit, else after the
// last space, else between characters.
size_t ChunkEnd(std::string_view text) {
  if (text.size() <= kChunkBytesMax) return text.size();
  const std::string_view head = text.substr(0, kChunkBytesMax);
  if (const size_t line = head.rfind('\n'); line != std::string_view::npos) return line + 1;
  if (const size_t space = head.rfind(' '); space != std::string_view::npos && space > 0)
    return space;
  size_t end = kChunkBytesMax;
  while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) --end;
  return end;
}

// Returns how many bytes of `text` each token represents. Some tokenizers rewrite text (spaces,
// Unicode forms), so the tokens' pieces do not always add up to it. A piece that does not match is
// searched a little further on, and skipped bytes are assigned to the token before. A wrong match
// further on would misalign everything after it. So a match that skips more than white space or one
// rewritten character must be confirmed by the pieces after it.
std::vector<uint16_t> AlignTokens(const LanguageModel& model, std::string_view text,
                                  const std::vector<TokenId>& tokens) {
  constexpr size_t kLookAhead = 64;
  constexpr size_t kCharacter = 3;  // e and a combining accent
  constexpr size_t kProof = 16;
  std::vector<std::string> pieces;
  for (const TokenId token : tokens) pieces.push_back(model.Piece(token));
  std::vector<uint16_t> bytes(tokens.size(), 0);
  size_t at = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::string_view piece = pieces[i];
    const std::string_view rest = text.substr(at);
    // A space that the tokenizer added at the start of the text or next to an existing space.
    if (piece.size() > 1 && piece[0] == ' ' && (at == 0 || text[at - 1] == ' ') &&
        !rest.starts_with(piece) && rest.starts_with(piece.substr(1))) {
      piece.remove_prefix(1);
    }
    if (piece.empty()) continue;
    size_t skipped = rest.substr(0, piece.size() + kLookAhead).find(piece);
    if (skipped == std::string_view::npos) continue;
    if (skipped > kCharacter &&
        rest.substr(0, skipped).find_first_not_of(" \t\r\n") != std::string_view::npos) {
      std::string proof;
      for (size_t j = i; j < pieces.size() && proof.size() < kProof; ++j) proof += pieces[j];
      skipped = rest.substr(0, proof.size() + kLookAhead).find(proof);
      if (skipped == std::string_view::npos) continue;
    }
    const size_t before = i > 0 ? i - 1 : 0;
    bytes[before] = static_cast<uint16_t>(bytes[before] + skipped);
    bytes[i] = static_cast<uint16_t>(bytes[i] + piece.size());
    at += skipped + piece.size();
  }
  if (!bytes.empty() && at < text.size())
    bytes.back() = static_cast<uint16_t>(bytes.back() + (text.size() - at));
  return bytes;
}

// The pass length for a new document: a power of two, so that commits fall on the end of a pass.
uint32_t PassTokens(const LanguageModel& model) {
  uint32_t tokens = kBlockTokens;
  while (2 * tokens <= std::min(model.batch_tokens(), kCommitTokens)) tokens *= 2;
  return tokens;
}

// Reads one document into the memory.
class Reader {
 public:
  Reader(LanguageModel& model, Memory& memory, const LexicalVocabulary& vocabulary,
         const DocumentRecord& document)
      : model_(model),
        memory_(memory),
        document_(document.id),
        window_(model.info().geometry, {memory.manifest().sink_tokens,
                                        memory.manifest().window_tokens, document.pass_tokens}),
        writer_(&memory, &vocabulary, model.info().geometry, WorkersOf(model), document.id) {}

  // Continues where the last commit ended.
  Status Restore(const DocumentRecord& record);
  // Reads the next tokens: runs one forward pass and stores its blocks. Must hold: at most the
  // document's pass_tokens.
  Status Read(std::span<const TokenId> tokens);
  // Commits the tokens read so far. `last`: the document is complete, so no resume state is stored.
  Status Commit(bool last);

 private:
  // Native position of a token. Positions from 2 * kRebaseTokens on are folded back into
  // [kRebaseTokens, 2 * kRebaseTokens). That leaves room before them for the native window.
  uint32_t NativePosition(uint64_t token) const {
    if (token < kRebaseTokens) return static_cast<uint32_t>(token);
    return static_cast<uint32_t>(token % kRebaseTokens + kRebaseTokens);
  }

  LanguageModel& model_;
  Memory& memory_;
  DocumentId document_;
  HotWindow window_;
  SegmentWriter writer_;
  std::deque<KvBlock> recent_;  // the window's blocks, not quantised
};

Status Reader::Restore(const DocumentRecord& record) {
  const uint64_t committed = record.committed_tokens;
  model_.NativeForget(0, UINT32_MAX);
  if (committed == 0) return OkStatus();
  LH_ASSIGN_OR_RETURN(const ResumeRecord resume, memory_.LoadResume(document_));
  if (resume.tokens != committed) {
    return DataLoss("document " + record.name + ": its resume state is for token " +
                    std::to_string(resume.tokens) + ", not " + std::to_string(committed) +
                    "; forget and ingest it again");
  }
  LH_RETURN_IF_ERROR(model_.NativeRestore(resume.native));

  std::map<uint32_t, KvBlock> blocks;
  const auto load = [&](uint64_t begin, uint64_t end) -> Status {
    for (uint64_t b = begin / kBlockTokens; b * kBlockTokens < end; ++b) {
      const uint32_t index = static_cast<uint32_t>(b);
      if (blocks.count(index)) continue;
      LH_ASSIGN_OR_RETURN(blocks[index], memory_.LoadBlock({document_, index}));
    }
    return OkStatus();
  };
  const Manifest& m = memory_.manifest();
  LH_RETURN_IF_ERROR(load(0, std::min<uint64_t>(m.sink_tokens, committed)));
  const uint64_t window_blocks = std::min<uint64_t>(m.window_tokens, committed) / kBlockTokens;
  const uint64_t window_begin = committed - window_blocks * kBlockTokens;
  if (resume.window.empty()) {
    LH_RETURN_IF_ERROR(load(window_begin, committed));
    LH_RETURN_IF_ERROR(load(committed / kCommitTokens * kCommitTokens, committed));
  } else {
    // Stored blocks are quantised. The resume state has the exact ones, so that the following
    // tokens get the same keys and values.
    const Status damaged = DataLoss("document " + record.name +
                                    ": its resume state is damaged; forget and ingest it again");
    const size_t bytes = resume.window.size() / window_blocks;
    for (uint64_t i = 0; i < window_blocks; ++i) {
      Result<KvBlock> block = ExactCodec().Decode(
          std::string_view(resume.window).substr(i * bytes, bytes), memory_.block_shape());
      if (!block.ok() || block->tokens != kBlockTokens) return damaged;
      blocks[static_cast<uint32_t>(window_begin / kBlockTokens + i)] = std::move(*block);
    }
  }
  const auto block = [&](uint32_t b) -> const KvBlock& { return blocks.at(b); };
  LH_RETURN_IF_ERROR(writer_.Restore(resume.window.empty() ? nullptr : &resume.keys, block));
  for (uint64_t b = window_begin / kBlockTokens; b * kBlockTokens < committed; ++b)
    recent_.push_back(blocks.at(static_cast<uint32_t>(b)));
  window_.Restore(committed, block);
  return OkStatus();
}

Status Reader::Read(std::span<const TokenId> tokens) {
  const uint64_t begin = window_.position();
  const uint32_t count = static_cast<uint32_t>(tokens.size());
  const uint32_t native = NativePosition(begin);
  if (begin >= 2 * kRebaseTokens && begin % kRebaseTokens == 0) {
    // Token `begin` would have position 2 * kRebaseTokens, so it and the window before it move
    // back.
    const uint32_t window = static_cast<uint32_t>(2 * kRebaseTokens);
    LH_RETURN_IF_ERROR(model_.NativeShift(0, window, -static_cast<int32_t>(kRebaseTokens)));
  }
  window_.BeginPass(count);
  LH_RETURN_IF_ERROR(model_.Forward(tokens, native, &window_, /*want_logits=*/false));
  window_.EndPass();

  std::vector<KvBlock> blocks = PassBlocks(window_, memory_.block_shape(), count);
  LH_RETURN_IF_ERROR(writer_.Append(static_cast<uint32_t>(begin / kBlockTokens), blocks));
  for (KvBlock& block : blocks) recent_.push_back(std::move(block));
  while (recent_.size() > memory_.manifest().window_tokens / kBlockTokens) recent_.pop_front();
  return OkStatus();
}

Status Reader::Commit(bool last) {
  const uint64_t end = window_.position();
  if (end == writer_.committed()) return OkStatus();
  if (last) return writer_.Commit(end, nullptr, nullptr);
  ResumeRecord resume;
  resume.tokens = end;
  LH_ASSIGN_OR_RETURN(resume.native, model_.NativeSave());
  if (memory_.manifest().codec != ExactCodec().name()) {
    for (const KvBlock& block : recent_) resume.window += ExactCodec().Encode(block);
    if (end % kCommitTokens != 0) resume.keys = writer_.SaveKeys();
  }
  return writer_.Commit(end, &resume, nullptr);
}

// Ingest speed over the last few seconds, and at the start and end of the document.
class Speedometer {
 public:
  Speedometer() { marks_.push_back({Clock::now(), 0}); }
  void Add(uint64_t tokens) { marks_.push_back({Clock::now(), marks_.back().tokens + tokens}); }
  uint64_t tokens() const { return marks_.back().tokens; }
  double seconds() const { return Seconds(marks_.front().time, marks_.back().time); }
  double Recent() const {
    size_t i = marks_.size() - 1;
    while (i > 0 && Seconds(marks_[i].time, marks_.back().time) < 5.0) --i;
    return Rate(marks_[i], marks_.back());
  }
  double First(uint64_t tokens) const {
    size_t i = 0;
    while (i + 1 < marks_.size() && marks_[i].tokens < tokens) ++i;
    return Rate(marks_.front(), marks_[i]);
  }
  double Last(uint64_t tokens) const {
    size_t i = marks_.size() - 1;
    while (i > 0 && marks_.back().tokens - marks_[i].tokens < tokens) --i;
    return Rate(marks_[i], marks_.back());
  }

 private:
  struct Mark {
    Clock::time_point time;
    uint64_t tokens;
  };
  static double Rate(const Mark& from, const Mark& to) {
    const double s = Seconds(from.time, to.time);
    return s > 0 ? static_cast<double>(to.tokens - from.tokens) / s : 0;
  }
  std::vector<Mark> marks_;  // one per pass of 512 tokens: 16 bytes each
};

}  // namespace

Result<std::vector<TextChunk>> TokenizeText(const LanguageModel& model, std::string_view text) {
  std::vector<TextChunk> chunks;
  uint64_t bytes = 0, lines = 0, tokens = 0;
  while (bytes < text.size()) {
    TextChunk chunk;
    chunk.byte_begin = bytes;
    chunk.line_begin = lines;
    chunk.token_begin = tokens;
    const std::string_view rest = text.substr(bytes);
    chunk.text = std::string(rest.substr(0, ChunkEnd(rest)));
    LH_ASSIGN_OR_RETURN(chunk.tokens, model.Tokenize(chunk.text, /*special=*/false));
    if (chunk.tokens.empty()) {
      return InvalidArgument("the model's tokenizer produces no tokens for the text at byte " +
                             std::to_string(bytes));
    }
    chunk.token_bytes = AlignTokens(model, chunk.text, chunk.tokens);
    if (chunks.empty() && model.Bos() >= 0) {
      chunk.tokens.insert(chunk.tokens.begin(), model.Bos());
      chunk.token_bytes.insert(chunk.token_bytes.begin(), 0);
    }
    bytes += chunk.text.size();
    lines += static_cast<uint64_t>(std::count(chunk.text.begin(), chunk.text.end(), '\n'));
    tokens += chunk.tokens.size();
    chunks.push_back(std::move(chunk));
  }
  return chunks;
}

uint64_t IngestBytes(const KvGeometry& geometry, const HotWindowOptions& window,
                     uint64_t text_bytes) {
  const uint64_t pass_tokens = window.pass_tokens;
  const uint64_t listed = window.sink_tokens + window.window_tokens + pass_tokens;
  const uint64_t row_bytes = geometry.layers.size() * geometry.kv_width() * 2 * sizeof(uint16_t);
  // The window holds fp16 rows of all layers and float panels of one layer. The pass's blocks are
  // copied from it, encoded in parallel (each block needs its floats and its bytes) and stored. The
  // last window's blocks are kept for the resume state. The keys and words of the unfinished
  // segment are small compared with these.
  const uint64_t coding = pass_tokens * row_bytes + 2 * uint64_t{kBlockTokens} * row_bytes * 2;
  const uint64_t panels = listed * geometry.kv_width() * 2 * sizeof(float);
  // The text is also held as chunks, with six bytes per token, and twice while the chunks are
  // written.
  return listed * row_bytes + panels + 2 * pass_tokens * row_bytes + coding +
         2 * window.window_tokens * row_bytes + 6 * text_bytes;
}

namespace {

// Number of tokens that end within the first `bytes` of the text.
uint64_t TokensWithin(std::span<const TextChunk> chunks, uint64_t bytes) {
  uint64_t tokens = 0;
  for (const TextChunk& chunk : chunks) {
    uint64_t end = chunk.byte_begin;
    for (const uint16_t length : chunk.token_bytes) {
      end += length;
      if (end > bytes) return tokens;
      ++tokens;
    }
  }
  return tokens;
}

// Adds the record and the text of a new document, of which no token has been read yet. Errors: the
// tokenizer's; failed_precondition (the owner's disk quota).
Result<DocumentId> AddDocument(const LanguageModel& model, Memory& memory, const IngestInput& input,
                               const std::string& sha256, uint32_t version,
                               const DiskAllowance& allowance) {
  LH_ASSIGN_OR_RETURN(const std::vector<TextChunk> chunks, TokenizeText(model, input.text));
  DocumentRecord record;
  record.name = input.name;
  record.sha256 = sha256;
  record.version = version;
  record.bytes = input.text.size();
  record.tokens = chunks.back().token_begin + chunks.back().tokens.size();
  record.pass_tokens = PassTokens(model);
  record.assistant_begin = TokensWithin(chunks, input.user_bytes);
  if (record.assistant_begin == record.tokens) record.assistant_begin = 0;
  LH_RETURN_IF_ERROR(allowance.Admit(record.tokens, /*all=*/true));
  return memory.AddDocument(record, chunks);
}

// Errors: failed_precondition (`model` cannot continue the document's ingest).
Status CheckPassTokens(const DocumentRecord& record, const LanguageModel& model,
                       const Memory& memory) {
  // Passes of another length would round differently, and the native cache would be cut at other
  // tokens.
  if (record.pass_tokens > model.batch_tokens() ||
      record.pass_tokens < memory.manifest().sink_tokens) {
    return FailedPrecondition("document " + record.name + ": its ingest began with passes of " +
                              std::to_string(record.pass_tokens) + " tokens, and model " +
                              model.info().name + " cannot continue it (at most " +
                              std::to_string(model.batch_tokens()) +
                              " tokens per pass); forget the document and ingest it again");
  }
  return OkStatus();
}

}  // namespace

Result<IngestReport> IndexDocument(LanguageModel& model, Memory& memory,
                                   const LexicalVocabulary& vocabulary, const IngestInput& input,
                                   const std::atomic<bool>* stop,
                                   const OnIngestProgress& on_progress) {
  IngestReport report;
  const std::string sha256 = Sha256Hex(input.text);
  // An earlier process may have been killed between a commit and this step.
  LH_RETURN_IF_ERROR(memory.LearnBasis());
  DiskAllowance allowance(input.disk_bytes_max, input.name, memory);
  LH_ASSIGN_OR_RETURN(
      const HeldDocument held,
      HoldDocument(memory, input.name, sha256, [&](uint32_t version) -> Result<DocumentId> {
        LH_RETURN_IF_ERROR(allowance.Ask());
        return AddDocument(model, memory, input, sha256, version, allowance);
      }));
  const uint64_t found = memory.Get(held.id).searchable_tokens;
  Speedometer speed;
  if (!held.searchable) {
    LH_RETURN_IF_ERROR(
        MakeDocumentSearchable(memory, vocabulary, held.id, held.retire ? &*held.retire : nullptr,
                               stop, [&](uint64_t tokens) {
                                 speed.Add(tokens - found - speed.tokens());
                                 if (on_progress) {
                                   on_progress({IngestStep::kIndexing, input.name, tokens,
                                                memory.Get(held.id).tokens, speed.Recent()});
                                 }
                               }));
  }
  const DocumentRecord& record = memory.Get(held.id);
  report.outcome = !record.searchable()            ? IngestReport::Outcome::kStopped
                   : record.complete()             ? IngestReport::Outcome::kUnchanged
                   : held.begun || held.searchable ? IngestReport::Outcome::kResumed
                                                   : IngestReport::Outcome::kIngested;
  // Under another name where it is held under that already.
  report.document = record.HasName(input.name) && !record.complete() ? input.name : record.name;
  report.version = record.version;
  report.tokens = record.tokens;
  report.tokens_indexed = record.searchable_tokens - found;
  report.index_seconds = speed.seconds();
  return report;
}

Result<IngestReport> ReadDocument(LanguageModel& model, Memory& memory,
                                  const LexicalVocabulary& vocabulary, DocumentId id,
                                  const DiskBytesMax& disk_bytes_max, const std::atomic<bool>* stop,
                                  const OnIngestProgress& on_progress) {
  LH_CHECK(memory.Get(id).searchable());
  IngestReport report;
  const std::string name = memory.Get(id).name;
  report.document = name;
  DiskAllowance allowance(disk_bytes_max, name, memory);
  LH_RETURN_IF_ERROR(allowance.Ask());
  // An imported document has no resume state, because untrusted native cache data is never given to
  // the model. Its ingest starts again.
  if (memory.Get(id).committed_tokens > 0 &&
      memory.LoadResume(id).status().code() == StatusCode::kNotFound)
    LH_RETURN_IF_ERROR(memory.Restart(id));
  const DocumentRecord record = memory.Get(id);
  report.outcome = record.committed_tokens > 0 ? IngestReport::Outcome::kResumed
                                               : IngestReport::Outcome::kIngested;
  report.version = record.version;
  report.tokens = record.tokens;
  if (record.complete()) return report;
  LH_RETURN_IF_ERROR(CheckPassTokens(record, model, memory));

  Reader reader(model, memory, vocabulary, record);
  LH_RETURN_IF_ERROR(reader.Restore(record));
  // The disk may become full later; RocksDB's error then states the numbers.
  Speedometer speed;
  const auto stopped = [&] { return stop != nullptr && stop->load(); };
  uint64_t position = record.committed_tokens;
  Status admitted;
  while (position < record.tokens && !stopped()) {
    const TokenSpan span{position,
                         std::min<uint64_t>(record.tokens, position + record.pass_tokens)};
    admitted = allowance.Admit(span.size(), /*all=*/false);
    if (!admitted.ok()) break;
    LH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, memory.Tokens(id, span));
    LH_RETURN_IF_ERROR(reader.Read(tokens));
    position = span.end;
    allowance.Wrote(span.size());
    if (position % kCommitTokens == 0 && position < record.tokens) {
      LH_RETURN_IF_ERROR(reader.Commit(false));
      LH_RETURN_IF_ERROR(allowance.Ask());
    }
    speed.Add(span.size());
    if (on_progress)
      on_progress(
          {IngestStep::kReading, name, position, record.tokens, speed.Recent(), span.size()});
  }
  const bool complete = position == record.tokens;
  LH_RETURN_IF_ERROR(reader.Commit(complete));
  LH_RETURN_IF_ERROR(admitted);
  if (complete) {
    // Each commit's resume state has megabytes, and all of them are obsolete now. If reclaiming
    // fails, no data is lost.
    if (record.tokens > kCommitTokens) (void)memory.store().Reclaim(Table::kMeta);
    // This takes seconds, ingest took up to hours. The document is committed already: if the user
    // stops here, it is scanned until the next ingest or compact.
    if (!stopped()) LH_RETURN_IF_ERROR(BuildListsIfRoom(memory, WorkersOf(model)));
  }
  if (!complete) report.outcome = IngestReport::Outcome::kStopped;
  report.tokens_read = speed.tokens();
  report.seconds = speed.seconds();
  report.first_64k_tok_s = speed.First(kSpeedTokens);
  report.last_64k_tok_s = speed.Last(kSpeedTokens);
  return report;
}

Result<IngestReport> IngestDocument(LanguageModel& model, Memory& memory,
                                    const LexicalVocabulary& vocabulary, const IngestInput& input,
                                    const std::atomic<bool>* stop,
                                    const OnIngestProgress& on_progress) {
  LH_ASSIGN_OR_RETURN(const IngestReport indexed,
                      IndexDocument(model, memory, vocabulary, input, stop, on_progress));
  if (indexed.outcome == IngestReport::Outcome::kUnchanged ||
      indexed.outcome == IngestReport::Outcome::kStopped)
    return indexed;
  LH_ASSIGN_OR_RETURN(IngestReport read,
                      ReadDocument(model, memory, vocabulary, memory.Find(input.name)->id,
                                   input.disk_bytes_max, stop, on_progress));
  if (read.outcome != IngestReport::Outcome::kStopped) read.outcome = indexed.outcome;
  read.document = indexed.document;
  read.tokens_indexed = indexed.tokens_indexed;
  read.index_seconds = indexed.index_seconds;
  return read;
}

}  // namespace longhold
