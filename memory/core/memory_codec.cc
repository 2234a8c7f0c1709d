// The codec of a memory's blocks: the basis of the archive codec, and recoding.
#include <algorithm>

#include "attention/kernels.h"
#include "memory/core/memory.h"
#include "memory/record/record_keys.h"

namespace longhold {
namespace {

// The most blocks from which a basis is learned: 141 MB for SmolLM2.
constexpr size_t kFitBlocksMax = 96;
// Blocks that are recoded at a time.
constexpr size_t kBlocksAtATime = 16;

void Multiply(const float* a, const float* b, float* out, uint32_t rows, uint32_t depth,
              uint32_t columns) {
  Kernels().multiply_add(
      {.a = a, .b = b, .out = out, .rows = rows, .depth = depth, .columns = columns});
}

// RAM of a basis. Encoding also needs its transpose.
uint64_t BasisBytes(const TransformBasis& basis) { return 2 * basis.ram_bytes(); }

}  // namespace

const BlockCodec& Memory::codec() const {
  if (codec_ != nullptr) return *codec_;
  return archive_ != nullptr ? *archive_ : *FindCodec(kDefaultCodec);
}

Result<MemoryReservation> Memory::ReserveFor(uint64_t bytes, const std::string& what) const {
  if (budget_ == nullptr) return MemoryReservation();
  return budget_->Reserve(bytes, what + " of memory " + name_);
}

Status Memory::UseBudget(MemoryBudget* budget) {
  budget_ = budget;
  LH_ASSIGN_OR_RETURN(basis_memory_, ReserveFor(basis_bytes_, "the codec's basis"));
  return OkStatus();
}

void Memory::UseBasis(TransformBasis basis) {
  basis_bytes_ = BasisBytes(basis);
  archive_ = NewTransformCodec(std::string(kArchiveCodec),
                               std::make_shared<const TransformBasis>(std::move(basis)), Multiply);
}

// There is no budget yet; UseBudget reserves the RAM.
void Memory::LoadBasis() {
  Result<TransformBasis> basis = ReadBasis();
  basis_status_ = basis.status();
  if (basis.ok()) UseBasis(std::move(*basis));
}

Result<TransformBasis> Memory::ReadBasis() const {
  LH_ASSIGN_OR_RETURN(const std::string bytes, store_->Get(Table::kMeta, kBasisKey));
  return TransformBasis::Decode(bytes, block_shape());
}

Status Memory::LearnBasis() {
  // An unreadable basis is not replaced: it may be intact nevertheless, and blocks depend on it.
  if (manifest_.codec != kArchiveCodec || basis_status_.code() != StatusCode::kNotFound)
    return OkStatus();
  // Whole blocks after the sinks, in document order, so that every call after the same commit uses
  // the same blocks.
  std::vector<BlockKey> candidates;
  for (const DocumentRecord& d : documents_) {
    const auto sinks = static_cast<uint32_t>(manifest_.sink_tokens / kBlockTokens);
    for (uint32_t b = sinks; (uint64_t{b} + 1) * kBlockTokens <= d.committed_tokens; ++b)
      candidates.push_back({d.id, b});
  }
  // kFitBlocks blocks have 4,096 tokens. A few are missing: sinks and a document's last tokens are
  // in no candidate.
  constexpr size_t kNeeded = TransformBasis::kFitBlocks - 4;
  if (candidates.size() < kNeeded) return OkStatus();
  size_t count = std::min(kFitBlocksMax, candidates.size());
  // The blocks, and three float copies of one channel group.
  const uint64_t block_bytes = block_shape().Elements() * sizeof(uint16_t);
  const uint64_t group_bytes =
      uint64_t{3} * kBlockTokens * 2 * TransformBasis::kGroupChannelsMax * sizeof(float);
  if (budget_ != nullptr) count = budget_->RoomFor(count, block_bytes + group_bytes);
  if (count < kNeeded) return OkStatus();
  LH_ASSIGN_OR_RETURN(MemoryReservation learning, ReserveFor(count * (block_bytes + group_bytes),
                                                             "learning the codec's basis"));
  std::vector<KvBlock> blocks;
  for (size_t i = 0; i < count; ++i) {
    Result<KvBlock> block = LoadBlock(candidates[i * candidates.size() / count]);
    if (block.ok()) blocks.push_back(std::move(*block));
  }
  if (blocks.size() < kNeeded) return OkStatus();
  Result<TransformBasis> basis = TransformBasis::Fit(blocks, kArchiveStep, Multiply);
  // No token of the blocks has only finite elements. The default codec stores such blocks.
  if (basis.status().code() == StatusCode::kInvalidArgument) return OkStatus();
  if (!basis.ok()) return basis.status();
  blocks = {};
  learning.Release();
  WriteBatch batch;
  batch.Put(Table::kMeta, kBasisKey, basis->Encode());
  // The basis is not used before it is stored, and not stored if there is no RAM to use it.
  LH_ASSIGN_OR_RETURN(basis_memory_, ReserveFor(BasisBytes(*basis), "the codec's basis"));
  LH_RETURN_IF_ERROR(Write(std::move(batch), Durability::kSynced));
  UseBasis(std::move(*basis));
  basis_status_ = OkStatus();
  return OkStatus();
}

Result<RecodeReport> Memory::Recode(
    std::string_view codec, const ParallelFor& parallel, const std::atomic<bool>* stop,
    const std::function<void(uint64_t done, uint64_t total)>& on_progress) {
  LH_CHECK(IsCodecName(codec));
  if (manifest_.codec != codec) {
    Manifest next = manifest_;
    next.codec = codec;
    LH_RETURN_IF_ERROR(PutManifest(std::move(next)));
    codec_ = FindCodec(codec);
  }
  LH_RETURN_IF_ERROR(LearnBasis());
  if (codec_ == nullptr && archive_ == nullptr) {
    if (basis_status_.code() != StatusCode::kNotFound)
      return Status(basis_status_.code(), "memory " + name_ + ": " + basis_status_.message());
    if (committed_tokens() >= kCommitTokens) {
      return ResourceExhausted(
          "memory " + name_ +
          ": cannot learn the archive codec's basis: too little memory or too few "
          "readable blocks; give more memory with --memory-budget, or check "
          "the memory with 'longhold verify " +
          name_ + "'");
    }
    return FailedPrecondition(
        "memory " + name_ + ": has too little text to learn the archive codec's basis (" +
        std::to_string(kCommitTokens) + " tokens are needed); ingest more text first");
  }
  // For each block: its bytes, its fp16 elements, and two float copies.
  const uint64_t block_bytes = block_shape().Elements() * sizeof(uint16_t);
  LH_ASSIGN_OR_RETURN(const MemoryReservation coding,
                      ReserveFor(kBlocksAtATime * 4 * block_bytes, "recoding blocks"));
  std::vector<BlockKey> keys;
  for (const DocumentRecord& d : documents_) {
    // An unfinished ingest continues from its blocks, so they must not change.
    if (!d.complete()) continue;
    for (uint32_t b = manifest_.sink_tokens / kBlockTokens; uint64_t{b} * kBlockTokens < d.tokens;
         ++b)
      keys.push_back({d.id, b});
  }
  RecodeReport report;
  report.blocks = keys.size();
  for (size_t begin = 0; begin < keys.size(); begin += kBlocksAtATime) {
    if (stop != nullptr && stop->load())
      return Cancelled("memory " + name_ +
                       ": stopped; recoded blocks are kept, and the same command continues");
    const size_t count = std::min(kBlocksAtATime, keys.size() - begin);
    std::vector<std::string> values(count);
    std::vector<uint8_t> lost(count, 0);
    parallel(count, [&](size_t i) {
      const Result<std::string> bytes =
          store_->Get(Table::kBlocks, NumberedKey(keys[begin + i].document, keys[begin + i].block));
      const Result<KvBlock> block =
          bytes.ok() ? DecodeBlock(*bytes, block_shape(), archive_.get()) : bytes.status();
      lost[i] = !block.ok();
      if (!block.ok()) return;
      std::string value = this->codec().Encode(*block);
      // Recoding a block that has this codec already saves nothing, so it is kept.
      if (value.size() * 20 <= bytes->size() * 19) values[i] = std::move(value);
    });
    WriteBatch batch;
    for (size_t i = 0; i < count; ++i) {
      report.blocks_lost += lost[i];
      if (values[i].empty()) continue;
      ++report.blocks_coded;
      batch.Put(Table::kBlocks, NumberedKey(keys[begin + i].document, keys[begin + i].block),
                std::move(values[i]));
    }
    LH_RETURN_IF_ERROR(Write(std::move(batch), Durability::kBuffered));
    if (on_progress) on_progress(begin + count, keys.size());
  }
  return report;
}

}  // namespace longhold
