// EnglishBaseForm on well-known irregular forms, and on words that only resemble such forms.
#include "memory/text/english_irregular.h"

#include <gtest/gtest.h>

namespace longhold {
namespace {

TEST(EnglishBaseForm, KnowsVerbsAndNounsOldAndNew) {
  EXPECT_EQ(EnglishBaseForm("spake"), "speak");
  EXPECT_EQ(EnglishBaseForm("spoken"), "speak");
  EXPECT_EQ(EnglishBaseForm("slain"), "slay");
  EXPECT_EQ(EnglishBaseForm("hath"), "have");
  EXPECT_EQ(EnglishBaseForm("doth"), "do");
  EXPECT_EQ(EnglishBaseForm("undertook"), "undertake");
  EXPECT_EQ(EnglishBaseForm("policemen"), "policeman");
  EXPECT_EQ(EnglishBaseForm("criteria"), "criterion");
  EXPECT_EQ(EnglishBaseForm("am"), "be");            // next to the first group's start
  EXPECT_EQ(EnglishBaseForm("vortices"), "vortex");  // in the last group
  EXPECT_GE(EnglishIrregularCount(), 600u);
}

TEST(EnglishBaseForm, LeavesBaseFormsAndRegularWordsAlone) {
  for (const char* word : {"speak", "man", "left", "wound", "ground", "rent", "art", "death",
                           "omen", "specimen", "forest", "sinai", ""}) {
    EXPECT_EQ(EnglishBaseForm(word), "") << word;
  }
}

// Stem() takes one step. If a base were itself an irregular form, it would get another stem than
// its form.
TEST(EnglishBaseForm, EndsAfterOneStep) {
  for (const char* form : {"laid", "lain", "found", "foundest", "bound", "saw", "seen", "felt",
                           "fell", "wrought", "lit"}) {
    ASSERT_NE(EnglishBaseForm(form), "") << form;
    EXPECT_EQ(EnglishBaseForm(EnglishBaseForm(form)), "") << form;
  }
}

}  // namespace
}  // namespace longhold
