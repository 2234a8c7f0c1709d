// Which lines say when. The positive cases are heads of sessions, diaries, letters and minutes as
// they stand in real texts; the negative ones are lines of such texts that only mention a date.
#include "memory/text/date_line.h"

#include <gtest/gtest.h>

#include <string>

namespace longhold {
namespace {

TEST(DateLine, HeadsOfSessionsDiariesAndMinutes) {
  for (const char* line :
       {"Session 1, 1:56 pm on 8 May, 2023", "[2023-05-08 13:56]", "2023-05-08T13:56:02Z",
        "## Minutes, 8.5.2023", "3 May. Bistritz.", "Mon, May 8 2023", "--- 5/8/23 ---",
        "DATE: 1:56 pm on 8 May, 2023", "Tuesday, 1st of September",
        "[8 May 2023] Caroline:", "*Sept. 14, 1864*", "\xe2\x80\x94 12 October 1492 \xe2\x80\x94"})
    EXPECT_TRUE(IsDateLine(line)) << line;
}

TEST(DateLine, LinesThatOnlyMentionADate) {
  for (const char* line :
       {"", "   ", "Caroline: I went there on 8 May!", "May I come in?", "1.", "1:56 pm",
        "Chapter 12", "version 2.30.1", "In March 2003 the war began in earnest.",
        "int may = 2023;", "#include <chrono>", "Session 3", "Gen1:1 In the beginning",
        "127.0.0.1 localhost", "He marched on.", "Melanie: 2023-05-08 was a great day for us all"})
    EXPECT_FALSE(IsDateLine(line)) << line;
}

TEST(DateLine, LongLinesAreNone) {
  EXPECT_TRUE(IsDateLine("8 May 2023" + std::string(86, ' ')));
  EXPECT_FALSE(IsDateLine("8 May 2023" + std::string(87, ' ')));
}

}  // namespace
}  // namespace longhold
