#include "memory/text/speaker.h"

#include <algorithm>
#include <cctype>

namespace longhold {
namespace {

constexpr size_t kNameBytesMax = 40;
constexpr size_t kNameWordsMax = 4;
constexpr std::string_view kMarks = " \t\r\n-*>#_+";

bool IsLetter(char c) {
  return (c & 0x80) != 0 || std::isalpha(static_cast<unsigned char>(c)) != 0;
}

std::string_view WithoutMarks(std::string_view text) {
  const size_t first = text.find_first_not_of(kMarks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kMarks) + 1 - first);
}

// Behind a time or another note in brackets.
std::string_view PastBrackets(std::string_view line) {
  const char closer = line.starts_with('[') ? ']' : line.starts_with('(') ? ')' : '\0';
  if (closer == '\0') return line;
  const size_t end = line.find(closer);
  return end == std::string_view::npos ? line : line.substr(end + 1);
}

}  // namespace

std::string_view SpeakerOf(std::string_view line) {
  line = line.substr(0, kSpeakerBytesMax);
  line.remove_prefix(std::min(line.size(), line.find_first_not_of(kMarks)));
  line = PastBrackets(line);
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return {};
  // "http://", "std::cout" and "12:30" are no names.
  const bool spoken = colon + 1 == line.size() || line[colon + 1] == ' ' || line[colon + 1] == '*';
  const std::string_view name = WithoutMarks(line.substr(0, colon));
  if (!spoken || name.empty() || name.size() > kNameBytesMax || !IsLetter(name.front())) return {};
  if (name.find_first_of("!?,;()[]{}\"=/<>") != std::string_view::npos) return {};
  const auto words = 1 + std::count(name.begin(), name.end(), ' ');
  if (static_cast<size_t>(words) > kNameWordsMax) return {};
  return name;
}

}  // namespace longhold
