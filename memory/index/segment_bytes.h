// The common frame of all index segments (docs/formats/index.md): a header that begins with a
// magic, and at the end the XXH3-64 of everything before it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "base/hash.h"
#include "base/status.h"

namespace longhold {

inline void AppendChecksum(std::string* out) {
  const uint64_t checksum = Hash64(*out);
  out->append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
}

// Copies a segment's header, whose first member is `magic`, and returns the length of everything
// before the checksum. Checks length, magic and checksum, in this order; the caller checks the
// rest. Errors: data_loss, as "decode `what`: ..."; a wrong magic is reported with the text
// `other`.
template <typename Header, size_t kMagicSize>
Result<size_t> ReadHeader(std::string_view bytes, const char (&magic)[kMagicSize],
                          std::string_view what, std::string_view other, Header* header) {
  const auto loss = [&](std::string_view why) {
    return DataLoss("decode " + std::string(what) + ": " + std::string(why));
  };
  uint64_t checksum = 0;
  if (bytes.size() < sizeof *header + sizeof checksum) return loss("shorter than its header");
  std::memcpy(header, bytes.data(), sizeof *header);
  if (std::memcmp(header->magic, magic, sizeof magic) != 0) return loss(other);
  const size_t body = bytes.size() - sizeof checksum;
  std::memcpy(&checksum, bytes.data() + body, sizeof checksum);
  if (Hash64(bytes.substr(0, body)) != checksum) return loss("checksum mismatch");
  return body;
}

}  // namespace longhold
