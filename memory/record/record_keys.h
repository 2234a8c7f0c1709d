// The store keys of a memory's values: docs/formats/records.md, "Keys". Used only by Memory and by
// imports.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/types.h"
#include "store/cold_store.h"

namespace longhold {

inline constexpr char kManifestKey[] = "manifest";
inline constexpr char kBasisKey[] = "basis";
inline constexpr char kDocumentPrefix[] = "document/";
inline constexpr char kDocumentEnd[] = "document0";  // '0' follows '/'
inline constexpr char kResumePrefix[] = "resume/";

// The kind of value that a store key belongs to. kUnknown: no memory of this format has such a key.
enum class KeyKind : uint8_t {
  kUnknown,
  kManifest,
  kBasis,
  kDocument,
  kResume,
  kText,
  kSegment,
  kLists,
  kBlock,
  kProvisional
};
KeyKind KindOf(Table table, std::string_view key);

inline std::string DocumentKey(DocumentId id) {
  std::string key = kDocumentPrefix;
  AppendBigEndian32(&key, static_cast<uint32_t>(id));
  return key;
}

inline std::string ResumeKey(DocumentId id) {
  std::string key = kResumePrefix;
  AppendBigEndian32(&key, static_cast<uint32_t>(id));
  return key;
}

// The store key of a block or text chunk, and the prefix of an index segment's store key.
inline std::string NumberedKey(DocumentId id, uint32_t number) {
  std::string key;
  AppendBigEndian32(&key, static_cast<uint32_t>(id));
  AppendBigEndian32(&key, number);
  return key;
}

// Provisional blocks of a document follow its blocks: their numbers have the highest bit set.
inline constexpr uint32_t kProvisionalBit = 1u << 31;
inline std::string ProvisionalKey(DocumentId id, uint32_t block) {
  return NumberedKey(id, block | kProvisionalBit);
}

inline std::string LexicalKey(DocumentId id, uint32_t segment) {
  return NumberedKey(id, segment) + 'L';
}

// Generation 0 is that of a new memory. Its keys have no generation suffix, as in versions that had
// no generations.
inline std::string ScanKey(DocumentId id, uint32_t segment, uint32_t generation) {
  std::string key = NumberedKey(id, segment) + 'S';
  if (generation != 0) AppendBigEndian32(&key, generation);
  return key;
}

inline std::string PassagesKey(DocumentId id, uint32_t segment) {
  return NumberedKey(id, segment) + 'V';
}

inline std::string SummariesKey(DocumentId id, uint32_t segment) {
  return NumberedKey(id, segment) + 'M';
}

// Inverted lists belong to one head and a whole document. Their numbers count down from UINT32_MAX,
// so they never meet those of segments (at most 2^20). The lists store a hash of the scan keys that
// they were made from, so they need no generation.
inline std::string ListsKey(DocumentId id, uint32_t head) {
  return NumberedKey(id, UINT32_MAX - head) + 'F';
}

}  // namespace longhold
