// Hand-written sequences from the Unicode standard's table of well-formed UTF-8 (3-7), at every
// alignment relative to the eight-byte fast path.
#include "base/utf8.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace longhold {
namespace {

TEST(Utf8, FindsTheFirstBadByteAtEveryOffset) {
  const std::string bad[] = {
      "\x80",         "\xC0\xAF",         "\xC1\xBF",         "\xE0\x9F\xBF",
      "\xED\xA0\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",
      "\xFF",         "\xE2\x82",         "\xF0\x9F\x98",     "\xC3"};
  for (const std::string& sequence : bad) {
    for (size_t before = 0; before < 20; ++before) {
      EXPECT_EQ(FirstInvalidUtf8(std::string(before, 'a') + sequence), before)
          << testing::PrintToString(sequence);
      EXPECT_EQ(FirstInvalidUtf8(std::string(before, 'a') + sequence + "aaaaaaaaaaaa"), before)
          << testing::PrintToString(sequence);
    }
  }
}

TEST(Utf8, AcceptsTheBoundsOfEveryLength) {
  for (const std::string text :
       {"", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
        "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    for (size_t before = 0; before < 20; ++before)
      EXPECT_EQ(FirstInvalidUtf8(std::string(before, 'a') + text + "zzzzzzzzz"), std::nullopt);
  }
}

TEST(Utf8, MakesAnyBytesValid) {
  std::string bytes;
  for (int i = 0; i < 1024; ++i) bytes += static_cast<char>((i * 89 + 7) % 256);
  EXPECT_EQ(FirstInvalidUtf8(MakeValidUtf8(bytes)), std::nullopt);
  EXPECT_EQ(MakeValidUtf8("caf\xC3\xA9"), "caf\xC3\xA9");
  EXPECT_EQ(MakeValidUtf8("\xA9 x"), "\xEF\xBF\xBD x");
}

TEST(Utf8, PrintableTextContainsNoTerminalCommands) {
  EXPECT_EQ(CollapseSpace("  a \n\t b\x1b[2J\xC2\x9B c  "), "a b\xEF\xBF\xBD[2J\xEF\xBF\xBD c");
  EXPECT_EQ(MakePrintable("a\r\n\tb \x07"), "a\n\tb \xEF\xBF\xBD");
  EXPECT_EQ(CountColumns("caf\xC3\xA9"), 4u);
}

}  // namespace
}  // namespace longhold
