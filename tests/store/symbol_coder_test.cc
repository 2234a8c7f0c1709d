// The entropy coder: round trips, its bits compared with the entropy, and damage at every byte.
#include "store/symbol_coder.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <random>
#include <vector>

namespace longhold {
namespace {

std::string Encoded(const std::vector<uint8_t>& symbols) {
  std::string bytes;
  EncodeSymbols(symbols, &bytes);
  return bytes;
}

void ExpectRoundTrip(const std::vector<uint8_t>& symbols) {
  const std::string bytes = Encoded(symbols);
  std::vector<uint8_t> back(symbols.size(), 77);
  const Status status = DecodeSymbols(bytes, back);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(back, symbols);
}

// Zigzag-encoded integers of a normal distribution.
std::vector<uint8_t> Normal(size_t count, double width, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, width);
  std::vector<uint8_t> symbols;
  for (size_t i = 0; i < count; ++i) {
    const auto x = static_cast<int>(std::lround(normal(random)));
    symbols.push_back(static_cast<uint8_t>(std::min(255, x < 0 ? -2 * x - 1 : 2 * x)));
  }
  return symbols;
}

double EntropyBits(const std::vector<uint8_t>& symbols) {
  std::array<double, 256> counts{};
  for (const uint8_t s : symbols) ++counts[s];
  double bits = 0;
  for (const double c : counts) {
    if (c > 0) bits -= c * std::log2(c / static_cast<double>(symbols.size()));
  }
  return bits;
}

TEST(SymbolCoder, RoundTripsEveryCountOfSymbols) {
  for (size_t count = 0; count <= 70; ++count)
    ExpectRoundTrip(Normal(count, 3, static_cast<uint32_t>(count)));
}

TEST(SymbolCoder, RoundTripsEveryKindOfDistribution) {
  ExpectRoundTrip(std::vector<uint8_t>(1000, 0));
  ExpectRoundTrip(std::vector<uint8_t>(1000, 255));
  std::vector<uint8_t> all, rare(100000, 0), two_extremes(5000, 255);
  for (int i = 0; i < 1024; ++i) all.push_back(static_cast<uint8_t>(i));
  rare[77777] = 200;  // far rarer than the frequency scale can express
  // these are all rare too: their table slots are taken from the one frequent symbol
  for (int i = 1; i < 256; ++i) rare[static_cast<size_t>(i) * 300] = static_cast<uint8_t>(i);
  for (size_t i = 0; i < two_extremes.size(); i += 2) two_extremes[i] = 0;
  ExpectRoundTrip(all);
  ExpectRoundTrip(rare);
  ExpectRoundTrip(two_extremes);
  for (const double width : {0.05, 0.3, 1.0, 10.0, 60.0}) ExpectRoundTrip(Normal(20000, width, 5));
}

TEST(SymbolCoder, TakesLittleMoreThanTheEntropy) {
  for (const double width : {0.3, 1.0, 10.0}) {
    const std::vector<uint8_t> symbols = Normal(100000, width, 9);
    const double bits = 8.0 * static_cast<double>(Encoded(symbols).size());
    EXPECT_LT(bits, 1.01 * EntropyBits(symbols) + 8 * 600) << width;
    EXPECT_GE(bits, EntropyBits(symbols)) << width;
  }
  EXPECT_LT(Encoded(std::vector<uint8_t>(100000, 3)).size(), 32u);
}

TEST(SymbolCoder, DetectsEveryCutAndMostOtherDamage) {
  const std::vector<uint8_t> symbols = Normal(500, 2, 3);
  const std::string bytes = Encoded(symbols);
  std::vector<uint8_t> back(symbols.size());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_EQ(DecodeSymbols(std::string_view(bytes).substr(0, size), back).code(),
              StatusCode::kDataLoss)
        << size;
  }
  EXPECT_EQ(DecodeSymbols(bytes + "x", back).code(), StatusCode::kDataLoss);
  EXPECT_EQ(DecodeSymbols(bytes, {}).code(), StatusCode::kDataLoss);
  EXPECT_TRUE(DecodeSymbols("", {}).ok());
  // Detecting damage is the task of the block's checksum. Here nothing outside the buffers may be
  // read or written.
  size_t found = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const int bit : {0, 3, 7}) {
      std::string damaged = bytes;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << bit));
      found += !DecodeSymbols(damaged, back).ok();
    }
  }
  EXPECT_GT(found, 3 * bytes.size() * 9 / 10);
}

TEST(SymbolCoder, HandlesRandomBytes) {
  std::mt19937 random(4);
  std::vector<uint8_t> back(300);
  for (int i = 0; i < 2000; ++i) {
    std::string bytes(random() % 200, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    // A table with a valid frequency sum, so that decoding reaches the codes.
    if (i % 2 == 0) bytes = std::string("\x01\x90\x00\x80\x00", 5) + bytes;
    (void)DecodeSymbols(bytes, back);
  }
}

}  // namespace
}  // namespace longhold
