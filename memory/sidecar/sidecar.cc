#include "memory/sidecar/sidecar.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "memory/recall/relevance_signal.h"

namespace longhold {
namespace {

// As large as a key's elements may be: logits and their sums then stay finite.
constexpr float kQueryMax = 65504;

// Errors: invalid_argument.
Status CheckPosition(int64_t position) {
  if (position >= -kPositionMax && position <= kPositionMax) return OkStatus();
  return InvalidArgument("position " + std::to_string(position) + ": is beyond 2^40");
}

// A part of a span that lies in one block.
struct Part {
  BlockKey key;
  uint32_t row = 0, count = 0;
  size_t to = 0;         // array row
  int64_t position = 0;  // of its first row
};

std::vector<Part> PartsOf(std::span<const PlacedSpan> spans) {
  std::vector<Part> parts;
  size_t to = 0;
  for (const PlacedSpan& span : spans) {
    for (uint64_t t = span.tokens.begin; t < span.tokens.end;) {
      const auto row = static_cast<uint32_t>(t % kBlockTokens);
      const auto count =
          static_cast<uint32_t>(std::min<uint64_t>(kBlockTokens - row, span.tokens.end - t));
      parts.push_back({{span.document, static_cast<uint32_t>(t / kBlockTokens)},
                       row,
                       count,
                       to,
                       span.position + static_cast<int64_t>(t - span.tokens.begin)});
      t += count;
      to += count;
    }
  }
  return parts;
}

// Errors: not_found, invalid_argument.
Status CheckSpan(const Memory& memory, DocumentId document, TokenSpan span) {
  const auto& all = memory.documents();
  const auto d = std::find_if(all.begin(), all.end(),
                              [&](const DocumentRecord& r) { return r.id == document; });
  if (d == all.end())
    return NotFound("memory " + memory.name() + ": has no document " +
                    std::to_string(static_cast<uint32_t>(document)));
  if (span.empty() || span.end > d->committed_tokens)
    return InvalidArgument("document " + d->name + ": tokens " + std::to_string(span.begin) +
                           " to " + std::to_string(span.end) + " are not among its " +
                           std::to_string(d->committed_tokens) + " committed ones");
  return OkStatus();
}

// Drops spans that do not fit `tokens_max` beside better ones.
void KeepWithin(uint64_t tokens_max, std::vector<RecalledSpan>* spans) {
  uint64_t left = tokens_max;
  std::erase_if(*spans, [&](const RecalledSpan& span) {
    const uint64_t tokens = span.tokens.size() + span.date_tokens.size();
    if (tokens > left) return true;
    left -= tokens;
    return false;
  });
}

}  // namespace

Sidecar::Sidecar(StoreProvider* stores, std::unique_ptr<LanguageModel> model,
                 const SidecarOptions& options)
    : model_(std::move(model)),
      budget_(options.memory_budget_bytes),
      catalog_(stores, &budget_, &notes_,
               {.encryption_key = options.encryption_key, .codec = options.codec}),
      ingestor_(&catalog_, &budget_, &notes_),
      recaller_(&catalog_, &budget_, &notes_, StandardSignals()) {}

Result<std::unique_ptr<Sidecar>> Sidecar::Open(StoreProvider* stores, ModelDescription description,
                                               TextEmbedder* embedder, SidecarOptions options) {
  LH_RETURN_IF_ERROR(description.Check());
  if (options.heads.size() > kScanHeadsMax)
    return InvalidArgument("a memory has at most " + std::to_string(kScanHeadsMax) +
                           " recall heads");
  auto model = std::make_unique<DescribedModel>(std::move(description));
  RecallProfile profile = RecallProfile::For(model->info());
  profile.heads = options.heads;
  if (!profile.heads.empty()) profile.name = "given";
  return OpenWith(stores, std::move(model), embedder, profile, options);
}

Result<std::unique_ptr<Sidecar>> Sidecar::Open(StoreProvider* stores,
                                               std::unique_ptr<LanguageModel> model,
                                               TextEmbedder* embedder, SidecarOptions options) {
  const RecallProfile profile = RecallProfile::For(model->info());
  LH_ASSIGN_OR_RETURN(std::unique_ptr<Sidecar> sidecar,
                      OpenWith(stores, std::move(model), embedder, profile, options));
  sidecar->runs_here_ = true;
  return sidecar;
}

Result<std::unique_ptr<Sidecar>> Sidecar::OpenWith(StoreProvider* stores,
                                                   std::unique_ptr<LanguageModel> model,
                                                   TextEmbedder* embedder,
                                                   const RecallProfile& profile,
                                                   const SidecarOptions& options) {
  if (!IsCodecName(options.codec))
    return InvalidArgument("codec " + options.codec + " is unknown; the codecs are " + CodecList());
  std::unique_ptr<Sidecar> sidecar(new Sidecar(stores, std::move(model), options));
  LH_ASSIGN_OR_RETURN(sidecar->context_,
                      ModelContext::Make(sidecar->model_.get(), &profile, embedder));
  LH_RETURN_IF_ERROR(sidecar->recaller_.UseModel(sidecar->context_.get()));
  sidecar->catalog_.UseModel(sidecar->context_.get());
  sidecar->ingestor_.UseModel(sidecar->context_.get());
  return sidecar;
}

Sidecar::Writer::~Writer() {
  const std::lock_guard lock(sidecar_->mutex_);
  if (writer_ == nullptr) return;
  writer_.reset();
  // Other processes can write to the memory from now on, as after Finish.
  sidecar_->catalog_.Close();
}

DocumentId Sidecar::Writer::document() const { return document_; }

uint64_t Sidecar::Writer::position() const {
  const std::lock_guard lock(sidecar_->mutex_);
  return writer_ != nullptr ? writer_->position() : position_;
}

Status Sidecar::Writer::Append(const KvArrays<const void>& arrays, size_t count,
                               int64_t rotary_position) {
  const std::lock_guard lock(sidecar_->mutex_);
  if (writer_ == nullptr) return FailedPrecondition("the document is finished already");
  if (arrays.layout.rotated) LH_RETURN_IF_ERROR(CheckPosition(rotary_position));
  return writer_->Append(arrays, count, rotary_position);
}

Status Sidecar::Writer::Finish() {
  const std::lock_guard lock(sidecar_->mutex_);
  if (writer_ == nullptr) return OkStatus();
  const Status finished = writer_->Finish();
  position_ = writer_->position();
  writer_.reset();
  // Other processes can write to the memory from now on.
  sidecar_->catalog_.Close();
  return finished;
}

Result<std::unique_ptr<Sidecar::Writer>> Sidecar::Put(const std::string& memory,
                                                      const GivenDocument& document) {
  const std::lock_guard lock(mutex_);
  LH_ASSIGN_OR_RETURN(MemoryLease lease, catalog_.Lease(memory, MemoryCatalog::Access::kCreate,
                                                        MemoryCatalog::Reader::kModel));
  LH_ASSIGN_OR_RETURN(std::unique_ptr<DocumentWriter> writer,
                      DocumentWriter::Begin(std::move(lease), *context_, document));
  std::unique_ptr<Writer> made(new Writer(this, std::move(writer)));
  made->document_ = made->writer_->document();
  return made;
}

Result<IngestReport> Sidecar::Ingest(const std::string& memory, const IngestInput& input,
                                     const std::atomic<bool>* stop) {
  const std::lock_guard lock(mutex_);
  if (!runs_here_) {
    return FailedPrecondition("model " + model().name +
                              ": runs in another engine, so longhold cannot read a text by it; put "
                              "the text with its keys and values");
  }
  Result<IngestReport> report = ingestor_.Ingest(memory, input, stop, nullptr);
  // Other processes can write to the memory from now on.
  catalog_.Close();
  return report;
}

Result<std::vector<ScanQuery>> Sidecar::ScanQueries(const GivenQueries& given) const {
  std::vector<ScanQuery> queries;
  if (given.empty()) return queries;
  const KvGeometry& g = model().geometry;
  const std::vector<RecallHead>& heads = context_->profile.heads;
  if (given.heads.size() != heads.size() || given.tokens == 0 || given.tokens > kQueryTokensMax) {
    return InvalidArgument("got queries of " + std::to_string(given.heads.size()) + " heads for " +
                           std::to_string(given.tokens) + " tokens; the model was described with " +
                           std::to_string(heads.size()) +
                           " recall heads, and a question has 1 to " +
                           std::to_string(kQueryTokensMax) + " tokens");
  }
  if (given.rotated) LH_RETURN_IF_ERROR(CheckPosition(given.position));
  const RopeTables ropes(g, given.rotated ? static_cast<uint32_t>(given.tokens) : 0,
                         given.position);
  const size_t row = size_t{g.group()} * g.head_dim;
  for (size_t h = 0; h < heads.size(); ++h) {
    ScanQuery& query = queries.emplace_back();
    query.head = static_cast<uint32_t>(h);
    query.rows = static_cast<uint32_t>(given.tokens * g.group());
    query.head_dim = g.head_dim;
    query.scale = g.scale;
    query.q.assign(given.heads[h], given.heads[h] + given.tokens * row);
    query.row_weight.assign(query.rows, 1.0f);
    // Not a comparison with >, which NaN would pass.
    if (!std::all_of(query.q.begin(), query.q.end(),
                     [](float x) { return std::abs(x) <= kQueryMax; })) {
      return InvalidArgument("queries of recall head " + std::to_string(h) +
                             ": an element is not finite, or above 65504");
    }
    if (!given.rotated) continue;
    const auto slot = static_cast<uint32_t>(
        std::lower_bound(g.layers.begin(), g.layers.end(), heads[h].layer) - g.layers.begin());
    for (uint32_t r = 0; r < query.rows; ++r) {
      float* q = query.q.data() + size_t{r} * g.head_dim;
      ropes.Of(slot).Unrotate(q, q, g.head_dim, r / g.group());
    }
  }
  return queries;
}

Result<RecallReply> Sidecar::Plan(const std::string& memory, const PlanRequest& request) {
  const std::lock_guard lock(mutex_);
  RecallOptions options;
  options.spans_max = request.spans_max;
  options.rerank_spans = 0;
  options.probe_heads = runs_here_;
  LH_ASSIGN_OR_RETURN(options.head_queries, ScanQueries(request.queries));
  if (!options.head_queries.empty()) {
    LH_ASSIGN_OR_RETURN(const MemoryLease lease, LeaseToRead(memory));
    if (!lease->HasHeadsOf(context_->profile)) {
      return FailedPrecondition("memory " + memory +
                                ": is indexed for other recall heads than the model was "
                                "described with");
    }
  }
  LH_ASSIGN_OR_RETURN(RecallReply reply, recaller_.Recall(memory, request.question, options));
  // Only what a model has read can be fetched.
  std::erase_if(reply.spans, [](const RecalledSpan& span) { return span.provisional; });
  if (request.tokens_max > 0) KeepWithin(request.tokens_max, &reply.spans);
  return reply;
}

Result<MemoryLease> Sidecar::LeaseToRead(const std::string& memory) {
  return catalog_.Lease(memory, MemoryCatalog::Access::kRead, MemoryCatalog::Reader::kModel);
}

Status Sidecar::Fetch(const std::string& memory, std::span<const PlacedSpan> spans,
                      const KvArrays<void>& arrays) {
  const std::lock_guard lock(mutex_);
  if (spans.size() > kPlacesMax)
    return InvalidArgument("at most " + std::to_string(kPlacesMax) + " places can be fetched");
  LH_ASSIGN_OR_RETURN(const MemoryLease lease, LeaseToRead(memory));
  for (const PlacedSpan& span : spans) {
    LH_RETURN_IF_ERROR(CheckSpan(*lease, span.document, span.tokens));
    if (arrays.layout.rotated) LH_RETURN_IF_ERROR(CheckPosition(span.position));
  }
  std::vector<Part> parts = PartsOf(spans);
  // A block that several spans need is read once.
  std::stable_sort(parts.begin(), parts.end(),
                   [](const Part& a, const Part& b) { return a.key < b.key; });
  std::vector<size_t> groups;  // first part of each block
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i == 0 || parts[i].key != parts[i - 1].key) groups.push_back(i);
  }
  std::vector<Status> statuses(groups.size());
  const KvGeometry& geometry = model().geometry;
  WorkersOf (*model_)(groups.size(), [&](size_t n) {
    const size_t end = n + 1 < groups.size() ? groups[n + 1] : parts.size();
    const Result<KvBlock> block = lease->LoadBlock(parts[groups[n]].key);
    statuses[n] = block.status();
    for (size_t i = groups[n]; block.ok() && i < end; ++i) {
      const Part& part = parts[i];
      const RopeTables ropes(geometry, arrays.layout.rotated ? part.count : 0, part.position);
      CopyRows(geometry, *block, part.row, part.count, &ropes, part.to, arrays);
    }
  });
  for (const Status& status : statuses) LH_RETURN_IF_ERROR(status);
  return OkStatus();
}

