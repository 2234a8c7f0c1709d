// Names at the begin of lines, in the forms of chat logs, transcripts and plays, and lines that
// only look like them.
#include "memory/text/speaker.h"

#include <gtest/gtest.h>

#include <string>

namespace longhold {
namespace {

TEST(SpeakerOf, IsTheNameBeforeTheColon) {
  EXPECT_EQ(SpeakerOf("Ann Lee: I saw it."), "Ann Lee");
  EXPECT_EQ(SpeakerOf("- **Ann**: I saw it."), "Ann");
  EXPECT_EQ(SpeakerOf("**Ann:** I saw it."), "Ann");
  EXPECT_EQ(SpeakerOf("[2023-05-08 13:56] ann_lee: I saw it."), "ann_lee");
  EXPECT_EQ(SpeakerOf("(08:15) Ann: yes"), "Ann");
  EXPECT_EQ(SpeakerOf("user: hello"), "user");
  EXPECT_EQ(SpeakerOf("HAMLET:"), "HAMLET");
  EXPECT_EQ(SpeakerOf("\u0410\u043d\u043d\u0430: \u0434\u0430"), "\u0410\u043d\u043d\u0430");
}

TEST(SpeakerOf, IsEmptyForLinesThatNobodySays) {
  for (const char* line : {"", ":", "12:30 the train left", "https://example.org/a: b",
                           "std::cout << x", "a == b ? c : d", "{\"name\": 1}",
                           "The following five things are: bread", "He said (quietly): no",
                           "f(x): returns", "no colon at all", "   ", "Ge8:4 And the ark rested"}) {
    EXPECT_EQ(SpeakerOf(line), "") << line;
  }
  EXPECT_EQ(SpeakerOf(std::string(41, 'a') + ": too long"), "");
}

}  // namespace
}  // namespace longhold
