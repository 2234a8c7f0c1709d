// Compares Crc32c, by the processor's instruction and by the table, with the examples of RFC 3720
// (B.4), and the two with each other.
#include "base/crc32c.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace longhold {
namespace {

TEST(Crc32c, EqualsTheExamplesOfRfc3720) {
  std::string rising(32, '\0'), falling(32, '\0');
  for (int i = 0; i < 32; ++i)
    rising[static_cast<size_t>(i)] = static_cast<char>(i),
    falling[static_cast<size_t>(i)] = static_cast<char>(31 - i);
  const std::pair<std::string, uint32_t> examples[] = {{"", 0},
                                                       {std::string(32, '\0'), 0x8a9136aa},
                                                       {std::string(32, '\xff'), 0x62a8ab43},
                                                       {rising, 0x46dd794e},
                                                       {falling, 0x113fdb5c},
                                                       {"123456789", 0xe3069283}};
  for (const auto& [bytes, sum] : examples) {
    EXPECT_EQ(Crc32c(bytes), sum) << bytes.size() << " bytes";
    EXPECT_EQ(Crc32cByTable(bytes), sum) << bytes.size() << " bytes";
  }
}

// Lengths and start offsets on both sides of the instruction's 8 bytes.
TEST(Crc32c, IsTheSameForEverySplitAndByTable) {
  std::mt19937_64 random(1);
  std::string bytes(300, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  const std::string_view view(bytes);
  for (size_t begin = 0; begin < 9; ++begin) {
    for (size_t size = 0; size < 40; ++size) {
      const std::string_view all = view.substr(begin, 250), first = all.substr(0, size),
                             rest = all.substr(size);
      EXPECT_EQ(Crc32c(first), Crc32cByTable(first));
      EXPECT_EQ(Crc32c(rest, Crc32c(first)), Crc32c(all));
      EXPECT_EQ(Crc32cByTable(rest, Crc32cByTable(first)), Crc32c(all));
    }
  }
}

}  // namespace
}  // namespace longhold
