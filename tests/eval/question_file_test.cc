// Question files as people write them, correctly and incorrectly.

#include "eval/question_file.h"

#include <gtest/gtest.h>

namespace longhold {
namespace {

TEST(QuestionFile, ReadsEvidenceQuestionAndAnswers) {
  const auto read = ParseQuestions(
      "# head\n\nGe1:1, Ge1:2\tWho?\t God | the Spirit \r\n-\tWhat?\tx\n\tWhere?\ty", "f.tsv");
  ASSERT_TRUE(read.ok()) << read.status().message();
  ASSERT_EQ(read->size(), 3u);
  EXPECT_EQ((*read)[0].evidence, (std::vector<std::string>{"Ge1:1", "Ge1:2"}));
  EXPECT_EQ((*read)[0].question, "Who?");
  EXPECT_EQ((*read)[0].answers, (std::vector<std::string>{"God", "the Spirit"}));
  EXPECT_EQ((*read)[0].line, 3u);
  EXPECT_TRUE((*read)[1].evidence.empty());
  EXPECT_TRUE((*read)[2].evidence.empty());
}

TEST(QuestionFile, ADashMarksAQuestionThatTheTextDoesNotAnswer) {
  const auto read =
      ParseQuestions("Ge1:1\ta\tx\n-\tb\t-\n - \tc\tx\n\td\t\n\te\tx\n-\tf\t\n", "f.tsv");
  ASSERT_TRUE(read.ok()) << read.status().message();
  std::string unanswerable;
  for (const FileQuestion& q : *read) {
    if (q.unanswerable) unanswerable += q.question;
    EXPECT_EQ(q.answers.empty(), q.unanswerable) << q.question;
  }
  EXPECT_EQ(unanswerable, "bcdf");
}

TEST(QuestionFile, MalformedLinesAreReportedWithFileAndLine) {
  for (const auto& [text, what] : std::vector<std::pair<std::string, std::string>>{
           {"a\tb\tc\nno tabs\n", "f.tsv line 2: 1 column"},
           {"a\tb\n", "f.tsv line 1: 2 columns"},
           {"a\tb\tc\td\n", "f.tsv line 1: 4 columns"},
           {"\n\na\t \tc\n", "f.tsv line 3: no question"},
           {"a\tb\t | \n", "f.tsv line 1: no answer"},
           {"a\tb\t-\n", "f.tsv line 1: no answer"},
           {"# nothing\n", "f.tsv: contains no question"},
           {"", "f.tsv: contains no question"}}) {
    const auto read = ParseQuestions(text, "f.tsv");
    ASSERT_FALSE(read.ok()) << text;
    EXPECT_EQ(read.status().code(), StatusCode::kInvalidArgument);
    EXPECT_TRUE(read.status().message().starts_with(what)) << read.status().message();
  }
  EXPECT_EQ(LoadQuestions("/no/such/file.tsv").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(LoadQuestions("/").status().code(), StatusCode::kNotFound);
  // An endless file is not read to its end.
  const Status endless = LoadQuestions("/dev/zero").status();
  EXPECT_EQ(endless.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(endless.message().find("64 MiB"), std::string::npos) << endless.message();
}

TEST(LabelledLines, FindTheFirstLineWithExactlyThatLabel) {
  const std::string text = "Ge1:1 In the\nGe1:10 And God\n\n indented Ge1:1\nGe1:1 again\nlast";
  const LabelledLines lines(text);
  const auto at = [&](std::string_view label) {
    const ByteSpan span = lines.Find(label);
    return text.substr(span.begin, span.size());
  };
  EXPECT_EQ(at("Ge1:1"), "Ge1:1 In the");
  EXPECT_EQ(at("Ge1:10"), "Ge1:10 And God");
  EXPECT_EQ(at("last"), "last");
  EXPECT_EQ(at("Ge1"), "");
  EXPECT_EQ(at("indented"), "");
}

}  // namespace
}  // namespace longhold
