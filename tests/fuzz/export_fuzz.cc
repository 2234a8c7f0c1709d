// A hostile export: the input is its bytes. The harness imports it unchanged, and again with all
// checksums made valid. If a memory then opens, every read and write of it must be safe and may
// only return a Status. The mutator changes bytes anywhere, and also single values record by record
// (export_mutator.h).
#include <cstdint>

#include "store/transfer.h"
#include "tests/fuzz/export_mutator.h"
#include "tests/fuzz/export_stream.h"
#include "tests/fuzz/fuzz_bytes.h"
#include "tests/fuzz/toy_memory.h"

namespace longhold {
namespace {

constexpr uint64_t kBudget = 64u << 20;
constexpr uint32_t kBlocksRead = 6;

ByteSource SourceOf(std::string_view bytes) {
  return [bytes](std::span<char> out) mutable -> Result<size_t> {
    // Pieces of odd lengths, as from a pipe.
    const size_t n = std::min({out.size(), bytes.size(), size_t{4093}});
    std::copy_n(bytes.data(), n, out.data());
    bytes.remove_prefix(n);
    return n;
  };
}

std::unique_ptr<ColdStore> Import(std::string_view bytes) {
  const ByteSource source = SourceOf(bytes);
  if (!ReadExportName(source).ok()) return nullptr;
  auto store = NewMemStore();
  const Result<TransferReport> report = ImportStore(source, *store);
  ExpectRefusal(report);
  return report.ok() ? std::move(store) : nullptr;
}

ToyModel& Model() {
  static ToyModel model(FuzzToy());
  return model;
}

const LexicalVocabulary& Vocabulary() {
  static const LexicalVocabulary vocabulary(Model().pieces());
  return vocabulary;
}

std::unique_ptr<Memory> Open(ColdStore& store, MemoryBudget* budget) {
  Result<std::unique_ptr<Memory>> memory = Memory::Open(Borrow(store), "toy", &Model().info());
  ExpectRefusal(memory);
  if (!memory.ok()) return nullptr;
  (*memory)->UseVocabulary(&Vocabulary());
  (*memory)->UseLists({.memory_tokens_min = 1, .document_tokens_min = 1},
                      {.share = 0.5, .sample_tokens = 64});
  return (*memory)->UseBudget(budget).ok() ? std::move(*memory) : nullptr;
}

void ReadDocument(Memory& memory, const DocumentRecord& d) {
  const uint64_t blocks = (d.committed_tokens + kBlockTokens - 1) / kBlockTokens;
  for (uint64_t b = 0; b < std::min<uint64_t>(blocks, kBlocksRead); ++b)
    (void)memory.LoadBlock({d.id, static_cast<uint32_t>(b)});
  (void)memory.LoadResume(d.id);
  for (const uint64_t begin :
       {uint64_t{0}, d.tokens / 2, d.tokens - std::min<uint64_t>(d.tokens, 70)}) {
    const TokenSpan span{begin, std::min(d.tokens, begin + 70)};
    (void)memory.Tokens(d.id, span);
    (void)memory.GrowToLines(d.id, span, 16);
    if (begin < d.tokens) (void)memory.SentenceAt(d.id, begin, 32);
    const Result<TextPlace> place = memory.Locate(d.id, span);
    if (place.ok())
      (void)memory.CharactersBefore(d.id,
                                    std::vector<uint64_t>{place->bytes.begin, place->bytes.end});
  }
  uint64_t lost = 0;
  (void)memory.Summaries(d.id, Model().info().geometry, SerialFor, &lost);
}

void Ask(const Memory& memory) {
  const KvGeometry& g = Model().info().geometry;
  for (uint32_t head = 0; head < memory.manifest().scan_layers.size() && head < 2; ++head) {
    ScanQuery query{.head = head,
                    .rows = 2,
                    .head_dim = g.head_dim,
                    .scale = 0.5f,
                    .q = {1, -1, 0.5f, 2, 0, 1, 3, -2},
                    .row_weight = {1, 0.5f}};
    const ScanResult result = memory.relevance().Query(query, 4, SerialFor);
    for (const auto& b : result.blocks) (void)memory.relevance().TokenMass(query, result, b.block);
  }
  const std::vector<TokenId> tokens =
      *Model().Tokenize(" the number of the elder is seven, and camels", false);
  const std::vector<LexicalWord> words = Vocabulary().Words(tokens);
  (void)memory.lexical().Query(words, 8);
  (void)memory.lexical().Places(
      std::vector<std::vector<LexicalWord>>{{words[1]}, {words[0], words[1]}}, 4);
}

void Read(ColdStore& store) {
  MemoryBudget budget(kBudget);
  const auto memory = Open(store, &budget);
  if (memory == nullptr) return;
  (void)memory->Verify();
  const std::vector<DocumentRecord> documents = memory->documents();
  for (const DocumentRecord& d : documents) ReadDocument(*memory, d);
  const Status loaded = memory->LoadIndexes();
  LH_CHECK(loaded.code() != StatusCode::kInternal);
  if (loaded.ok()) Ask(*memory);
}

// What a server does with a memory: finish an incomplete text, ingest another, reindex, recode,
// delete.
void WriteTo(ColdStore& store) {
  MemoryBudget budget(kBudget);
  const auto memory = Open(store, &budget);
  if (memory == nullptr) return;
  (void)memory->LoadIndexes();
  for (const IngestInput& input : {IngestInput{kFuzzStopped, "This one " + FuzzText(300)},
                                   IngestInput{kFuzzDone, "Another text.\n"}}) {
    // the toy model returns its own errors for state that it did not save
    (void)IngestDocument(Model(), *memory, Vocabulary(), input, nullptr, nullptr);
  }
  RecallProfile other = FuzzProfile();
  other.heads.resize(1);
  (void)memory->Reindex(other, SerialFor, nullptr, nullptr);
  (void)memory->BuildLists(SerialFor);
  (void)memory->Recode("k4v4", SerialFor, nullptr, nullptr);
  if (memory->LoadIndexes().ok()) Ask(*memory);
  const std::vector<DocumentRecord> documents = memory->documents();
  for (const DocumentRecord& d : documents) (void)memory->Forget(d.id, d.name);
}

void Use(std::string_view bytes) {
  const auto store = Import(bytes);
  if (store == nullptr) return;
  Read(*store);
  WriteTo(*store);
}

}  // namespace
}  // namespace longhold

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::string mended = longhold::MendedExport(longhold::ParseExport(bytes));
  // its checksums are wrong
  if (mended != bytes && longhold::Import(bytes) != nullptr) __builtin_trap();
  longhold::Use(mended);
  return 0;
}
