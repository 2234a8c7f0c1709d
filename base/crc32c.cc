#include "base/crc32c.h"

#include <array>
#include <cstring>

namespace longhold {
namespace {

constexpr std::array<uint32_t, 256> MakeTable() {
  // Castagnoli's polynomial, least significant bit first
  constexpr uint32_t kPolynomial = 0x82f63b78;
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t rest = byte;
    for (int bit = 0; bit < 8; ++bit) rest = (rest >> 1) ^ ((rest & 1) != 0 ? kPolynomial : 0);
    table[byte] = rest;
  }
  return table;
}

constexpr std::array<uint32_t, 256> kTable = MakeTable();

#if defined(__x86_64__)
// Processes one stream, at three cycles per 8 bytes. Three interleaved streams, combined with
// tables, would take less than half of that time. That would save some 40 us on a block of 430 KB,
// which takes 3 ms and more to read and decode.
__attribute__((target("sse4.2"))) uint32_t ByInstruction(std::string_view bytes, uint32_t before) {
  uint64_t rest = ~before;
  const char* data = bytes.data();
  size_t size = bytes.size();
  for (; size >= sizeof(uint64_t); size -= sizeof(uint64_t), data += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, data, sizeof word);
    rest = __builtin_ia32_crc32di(rest, word);
  }
  auto rest32 = static_cast<uint32_t>(rest);
  for (; size > 0; --size, ++data)
    rest32 = __builtin_ia32_crc32qi(rest32, static_cast<unsigned char>(*data));
  return ~rest32;
}
#endif

}  // namespace

uint32_t Crc32cByTable(std::string_view bytes, uint32_t before) {
  uint32_t rest = ~before;
  for (const char c : bytes)
    rest = (rest >> 8) ^ kTable[(rest ^ static_cast<unsigned char>(c)) & 0xff];
  return ~rest;
}

uint32_t Crc32c(std::string_view bytes, uint32_t before) {
#if defined(__x86_64__)
  static const bool kHasInstruction = __builtin_cpu_supports("sse4.2");
  if (kHasInstruction) return ByInstruction(bytes, before);
#endif
  return Crc32cByTable(bytes, before);
}

}  // namespace longhold
