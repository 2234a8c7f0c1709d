// Files of questions on a text: evidence, question, answers; one line each, separated by tabs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"

namespace longhold {

// A line of the file.
//   Ge4:8,Ge4:9 <tab> Who killed Abel? <tab> Cain|the brother
// Evidence are labels of the text's lines, separated by commas, any one of which suffices. "-": the
// text does not answer the question, and what is right is to say so; the same where both evidence
// and answers are empty. "" with answers: it is not known where they stand. Answers are separated
// by "|", any one is right, letter case does not matter; "-" is none. Empty lines and lines that
// begin with "#" are passed over.
struct FileQuestion {
  std::vector<std::string> evidence;
  std::string question;
  std::vector<std::string> answers;
  bool unanswerable = false;  // then there are neither evidence nor answers
  uint64_t line = 0;          // 1-based, in the file
};

// Errors: invalid_argument with `name` and the line: not three columns, no question, no answer; no
// question at all.
Result<std::vector<FileQuestion>> ParseQuestions(std::string_view text, const std::string& name);
inline constexpr size_t kQuestionFileBytesMax = 64u << 20;
// Errors: not_found; invalid_argument (longer than that); ParseQuestions'.
Result<std::vector<FileQuestion>> LoadQuestions(const std::string& path);

// The lines of a text by their labels: what stands before a line's first white space.
class LabelledLines {
 public:
  explicit LabelledLines(std::string_view text);
  // The bytes of the first line with that label, without its line break; empty where there is none.
  ByteSpan Find(std::string_view label) const;

 private:
  struct Line {
    std::string_view label;
    ByteSpan bytes;
  };
  std::vector<Line> lines_;  // by label, then by place
};

}  // namespace longhold
