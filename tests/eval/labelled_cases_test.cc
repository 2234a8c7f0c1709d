// Labelled cases as people and programs write them, correctly and incorrectly. Every mistake must
// be reported with file, line and what to write instead.
#include "eval/labelled_cases.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace longhold {
namespace {

std::vector<CaseDocument> Documents() {
  return {{"a.txt", "one\ntwo\nthree\n"}, {"db/log:1.cc", "\n\nint x;\r\nint y;"}};
}

Result<LabelledKind> Parse(std::string_view questions) {
  return ParseLabelledCases("made", Documents(), questions, "made/questions.tsv");
}

// The text of a place.
std::string At(const LabelledKind& kind, const EvidencePlace& place) {
  return kind.documents[place.document].text.substr(place.bytes.begin, place.bytes.size());
}

TEST(LabelledCases, APlaceIsWholeLinesWithoutTheLastLineBreak) {
  const auto kind = Parse(
      "# evidence\n\n"
      "a.txt:1-2\tWhat is first?\tone|two\r\n"
      " db/log:1.cc:3 \t x? \n"
      "db/log:1.cc:1-4\tall?\ty\n"
      "a.txt:3,a.txt:1\tany?\t-\n"
      "a.txt:3&db/log:1.cc:4\tboth?\t");
  ASSERT_TRUE(kind.ok()) << kind.status().message();
  ASSERT_EQ(kind->cases.size(), 5u);
  EXPECT_EQ(kind->name, "made");
  EXPECT_EQ(kind->answerable(), 5u);
  const auto& c = kind->cases;
  EXPECT_EQ(c[0].question, "What is first?");
  EXPECT_EQ(At(*kind, c[0].places[0]), "one\ntwo");
  EXPECT_EQ(c[1].question, "x?");
  EXPECT_EQ(At(*kind, c[1].places[0]), "int x;");
  EXPECT_EQ(At(*kind, c[2].places[0]), "\n\nint x;\r\nint y;");
  ASSERT_EQ(c[3].places.size(), 2u);
  EXPECT_FALSE(c[3].all_needed);
  EXPECT_EQ(At(*kind, c[3].places[0]), "three");
  ASSERT_EQ(c[4].places.size(), 2u);
  EXPECT_TRUE(c[4].all_needed);
  EXPECT_EQ(At(*kind, c[4].places[1]), "int y;");
}

TEST(LabelledCases, ADashMarksAQuestionThatTheTextsDoNotAnswer) {
  const auto kind = Parse("a.txt:1\tyes?\tx\n-\tno?\t-\n - \tneither?\n");
  ASSERT_TRUE(kind.ok()) << kind.status().message();
  ASSERT_EQ(kind->cases.size(), 3u);
  EXPECT_EQ(kind->answerable(), 1u);
  EXPECT_TRUE(kind->cases[1].places.empty());
  EXPECT_TRUE(kind->cases[2].places.empty());
}

TEST(LabelledCases, TwoFilesWithTheSameBytesAreOneDocument) {
  auto documents = Documents();
  documents.push_back({"copy.txt", documents[0].text});
  const auto kind = ParseLabelledCases("made", documents, "copy.txt:2\tq\ta\n", "q.tsv");
  ASSERT_TRUE(kind.ok()) << kind.status().message();
  EXPECT_EQ(kind->documents.size(), 2u);
  EXPECT_EQ(kind->cases[0].places[0].document, 0u);
  EXPECT_EQ(At(*kind, kind->cases[0].places[0]), "two");
}

TEST(LabelledCases, MistakesAreReportedWithFileLineAndNextStep) {
  const std::string long_question(kCaseQuestionBytesMax + 1, 'q');
  std::string many = "a.txt:1";
  for (size_t i = 0; i < kPlacesMax; ++i) many += ",a.txt:1";
  for (const auto& [line, what] : std::vector<std::pair<std::string, std::string>>{
           {"no tabs", "1 column; write evidence, question and answers"},
           {"a.txt:1\tb\tc\td", "4 columns"},
           {"a.txt:1\t \tc", "no question; write it"},
           {"a.txt:1\t" + long_question, "a question of 4097 bytes; shorten it to 4096"},
           {"\tb\tc", "no evidence; write PATH:FIRST-LAST"},
           {"a.txt\tb\tc", "'a.txt' is no place; write PATH:FIRST-LAST"},
           {":1-2\tb\tc", "':1-2' is no place"},
           {"a.txt:\tb\tc", "'' is no range of lines"},
           {"a.txt:0-1\tb\tc", "'0-1' is no range of lines; write FIRST-LAST, from 1"},
           {"a.txt:2-1\tb\tc", "'2-1' is no range"},
           {"a.txt:1-\tb\tc", "'1-' is no range"},
           {"a.txt:-1\tb\tc", "'-1' is no range"},
           {"a.txt:+1\tb\tc", "'+1' is no range"},
           {"a.txt:1x\tb\tc", "'1x' is no range"},
           {"a.txt:1-2-3\tb\tc", "'1-2-3' is no range"},
           {"a.txt:99999999999999999999\tb\tc", "is no range"},
           {"a.txt:4\tb\tc", "'a.txt' has 3 lines; name lines that it has"},
           {"a.txt:1-18446744073709551615\tb\tc", "'a.txt' has 3 lines"},
           {"db/log:1.cc:1-2\tb\tc", "is an empty line; name lines with text"},
           {"../a.txt:1\tb\tc", "there is no text '../a.txt'; write its path below texts/"},
           {"a.txt:1,\tb\tc", "'' is no place"},
           {"a.txt:1,-\tb\tc", "'-' is no place"},
           {"a.txt:1,a.txt:2&a.txt:3\tb\tc", "both ',' and '&'; write"},
           {many + "\tb\tc", "1001 places; name at most 1000"}}) {
    const auto kind = Parse("a.txt:1\tgood?\tx\n\n" + line + "\n");
    ASSERT_FALSE(kind.ok()) << line;
    EXPECT_EQ(kind.status().code(), StatusCode::kInvalidArgument);
    const std::string& message = kind.status().message();
    EXPECT_TRUE(message.starts_with("made/questions.tsv line 3: ")) << message;
    EXPECT_NE(message.find(what), std::string::npos) << message;
    EXPECT_NE(message.find("; "), std::string::npos) << message;
    EXPECT_LT(message.size(), 250u) << message;
  }
}

TEST(LabelledCases, AKindWithoutEvidenceTeachesNothingAndIsRefused) {
  for (const char* questions : {"", "# nothing\n", "-\tq?\t-\n"}) {
    const auto kind = Parse(questions);
    ASSERT_FALSE(kind.ok()) << questions;
    EXPECT_TRUE(
        kind.status().message().starts_with("made/questions.tsv: no question with evidence"))
        << kind.status().message();
  }
  EXPECT_FALSE(ParseLabelledCases("made", {}, "a.txt:1\tq\ta\n", "q.tsv").ok());
}

TEST(LabelledCases, AMillionEmptyLinesAndSeparatorsEndSoon) {
  EXPECT_FALSE(Parse(std::string(1 << 20, '\n')).ok());
  EXPECT_FALSE(Parse(std::string(1 << 20, '\t')).ok());
  EXPECT_FALSE(Parse(std::string(1 << 20, ',') + "\tq\ta").ok());
  EXPECT_FALSE(Parse(std::string(1 << 20, ':') + "\tq\ta").ok());
}

}  // namespace
}  // namespace longhold
