#include "eval/labelled_cases.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <utility>

#include "base/hash.h"
#include "base/text.h"

namespace longhold {
namespace {

constexpr size_t kShownBytes = 60;  // of what an error quotes

std::string_view Trim(std::string_view text) {
  while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
  return text;
}

// The text in quotes, cut to what a line of an error has room for.
std::string Quoted(std::string_view text) {
  const std::string_view shown = text.substr(0, WholeCharacters(text.substr(0, kShownBytes)));
  return "'" + std::string(shown) + (shown.size() < text.size() ? "...'" : "'");
}

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(separator, at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

// The whole text as a number above 0; 0 if it is none.
uint64_t LineNumber(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() ? number : 0;
}

// A document with the byte at which each of its lines begins.
struct Lines {
  uint32_t document = 0;
  std::string_view text;
  std::vector<uint64_t> begins;

  Lines(uint32_t number, std::string_view whole) : document(number), text(whole) {
    for (size_t at = 0; at < text.size();) {
      begins.push_back(at);
      at = std::min(text.find('\n', at), text.size() - 1) + 1;
    }
  }
  // Lines [first, last], counted from 1, without the line break at their end.
  ByteSpan Bytes(uint64_t first, uint64_t last) const {
    const uint64_t begin = begins[first - 1];
    uint64_t end = last < begins.size() ? begins[last] : text.size();
    while (end > begin && (text[end - 1] == '\n' || text[end - 1] == '\r')) --end;
    return {begin, end};
  }
};

// Finds the places that the evidence column names.
class Places {
 public:
  // Keeps each text of `documents` once, and knows it by all its names.
  explicit Places(std::vector<CaseDocument>* documents) {
    std::map<std::string, uint32_t, std::less<>> held;
    std::vector<CaseDocument> kept;
    std::vector<std::pair<std::string, uint32_t>> names;
    for (CaseDocument& document : *documents) {
      const auto [at, fresh] =
          held.try_emplace(Sha256Hex(document.text), static_cast<uint32_t>(kept.size()));
      names.emplace_back(document.name, at->second);
      if (fresh) kept.push_back(std::move(document));
    }
    *documents = std::move(kept);
    for (const auto& [name, number] : names)
      lines_.try_emplace(name, number, (*documents)[number].text);
  }

  // "path:first-last" or "path:line". Errors: invalid_argument, without the place in the file.
  Result<EvidencePlace> Find(std::string_view piece) const {
    const size_t colon = piece.rfind(':');
    const std::string_view path = Trim(piece.substr(0, std::min(colon, piece.size())));
    if (colon == std::string_view::npos || path.empty())
      return InvalidArgument(Quoted(piece) + " is no place; write PATH:FIRST-LAST, or '-'");
    const std::string_view range = Trim(piece.substr(colon + 1));
    const size_t dash = std::min(range.find('-'), range.size());
    const uint64_t first = LineNumber(range.substr(0, dash));
    const uint64_t last = dash < range.size() ? LineNumber(range.substr(dash + 1)) : first;
    if (first == 0 || last < first)
      return InvalidArgument(Quoted(range) + " is no range of lines; write FIRST-LAST, from 1");
    const auto found = lines_.find(path);
    if (found == lines_.end())
      return InvalidArgument("there is no text " + Quoted(path) +
                             "; write its path below texts/, with '/' between folders");
    const Lines& lines = found->second;
    if (last > lines.begins.size())
      return InvalidArgument(Quoted(path) + " has " + std::to_string(lines.begins.size()) +
                             " lines; name lines that it has");
    const EvidencePlace place{lines.document, lines.Bytes(first, last)};
    if (place.bytes.size() == 0)
      return InvalidArgument(Quoted(piece) + " is an empty line; name lines with text");
    return place;
  }

 private:
  std::map<std::string, Lines, std::less<>> lines_;
};

// One line of the file. Errors: as Places::Find's.
Result<LabelledCase> ParseCase(std::string_view line, const Places& places) {
  const std::vector<std::string_view> columns = Split(line, '\t');
  if (columns.size() < 2 || columns.size() > 3)
    return InvalidArgument(std::to_string(columns.size()) +
                           (columns.size() == 1 ? " column" : " columns") +
                           "; write evidence, question and answers, separated by tabs");
  LabelledCase parsed;
  parsed.question = std::string(Trim(columns[1]));
  if (parsed.question.empty()) return InvalidArgument("no question; write it in the second column");
  if (parsed.question.size() > kCaseQuestionBytesMax)
    return InvalidArgument("a question of " + std::to_string(parsed.question.size()) +
                           " bytes; shorten it to " + std::to_string(kCaseQuestionBytesMax));
  const std::string_view evidence = Trim(columns[0]);
  if (evidence == "-") return parsed;
  if (evidence.empty())
    return InvalidArgument(
        "no evidence; write PATH:FIRST-LAST in the first column, or '-' if the texts have no "
        "answer");
  parsed.all_needed = evidence.find('&') != std::string_view::npos;
  if (parsed.all_needed && evidence.find(',') != std::string_view::npos)
    return InvalidArgument(
        "both ',' and '&'; write ',' if any place suffices, '&' if all are needed");
  const std::vector<std::string_view> pieces = Split(evidence, parsed.all_needed ? '&' : ',');
  if (pieces.size() > kPlacesMax)
    return InvalidArgument(std::to_string(pieces.size()) + " places; name at most " +
                           std::to_string(kPlacesMax));
  for (const std::string_view piece : pieces) {
    LH_ASSIGN_OR_RETURN(const EvidencePlace place, places.Find(Trim(piece)));
    parsed.places.push_back(place);
  }
  return parsed;
}

}  // namespace

size_t LabelledKind::answerable() const {
  return static_cast<size_t>(std::count_if(
      cases.begin(), cases.end(), [](const LabelledCase& c) { return !c.places.empty(); }));
}

Result<LabelledKind> ParseLabelledCases(std::string name, std::vector<CaseDocument> documents,
                                        std::string_view questions, const std::string& file) {
  LabelledKind kind;
  kind.name = std::move(name);
  kind.documents = std::move(documents);
  const Places places(&kind.documents);
  uint64_t number = 0;
  for (const std::string_view line : Split(questions, '\n')) {
    ++number;
    if (Trim(line).empty() || line.front() == '#') continue;
    const std::string where = file + " line " + std::to_string(number) + ": ";
    Result<LabelledCase> parsed = ParseCase(line, places);
    if (!parsed.ok()) return InvalidArgument(where + parsed.status().message());
    if (kind.cases.size() == kCasesMax)
      return InvalidArgument(where + "more than " + std::to_string(kCasesMax) +
                             " questions; remove some");
    kind.cases.push_back(std::move(*parsed));
  }
  if (kind.answerable() == 0)
    return InvalidArgument(file +
                           ": no question with evidence; write lines of PATH:FIRST-LAST, question "
                           "and answers, separated by tabs");
  return kind;
}

}  // namespace longhold
