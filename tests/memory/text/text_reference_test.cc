// Finds the words of a question that only refer to the given text ("in the provided text"). Phrases
// of several forms, and similar words that are part of the question itself.
#include "memory/text/text_reference.h"

#include <gtest/gtest.h>

#include <string>

namespace longhold {
namespace {

// The question with every reference in square brackets.
std::string Bracketed(std::string_view question) {
  std::string out;
  size_t at = 0;
  for (const ByteSpan& span : TextReferences(question)) {
    out += std::string(question.substr(at, span.begin - at)) + "[" +
           std::string(question.substr(span.begin, span.size())) + "]";
    at = span.end;
  }
  return out + std::string(question.substr(at));
}

TEST(TextReference, FindsPhrasesThatReferToTheGivenText) {
  for (const char* bracketed : {
           "What is the number for vain-tiger [mentioned in the provided text]?",
           "[According to the passage], who came first?",
           "Which city is named [in the document above]?",
           "[In this article], what is the price?",
           "What was lost [in the text]",
           "What does Tom say [in the following conversation]? Answer briefly.",
           "Name the colour [Given in The Whole TEXT]!",
           "[From the given context], and [by the preceding paragraphs]: how many?",
       }) {
    std::string question(bracketed);
    std::erase_if(question, [](char c) { return c == '[' || c == ']'; });
    EXPECT_EQ(Bracketed(question), bracketed);
  }
}

TEST(TextReference, LeavesWordsThatBelongToTheQuestion) {
  for (const char* question : {
           "What is written in the book of Jasher?",
           "Who hid the letter in the book?",
           "Where does the text come from?",
           "Which text did Ezra read?",
           "What is in the file?",
           "What stands in the text of the law?",
           "Who passed by the tower?",
           "in",
           "In the",
           "",
           "given",
       }) {
    EXPECT_EQ(Bracketed(question), question);
  }
}

}  // namespace
}  // namespace longhold
