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
// Between symbols, states are in [kLow, 256 kLow).
constexpr uint32_t kLow = 1u << 23;
constexpr size_t kAlphabet = 256;

struct Frequencies {
  std::array<uint32_t, kAlphabet> of{};      // sum to kScale
  std::array<uint32_t, kAlphabet> before{};  // sum of the frequencies of all smaller symbols
  void Accumulate() {
    uint32_t sum = 0;
    for (size_t s = 0; s < kAlphabet; ++s) {
      before[s] = sum;
      sum += of[s];
    }
  }
};

// Scales the counts so that they sum to kScale and every symbol that occurs keeps a frequency of
// at least 1.
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
  // A missing amount is added to the most frequent symbol, where it matters least. A surplus is
  // taken from the most frequent symbol, one at a time. Rounding up added less than 256 in all, and
  // the most frequent symbol has more than kScale / 256; if it runs low, the next ones pay.
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
  for (uint32_t s = 0; s <= last; ++s) {  // one byte for 7 bits, or two bytes for 14
    if (f.of[s] < 128) {
      out->push_back(static_cast<char>(f.of[s]));
    } else {
      out->push_back(static_cast<char>(0x80 | (f.of[s] >> 8)));
      out->push_back(static_cast<char>(f.of[s]));
    }
  }
  // The decoder goes forward, so the encoder goes backward.
  std::array<uint32_t, kStates> states;
  states.fill(kLow);
  std::string codes;
  for (size_t i = symbols.size(); i-- > 0;) {
    uint32_t& x = states[i % kStates];
    const uint32_t frequency = f.of[symbols[i]];
    // 64 bits: the frequency of a single symbol is the whole scale.
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
  if (symbols.empty()) return bytes.empty() ? OkStatus() : wrong("bytes, but no symbols");
  if (bytes.empty()) return wrong("no bytes");
  const auto* at = reinterpret_cast<const uint8_t*>(bytes.data());
  const uint8_t* const end = at + bytes.size();
  Frequencies f;
  const size_t last = *at++;
  uint32_t sum = 0;
  for (size_t s = 0; s <= last; ++s) {
    if (at == end) return wrong("frequencies are truncated");
    f.of[s] = *at++;
    if (f.of[s] >= 128) {
      if (at == end) return wrong("frequencies are truncated");
      f.of[s] = (f.of[s] & 0x7F) << 8 | *at++;
    }
    sum += f.of[s];
  }
  if (sum != kScale) return wrong("frequencies have the wrong sum");
  f.Accumulate();
  std::array<uint8_t, kScale> symbol_of;
  for (size_t s = 0; s <= last; ++s)
    std::fill_n(symbol_of.begin() + f.before[s], f.of[s], static_cast<uint8_t>(s));
  std::array<uint32_t, kStates> states;
  if (static_cast<size_t>(end - at) < sizeof(states)) return wrong("states are truncated");
  std::memcpy(states.data(), at, sizeof(states));
  at += sizeof(states);
  for (size_t i = 0; i < symbols.size(); ++i) {
    uint32_t& x = states[i % kStates];
    const uint32_t slot = x % kScale;
    const uint8_t s = symbol_of[slot];
    symbols[i] = s;
    x = f.of[s] * (x >> kScaleBits) + slot - f.before[s];
    while (x < kLow) {
      if (at == end) return wrong("codes are truncated");
      x = x << 8 | *at++;
    }
  }
  // The encoder started with these states.
  for (const uint32_t x : states) {
    if (x != kLow) return wrong("wrong final state");
  }
  return at == end ? OkStatus() : wrong("extra bytes after the codes");
}

}  // namespace longhold
