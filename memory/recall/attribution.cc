#include "memory/recall/attribution.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <string>

#include "memory/text/speaker.h"

namespace longhold {
namespace {

// A label counts as a speaker from so many lines on. "Note:" in one line is none.
constexpr size_t kSpeakerLinesMin = 2;
constexpr size_t kProbedPlaces = 16;
// Initials and "Mr" name nobody.
constexpr size_t kNameLettersMin = 3;

std::string Folded(std::string_view text) {
  std::string folded(text);
  for (char& c : folded) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return folded;
}

bool IsWordByte(char c) {
  return (c & 0x80) != 0 || std::isalnum(static_cast<unsigned char>(c)) != 0;
}

std::vector<std::string> WordsOf(std::string_view text) {
  std::vector<std::string> words(1);
  for (const char c : Folded(text)) {
    if (IsWordByte(c)) {
      words.back() += c;
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

// Whether any name of the speaker, first or last, is a word of the question.
bool Names(const std::vector<std::string>& question, std::string_view speaker) {
  for (const std::string& name : WordsOf(speaker)) {
    if (name.size() >= kNameLettersMin &&
        std::find(question.begin(), question.end(), name) != question.end())
      return true;
  }
  return false;
}

}  // namespace

Attribution Attribution::Of(Memory& memory, std::string_view question,
                            const std::vector<Place>& places) {
  Attribution attribution;
  std::map<std::string, std::vector<Place>> lines;  // by speaker
  for (size_t i = 0; i < places.size(); ++i) {
    if (i == kProbedPlaces && lines.empty()) return attribution;
    const auto& [document, token] = places[i];
    const Result<std::string> line = memory.LineAt(document, token, kSpeakerBytesMax);
    if (!line.ok()) continue;
    const std::string_view speaker = SpeakerOf(*line);
    if (!speaker.empty()) lines[Folded(speaker)].push_back(places[i]);
  }
  std::erase_if(lines, [](const auto& l) { return l.second.size() < kSpeakerLinesMin; });
  const std::vector<std::string> words = WordsOf(question);
  size_t named = 0;
  std::vector<Place> others;
  for (const auto& [speaker, of] : lines) {
    if (Names(words, speaker)) {
      ++named;
    } else {
      others.insert(others.end(), of.begin(), of.end());
    }
  }
  if (named > 0) attribution.others_ = {others.begin(), others.end()};
  return attribution;
}

double Attribution::Factor(DocumentId document, uint64_t token) const {
  return others_.contains({document, token}) ? kOtherSpeaker : 1;
}

}  // namespace longhold
