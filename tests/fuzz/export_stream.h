// An export (docs/formats/export.md) as a list of values, and back with valid checksums. Also
// parses hostile bytes as far as their framing allows.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "store/cold_store.h"
#include "tests/fuzz/mend.h"

namespace longhold {

struct ExportedMemory {
  struct Value {
    uint8_t kind = 1, table = 0;  // as encoded in the frame
    std::string key, value;
  };
  std::string head;           // magic, version and name, as encoded
  std::vector<Value> values;  // without the end frame
};

// Parses as many values as the framing allows. Ignores all checksums.
inline ExportedMemory ParseExport(std::string_view bytes) {
  ExportedMemory stream;
  constexpr size_t kHead = 9, kFrame = 8, kChain = 8;
  if (bytes.size() < kHead) return stream;
  stream.head = bytes.substr(0, kHead + static_cast<uint8_t>(bytes[8]));
  bytes.remove_prefix(stream.head.size());
  while (bytes.size() >= kFrame) {
    ExportedMemory::Value v;
    uint16_t key_bytes = 0;
    uint32_t value_bytes = 0;
    v.kind = static_cast<uint8_t>(bytes[0]);
    v.table = static_cast<uint8_t>(bytes[1]);
    std::memcpy(&key_bytes, bytes.data() + 2, sizeof key_bytes);
    std::memcpy(&value_bytes, bytes.data() + 4, sizeof value_bytes);
    if (v.kind == 2) return stream;
    bytes.remove_prefix(kFrame);
    v.key = bytes.substr(0, key_bytes);
    bytes.remove_prefix(v.key.size());
    v.value = bytes.substr(0, value_bytes);
    bytes.remove_prefix(v.value.size());
    bytes.remove_prefix(bytes.size() < kChain ? bytes.size() : kChain);
    stream.values.push_back(std::move(v));
  }
  return stream;
}

// Encodes the stream with the checksums of all values and of the stream made valid.
inline std::string MendedExport(ExportedMemory stream) {
  uint64_t basis_id = 0;
  for (ExportedMemory::Value& v : stream.values) {
    if (!std::string_view(v.value).starts_with("LHKB")) continue;
    MendValue(&v.value, 0);
    std::memcpy(&basis_id, v.value.data() + v.value.size() - sizeof basis_id, sizeof basis_id);
  }
  std::string out = stream.head;
  uint64_t chain = 0;
  const auto append = [&](const std::string& frame) {
    std::string hashed = frame;
    hashed.append(reinterpret_cast<const char*>(&chain), sizeof chain);
    chain = Hash64(hashed);
    out += frame;
    out.append(reinterpret_cast<const char*>(&chain), sizeof chain);
  };
  for (ExportedMemory::Value& v : stream.values) {
    MendValue(&v.value, basis_id);
    const auto key_bytes = static_cast<uint16_t>(v.key.size());
    const auto value_bytes = static_cast<uint32_t>(v.value.size());
    std::string frame = {static_cast<char>(v.kind), static_cast<char>(v.table)};
    frame.append(reinterpret_cast<const char*>(&key_bytes), sizeof key_bytes);
    frame.append(reinterpret_cast<const char*>(&value_bytes), sizeof value_bytes);
    append(frame + v.key + v.value);
  }
  const uint64_t count = stream.values.size();
  std::string end(8, '\0');
  end[0] = 2;
  end.append(reinterpret_cast<const char*>(&count), sizeof count);
  append(end);
  return out;
}

}  // namespace longhold
