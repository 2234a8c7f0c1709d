// Question files: questions about a text, with evidence and accepted answers. The format is
// tab-separated, one question per line.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"

namespace longhold {

// One line of the file, for example:
//   Ge4:8,Ge4:9 <tab> Who killed Abel? <tab> Cain|the brother
// Column 1, evidence: labels of lines of the text, separated by commas. Any one of them holds the
// answer. "-" means that the text does not answer the question, so that abstaining is correct.
// Empty evidence and empty answers mean the same. Empty evidence with answers means that the place
// of the answer is not known. Column 3, answers: separated by "|". Any one is correct, letter case
// is ignored. "-" is no answer. Empty lines and lines that begin with "#" are skipped. Value type.
struct FileQuestion {
  std::vector<std::string> evidence;
  std::string question;
  std::vector<std::string> answers;
  bool unanswerable = false;  // if true, `evidence` and `answers` are empty
  uint64_t line = 0;          // line number in the file, 1-based
};

// Parses a file's text. Errors: invalid_argument naming `name` and the line (not three columns, no
// question, or no answer), or `name` alone (the file holds no question).
Result<std::vector<FileQuestion>> ParseQuestions(std::string_view text, const std::string& name);
inline constexpr size_t kQuestionFileBytesMax = 64u << 20;
// Reads and parses a file. Errors: not_found, invalid_argument (longer than kQuestionFileBytesMax),
// and those of ParseQuestions.
Result<std::vector<FileQuestion>> LoadQuestions(const std::string& path);

// Finds lines of a text by their label, which is the text before the first white space of a line.
// Must hold: the text outlives this object. Thread use: *immutable*.
class LabelledLines {
 public:
  explicit LabelledLines(std::string_view text);
  // The first line with that label, without its line break. Empty if there is none.
  ByteSpan Find(std::string_view label) const;

 private:
  struct Line {
    std::string_view label;
    ByteSpan bytes;
  };
  std::vector<Line> lines_;  // sorted by label, then by position
};

}  // namespace longhold
