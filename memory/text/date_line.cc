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

// Three numbers of one to four digits with the same of - . / between them.
bool IsNumericDate(std::string_view token) {
  size_t numbers = 0, at = 0;
  char separator = 0;
  while (at < token.size()) {
    const size_t begin = at;
    while (at < token.size() && IsDigit(token[at])) ++at;
    if (at == begin || at - begin > 4) return false;
    ++numbers;
    if (at == token.size() || numbers == 3) break;
    if (std::string_view("-./").find(token[at]) == std::string_view::npos) return false;
    if (separator != 0 && token[at] != separator) return false;
    separator = token[at++];
  }
  // Behind the day, an ISO time may follow.
  return numbers == 3 && (at == token.size() || token[at] == 'T' || token[at] == ',');
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
    std::string word;
    for (; at < line.size() && IsLetter(line[at]); ++at)
      word += static_cast<char>(std::tolower(static_cast<unsigned char>(line[at])));
    if (Names(kMonths, word)) {
      month = true;
    } else if (!Names(kDays, word) &&
               std::find(kOthers.begin(), kOthers.end(), word) == kOthers.end()) {
      if (++others > kOtherWordsMax) return false;
    }
  }
  return date || (month && number);
}

}  // namespace longhold