Result<std::vector<TokenId>> Sidecar::Tokens(const std::string& memory, DocumentId document,
                                             TokenSpan span) {
  const std::lock_guard lock(mutex_);
  LH_ASSIGN_OR_RETURN(const MemoryLease lease, LeaseToRead(memory));
  LH_RETURN_IF_ERROR(CheckSpan(*lease, document, span));
  return lease->Tokens(document, span);
}

Result<StoredPrefix> Sidecar::LongestPrefix(const std::string& memory,
                                            std::span<const TokenId> tokens) {
  // Compared at a time, so that a document that begins otherwise costs one chunk of text.
  constexpr uint64_t kStepTokens = 512;
  const std::lock_guard lock(mutex_);
  LH_ASSIGN_OR_RETURN(const MemoryLease lease, LeaseToRead(memory));
  StoredPrefix best;
  for (const DocumentRecord& d : lease->documents()) {
    const uint64_t most = std::min<uint64_t>(d.committed_tokens, tokens.size());
    if (most <= best.tokens) continue;
    uint64_t same = 0;
    while (same < most) {
      const TokenSpan step{same, std::min(most, same + kStepTokens)};
      LH_ASSIGN_OR_RETURN(const std::vector<TokenId> stored, lease->Tokens(d.id, step));
      const auto [differs, _] = std::mismatch(stored.begin(), stored.end(),
                                              tokens.begin() + static_cast<ptrdiff_t>(same));
      same += static_cast<uint64_t>(differs - stored.begin());
      if (differs != stored.end()) break;
    }
    if (same > best.tokens) best = {d.id, same};
  }
  return best;
}

Status Sidecar::Forget(const std::string& memory, const std::string& document) {
  const std::lock_guard lock(mutex_);
  const Status forgotten = catalog_.Forget(memory, document, /*compact=*/false);
  catalog_.Close();
  return forgotten;
}

Result<MemoryInfo> Sidecar::Show(const std::string& memory) {
  const std::lock_guard lock(mutex_);
  return catalog_.Show(memory);
}

Result<std::vector<MemoryInfo>> Sidecar::List(const std::string& tenant) {
  const std::lock_guard lock(mutex_);
  return catalog_.List(tenant);
}

std::vector<std::string> Sidecar::TakeNotes() {
  const std::lock_guard lock(mutex_);
  return notes_.Take();
}

}  // namespace longhold
