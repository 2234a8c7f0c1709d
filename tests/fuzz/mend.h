// Makes the checksums of changed values valid again. Checksums detect damage but do not stop a
// forger. So a harness does what a forger would do; otherwise no hostile value would get past the
// checksum.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "base/hash.h"

namespace longhold {

inline void PutNumber(std::string* bytes, size_t at, uint64_t number) {
  std::memcpy(bytes->data() + at, &number, sizeof number);
}

// XXH3-64 of everything before it, at the end: blocks, segments, the basis. Appended where `bytes`
// are too short for it.
inline void MendTail(std::string* bytes) {
  if (bytes->size() < sizeof(uint64_t)) bytes->resize(sizeof(uint64_t));
  const size_t body = bytes->size() - sizeof(uint64_t);
  PutNumber(bytes, body, Hash64(std::string_view(*bytes).substr(0, body)));
}

// docs/formats/records.md: "LHR", a digit, then the hash of what follows it.
inline void MendRecord(std::string* bytes) {
  constexpr size_t kHeader = 12;
  if (bytes->size() < kHeader) return;
  PutNumber(bytes, 4, Hash64(std::string_view(*bytes).substr(kHeader)));
}

// docs/formats/block.md: also sets the payload's length and, if the block is coded in a basis, that
// basis's id.
inline void MendBlock(std::string* bytes, uint64_t basis_id) {
  constexpr size_t kHeader = 32, kChecksum = 8, kCodecTransform = 3;
  if (bytes->size() < kHeader + kChecksum) return;
  uint16_t header = 0, codec = 0;
  std::memcpy(&header, bytes->data() + 6, sizeof header);
  std::memcpy(&codec, bytes->data() + 8, sizeof codec);
  const size_t body = bytes->size() - kChecksum;
  if (header <= body) PutNumber(bytes, 24, body - header);
  if (codec == kCodecTransform && header + sizeof basis_id <= body)
    PutNumber(bytes, header, basis_id);
  MendTail(bytes);
}

// Selects the format by the magic of the value. `basis_id` is that of the memory's basis, or 0 if
// it has none.
inline void MendValue(std::string* bytes, uint64_t basis_id) {
  const std::string_view magic = std::string_view(*bytes).substr(0, 4);
  if (magic.starts_with("LHR")) {
    MendRecord(bytes);
  } else if (magic == "LHKV") {
    MendBlock(bytes, basis_id);
  } else if (magic == "LHSC" || magic == "LHLX" || magic == "LHSM" || magic == "LHFX" ||
             magic == "LHKB") {
    MendTail(bytes);
  }
}

}  // namespace longhold
