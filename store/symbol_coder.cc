#include "store/symbol_coder.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

namespace longhold {
namespace {

constexpr uint32_t kScaleBits = 12;
constexpr uint32_t kScale = 1u << kScaleBits;
constexpr uint32_t kStates = 4;
// States stay in [kLow, 256 kLow) between symbols.
constexpr uint32_t kLow = 1u << 23;
constexpr size_t kAlphabet = 256;

struct Frequencies {
  std::array<uint32_t, kAlphabet> of{};      // sum to kScale
  std::array<uint32_t, kAlphabet> before{};  // of the smaller symbols
  void Accumulate() {
    uint32_t sum = 0;
    for (size_t s = 0; s < kAlphabet; ++s) {
      before[s] = sum;
      sum += of[s];
    }
  }
};

// Scales counts so that they sum to kScale and none that occurs vanishes.
Frequencies Normalise(std::span<const uint8_t> symbols) {
  std::array<uint64_t, kAlphabet> counts{};
  for (const uint8_t s : symbols) ++counts[s];
  Frequencies f;
  uint32_t sum = 0;
  for (size_t s = 0; s < kAlphabet; ++s) {
    if (counts[s] == 0) continue;
    f.of[s] = std::max<uint32_t>(1, static_cast<uint32_t>(counts[s] * kScale / symbols.size()));
    sum += f.of[s];
  }
  // What is missing goes to the most frequent symbol, which notices it least; what is too much
  // comes from it, too. It has more than kScale / 256 of the counts, and rounding up took less than
  // 256 in all, so where it alone cannot pay, the next ones can.
  while (sum != kScale) {
    uint32_t& most = *std::max_element(f.of.begin(), f.of.end());
    if (sum < kScale) {
      most += kScale - sum;
      sum = kScale;
    } else {
      --most;
      --sum;
    }
  }
  f.Accumulate();
  return f;
}

}  // namespace

void EncodeSymbols(std::span<const uint8_t> symbols, std::string* out) {
  if (symbols.empty()) return;
  const Frequencies f = Normalise(symbols);
  const uint8_t last = *std::max_element(symbols.begin(), symbols.end());
  out->push_back(static_cast<char>(last));
  for (uint32_t s = 0; s <= last; ++s) {  // 7 bits, or 14 in two bytes
    if (f.of[s] < 128) {
      out->push_back(static_cast<char>(f.of[s]));
    } else {
      out->push_back(static_cast<char>(0x80 | (f.of[s] >> 8)));
      out->push_back(static_cast<char>(f.of[s]));
    }
  }
  // A reader goes forward, so the writer goes backward.
  std::array<uint32_t, kStates> states;
  states.fill(kLow);
  std::string codes;
  for (size_t i = symbols.size(); i-- > 0;) {
    uint32_t& x = states[i % kStates];
    const uint32_t frequency = f.of[symbols[i]];
    // 64 bits: a symbol that is the only one has the whole scale.
    const uint64_t limit = (uint64_t{kLow >> kScaleBits} << 8) * frequency;
    while (x >= limit) {
      codes.push_back(static_cast<char>(x));
      x >>= 8;
    }
    x = (x / frequency << kScaleBits) + x % frequency + f.before[symbols[i]];
  }
  for (const uint32_t x : states) out->append(reinterpret_cast<const char*>(&x), sizeof(x));
  out->append(codes.rbegin(), codes.rend());
}

Status DecodeSymbols(std::string_view bytes, std::span<uint8_t> symbols) {
  const auto wrong = [](const char* what) {
    return DataLoss(std::string("decode symbols: ") + what);
  };
  if (symbols.empty()) return bytes.empty() ? OkStatus() : wrong("bytes for none");
  if (bytes.empty()) return wrong("no bytes");
  const auto* at = reinterpret_cast<const uint8_t*>(bytes.data());
  const uint8_t* const end = at + bytes.size();
  Frequencies f;
  const size_t last = *at++;
  uint32_t sum = 0;
  for (size_t s = 0; s <= last; ++s) {
    if (at == end) return wrong("frequencies are cut off");
    f.of[s] = *at++;
    if (f.of[s] >= 128) {
      if (at == end) return wrong("frequencies are cut off");
      f.of[s] = (f.of[s] & 0x7F) << 8 | *at++;
    }
    sum += f.of[s];
  }
  if (sum != kScale) return wrong("frequencies of another sum");
  f.Accumulate();
  std::array<uint8_t, kScale> symbol_of;
  for (size_t s = 0; s <= last; ++s)
    std::fill_n(symbol_of.begin() + f.before[s], f.of[s], static_cast<uint8_t>(s));
  std::array<uint32_t, kStates> states;
  if (static_cast<size_t>(end - at) < sizeof(states)) return wrong("states are cut off");
  std::memcpy(states.data(), at, sizeof(states));
  at += sizeof(states);
  for (size_t i = 0; i < symbols.size(); ++i) {
    uint32_t& x = states[i % kStates];
    const uint32_t slot = x % kScale;
    const uint8_t s = symbol_of[slot];
    symbols[i] = s;
    x = f.of[s] * (x >> kScaleBits) + slot - f.before[s];
    while (x < kLow) {
      if (at == end) return wrong("codes are cut off");
      x = x << 8 | *at++;
    }
  }
  // The writer began with these.
  for (const uint32_t x : states) {
    if (x != kLow) return wrong("codes of other symbols");
  }
  return at == end ? OkStatus() : wrong("bytes behind the codes");
}

}  // namespace longhold
