// How a memory's blocks are coded: the archive's basis, and coding blocks anew.
#include <algorithm>

#include "attention/kernels.h"
#include "memory/core/memory.h"
#include "memory/record/record_keys.h"

namespace longhold {
namespace {

// Blocks that a basis is learned from, at most: 141 MB of them for SmolLM2.
constexpr size_t kFitBlocksMax = 96;
// Blocks that are coded at a time.
constexpr size_t kBlocksAtATime = 16;

void Multiply(const float* a, const float* b, float* out, uint32_t rows, uint32_t depth,
              uint32_t columns) {
  Kernels().multiply_add(
      {.a = a, .b = b, .out = out, .rows = rows, .depth = depth, .columns = columns});
}

// RAM of a basis: a writer has it transposed, too.
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

// There is no budget yet: UseBudget reserves.
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
  // One that cannot be read is not replaced: it may be whole all the same, and blocks need it.
  if (manifest_.codec != kArchiveCodec || basis_status_.code() != StatusCode::kNotFound)
    return OkStatus();
  // Whole blocks behind the sinks, in the order of the documents: the same ones whenever this is
  // called after the same commit.
  std::vector<BlockKey> candidates;
  for (const DocumentRecord& d : documents_) {
    const auto sinks = static_cast<uint32_t>(manifest_.sink_tokens / kBlockTokens);
    for (uint32_t b = sinks; (uint64_t{b} + 1) * kBlockTokens <= d.committed_tokens; ++b)
      candidates.push_back({d.id, b});
  }
  // The sinks and a document's last tokens are in none of them.
  constexpr size_t kNeeded = TransformBasis::kFitBlocks - 4;
  if (candidates.size() < kNeeded) return OkStatus();
  size_t count = std::min(kFitBlocksMax, candidates.size());
  // The blocks, and one group's numbers three times as floats.
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
  // Blocks without a finite number have no basis; the default codec keeps them.
  if (basis.status().code() == StatusCode::kInvalidArgument) return OkStatus();
  if (!basis.ok()) return basis.status();
  blocks = {};
  learning.Release();
  WriteBatch batch;
  batch.Put(Table::kMeta, kBasisKey, basis->Encode());
  // Not used before it is stored, and not stored where it cannot be used.
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
      return ResourceExhausted("memory " + name_ +
                               ": the archive's basis cannot be learned, for lack of memory or of "
                               "readable blocks; give more with "
                               "--memory-budget, or look with 'longhold verify " +
                               name_ + "'");
    }
    return FailedPrecondition(
        "memory " + name_ + ": has too little text to learn the archive's basis from (" +
        std::to_string(kCommitTokens) + " tokens); it is archived as more is ingested");
  }
  // As bytes, as numbers, and as floats in two places.
  const uint64_t block_bytes = block_shape().Elements() * sizeof(uint16_t);
  LH_ASSIGN_OR_RETURN(const MemoryReservation coding,
                      ReserveFor(kBlocksAtATime * 4 * block_bytes, "coding the blocks"));
  std::vector<BlockKey> keys;
  for (const DocumentRecord& d : documents_) {
    // An unfinished one goes on from its blocks as they are.
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
                       ": stopped; what is coded stays, and the same command goes on");
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
      // Nothing is won by as many bytes for the same numbers: a block that is coded like this
      // already stays.
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
