#include "memory/record/import_rules.h"

#include <algorithm>
#include <memory>
#include <string>

#include "memory/record/record_keys.h"
#include "memory/record/records.h"

namespace longhold {
namespace {

// Store key lengths: document and number have 4 bytes each. An index segment's kind is one more
// byte, and a scan segment's generation 4 more.
constexpr size_t kNumberedBytes = 8, kSegmentKeyBytes = 9, kGenerationKeyBytes = 13;

bool IsDocumentKey(std::string_view key, std::string_view prefix) {
  return key.size() == prefix.size() + 4 && key.starts_with(prefix);
}

}  // namespace

KeyKind KindOf(Table table, std::string_view key) {
  switch (table) {
    case Table::kMeta:
      if (key == kManifestKey) return KeyKind::kManifest;
      if (key == kBasisKey) return KeyKind::kBasis;
      if (IsDocumentKey(key, kDocumentPrefix)) return KeyKind::kDocument;
      return IsDocumentKey(key, kResumePrefix) ? KeyKind::kResume : KeyKind::kUnknown;
    case Table::kText: return key.size() == kNumberedBytes ? KeyKind::kText : KeyKind::kUnknown;
    case Table::kBlocks:
      if (key.size() != kNumberedBytes) return KeyKind::kUnknown;
      return (ReadBigEndian32(key.substr(4)) & kProvisionalBit) != 0 ? KeyKind::kProvisional
                                                                     : KeyKind::kBlock;
    case Table::kIndex: break;
  }
  if (key.size() == kGenerationKeyBytes && key[kNumberedBytes] == 'S') return KeyKind::kSegment;
  if (key.size() != kSegmentKeyBytes) return KeyKind::kUnknown;
  if (key.back() == 'F') return KeyKind::kLists;
  constexpr std::string_view kSegmentKinds = "LSMV";
  return kSegmentKinds.find(key.back()) != std::string_view::npos ? KeyKind::kSegment
                                                                  : KeyKind::kUnknown;
}

ImportRules RulesOf(const ImportLimits& limits, uint64_t value_bytes_max) {
  struct Counts {
    uint64_t bytes = 0, documents = 0;
  };
  const auto counts = std::make_shared<Counts>();
  ImportRules rules;
  rules.batch_bytes = static_cast<size_t>(std::min<uint64_t>(rules.batch_bytes, value_bytes_max));
  rules.admit = [limits, value_bytes_max, counts](Table table, std::string_view key,
                                                  uint64_t value_bytes) -> Result<bool> {
    const KeyKind kind = KindOf(table, key);
    if (kind == KeyKind::kUnknown)
      return DataLoss(
          "import: the file holds a value of a kind that this version of longhold does not know; a "
          "newer version may have written it");
    if (kind == KeyKind::kResume || kind == KeyKind::kProvisional) return false;
    if (kind == KeyKind::kLists && value_bytes > value_bytes_max) return false;
    const bool short_kind = kind == KeyKind::kText || kind == KeyKind::kManifest;
    if (short_kind && value_bytes > kTextRecordBytesMax)
      return DataLoss("import: a record has " + std::to_string(value_bytes) +
                      " bytes, more than any valid one; the file is damaged");
    if (value_bytes > value_bytes_max) {
      return ResourceExhausted(
          "import: a value of " + std::to_string(value_bytes) +
          " bytes needs more memory than the budget has; give more with --memory-budget");
    }
    counts->bytes += key.size() + value_bytes;
    counts->documents += kind == KeyKind::kDocument;
    if (counts->bytes > limits.bytes_max) {
      return FailedPrecondition(
          "import: the memory is larger than the " + std::to_string(limits.bytes_max) +
          " bytes that are left of its owner's disk quota; forget other memories "
          "or documents, or ask the operator for more");
    }
    if (counts->documents > limits.documents_max) {
      return FailedPrecondition("import: the memory has more than the " +
                                std::to_string(limits.documents_max) +
                                " documents that are left of its owner's quota; forget some, or "
                                "ask the operator for more");
    }
    return true;
  };
  return rules;
}

}  // namespace longhold
