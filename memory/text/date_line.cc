#include "memory/text/date_line.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string>

namespace longhold {
namespace {

constexpr size_t kLineBytesMax = 96;
constexpr int kOtherWordsMax = 2;

constexpr std::array<std::string_view, 12> kMonths = {
    "january", "february", "march",     "april",   "may",      "june",
    "july",    "august",   "september", "october", "november", "december"};
constexpr std::array<std::string_view, 7> kDays = {"monday", "tuesday",  "wednesday", "thursday",
                                                   "friday", "saturday", "sunday"};
// What else stands in the head of a session, beside numbers.
constexpr std::array<std::string_view, 24> kOthers = {
    "am",  "pm",   "at",  "on",      "the",          "of",    "st",   "nd",
    "rd",  "th",   "utc", "gmt",     "date",         "time",  "day",  "session",
    "and", "from", "to",  "chapter", "conversation", "entry", "year", "t"};

bool IsLetter(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) != 0 || (c & 0x80) != 0;
}
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Whether `word` is one of `names`, or the first three letters of one.
template <size_t n>
bool Names(const std::array<std::string_view, n>& names, std::string_view word) {
  return std::any_of(names.begin(), names.end(), [&](std::string_view name) {
    return word == name || (word.size() >= 3 && word.size() <= 4 && name.starts_with(word));
  });
}

// Three numbers with the same of - . / between them, as in 2023-05-08, 8.5.2023 and 5/8/23, but not
// 2.30.1: a year has two or four digits and stands first or last, a month is at most 12.
bool IsNumericDate(std::string_view token) {
  std::array<int, 3> values{};
  std::array<size_t, 3> digits{};
  size_t at = 0;
  for (size_t n = 0; n < 3; ++n) {
    for (; at < token.size() && IsDigit(token[at]) && digits[n] < 5; ++at, ++digits[n])
      values[n] = 10 * values[n] + (token[at] - '0');
    if (digits[n] == 0) return false;
    if (n == 2) break;
    if (at == token.size() || std::string_view("-./").find(token[at]) == std::string_view::npos ||
        (n == 1 && token[at] != token[at - digits[1] - 1]))
      return false;
    ++at;
  }
  // Behind an ISO date its time may follow.
  if (at < token.size() && token[at] != 'T') return false;
  const auto day_and_month = [](int a, int b) {
    return a >= 1 && b >= 1 && std::min(a, b) <= 12 && std::max(a, b) <= 31;
  };
  if (digits[0] == 4) return digits[2] <= 2 && day_and_month(values[1], values[2]);
  return (digits[2] == 2 || digits[2] == 4) && digits[0] <= 2 && digits[1] <= 2 &&
         day_and_month(values[0], values[1]);
}

}  // namespace

bool IsDateLine(std::string_view line) {
  if (line.size() > kLineBytesMax) return false;
  bool month = false, number = false, date = false;
  int others = 0;
  for (size_t at = 0; at < line.size();) {
    if (IsDigit(line[at])) {
      const size_t end = std::min(line.find_first_of(" \t)]_*", at), line.size());
      const std::string_view token = line.substr(at, end - at);
      number = true;
      date = date || IsNumericDate(token.substr(0, token.find_last_not_of(",;:.") + 1));
      while (at < end && !IsLetter(line[at])) ++at;
      continue;
    }
    if (!IsLetter(line[at])) {
      ++at;
      continue;
    }
    const bool capital = line[at] >= 'A' && line[at] <= 'Z';  // "may" is a verb
    std::string word;
    for (; at < line.size() && IsLetter(line[at]); ++at)
      word += static_cast<char>(std::tolower(static_cast<unsigned char>(line[at])));
    if (capital && Names(kMonths, word)) {
      month = true;
    } else if (!Names(kDays, word) &&
               std::find(kOthers.begin(), kOthers.end(), word) == kOthers.end()) {
      if (++others > kOtherWordsMax) return false;
    }
  }
  return date || (month && number);
}

}  // namespace longhold
