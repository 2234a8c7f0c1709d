// Who says what: in a transcript, a question that names one of the speakers is usually about what
// that speaker says.
#pragma once

#include <cstdint>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/types.h"
#include "memory/core/memory.h"

namespace longhold {

// A score is multiplied by this if a speaker whom the question does not name says the line
// (docs/decisions/0032).
inline constexpr double kOtherSpeaker = 0.7;

// The speakers of the lines that a question's candidates stand in, and which of them it names.
// Owner: one plan. Thread use: *confined*.
class Attribution {
 public:
  // A token of a document.
  using Place = std::pair<DocumentId, uint64_t>;

  // `places` are those of the candidates, best first. Where they show fewer than two speakers, or
  // the question names none or all of them, every factor is 1. In a text that is no transcript only
  // the first 16 are looked at. Damaged lines count as nobody's.
  static Attribution Of(Memory& memory, std::string_view question,
                        const std::vector<Place>& places);

  // 1, or kOtherSpeaker for a line of somebody that the question does not name. 1 for places that
  // Of did not get.
  double Factor(DocumentId document, uint64_t token) const;
  // Whether the question names some of the speakers and not others.
  bool names_speaker() const { return !others_.empty(); }

 private:
  std::set<Place> others_;  // places in other speakers' lines
};

}  // namespace longhold
