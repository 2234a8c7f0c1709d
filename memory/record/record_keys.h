// Under which keys a memory's values stand: docs/formats/records.md, "Keys". Only Memory and its
// imports need them.
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

// What stands under a key. kUnknown: no key that a memory of this format has.
enum class KeyKind : uint8_t {
  kUnknown,
  kManifest,
  kBasis,
  kDocument,
  kResume,
  kText,
  kSegment,
  kLists,
  kBlock
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

// Blocks and text chunks, and what the keys of index segments begin with.
inline std::string NumberedKey(DocumentId id, uint32_t number) {
  std::string key;
  AppendBigEndian32(&key, static_cast<uint32_t>(id));
  AppendBigEndian32(&key, number);
  return key;
}

inline std::string LexicalKey(DocumentId id, uint32_t segment) {
  return NumberedKey(id, segment) + 'L';
}

// Generation 0 is what a memory begins with; its keys stand as they did before there were others.
inline std::string ScanKey(DocumentId id, uint32_t segment, uint32_t generation) {
  std::string key = NumberedKey(id, segment) + 'S';
  if (generation != 0) AppendBigEndian32(&key, generation);
  return key;
}

inline std::string SummariesKey(DocumentId id, uint32_t segment) {
  return NumberedKey(id, segment) + 'M';
}

// Lists belong to a head and a whole document. Counted down, their numbers stay clear of the
// segments' (at most 2^20). They know the scan keys that they were made from by hash, so they need
// no generation.
inline std::string ListsKey(DocumentId id, uint32_t head) {
  return NumberedKey(id, UINT32_MAX - head) + 'F';
}

}  // namespace longhold
