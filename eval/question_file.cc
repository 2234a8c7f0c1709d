#include "eval/question_file.h"

#include <algorithm>
#include <array>
#include <fstream>

namespace longhold {
namespace {

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") + 1 - begin);
}

// Splits a text and trims the parts. Empty parts are dropped.
std::vector<std::string> Split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(separator, at), text.size());
    const std::string_view part = Trim(text.substr(at, end - at));
    if (!part.empty()) parts.emplace_back(part);
    at = end + 1;
  }
  return parts;
}

}  // namespace

Result<std::vector<FileQuestion>> ParseQuestions(std::string_view text, const std::string& name) {
  std::vector<FileQuestion> questions;
  uint64_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    at = end + 1;
    ++number;
    if (Trim(line).empty() || line.front() == '#') continue;
    const std::string where = name + " line " + std::to_string(number) + ": ";
    const auto columns = static_cast<size_t>(std::count(line.begin(), line.end(), '\t')) + 1;
    if (columns != 3) {
      return InvalidArgument(where + std::to_string(columns) +
                             (columns == 1 ? " column" : " columns") +
                             "; write evidence, question and answers, separated by tabs");
    }
    const size_t first = line.find('\t'), second = line.find('\t', first + 1);
    FileQuestion question;
    question.line = number;
    question.evidence = Split(line.substr(0, first), ',');
    question.question = std::string(Trim(line.substr(first + 1, second - first - 1)));
    question.answers = Split(line.substr(second + 1), '|');
    const std::vector<std::string> none = {"-"};
    if (question.answers == none) question.answers.clear();
    question.unanswerable =
        question.evidence == none || (question.evidence.empty() && question.answers.empty());
    if (question.unanswerable) {
      question.evidence.clear();
      question.answers.clear();
    }
    if (question.question.empty())
      return InvalidArgument(where + "no question; write it in the second column");
    if (question.answers.empty() && !question.unanswerable)
      return InvalidArgument(
          where + "no answer; write accepted answers in the third column, separated by '|'");
    questions.push_back(std::move(question));
  }
  if (questions.empty())
    return InvalidArgument(
        name +
        ": contains no question; write lines of evidence, question and answers, separated by tabs");
  return questions;
}

Result<std::vector<FileQuestion>> LoadQuestions(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text;
  std::array<char, 1u << 16> piece;
  while (file && text.size() <= kQuestionFileBytesMax) {  // a device may never end
    file.read(piece.data(), piece.size());
    text.append(piece.data(), static_cast<size_t>(file.gcount()));
  }
  if (!file.is_open() || file.bad())
    return NotFound("questions " + path + ": cannot be read; check the path");
  if (text.size() > kQuestionFileBytesMax)
    return InvalidArgument("questions " + path + ": longer than 64 MiB; split the file");
  return ParseQuestions(text, path);
}

LabelledLines::LabelledLines(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    const size_t label = std::min(line.find_first_of(" \t\r"), line.size());
    if (label > 0) lines_.push_back({line.substr(0, label), {at, end}});
    at = end + 1;
  }
  std::stable_sort(lines_.begin(), lines_.end(),
                   [](const Line& a, const Line& b) { return a.label < b.label; });
}

ByteSpan LabelledLines::Find(std::string_view label) const {
  const auto it = std::lower_bound(lines_.begin(), lines_.end(), label,
                                   [](const Line& l, std::string_view b) { return l.label < b; });
  return it == lines_.end() || it->label != label ? ByteSpan{} : it->bytes;
}

}  // namespace longhold
