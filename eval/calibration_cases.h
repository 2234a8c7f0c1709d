// The cases that a calibration learns from. They are generated from plain text, without labels and
// without another model.
//
// There are two kinds. Needles are generated facts, hidden in the text in many forms. Cues ask for
// sentences of the text itself by parts of their wording. `longhold eval` uses none of these
// wordings. Some forms are kept out of training, so that the profile is also judged on wordings
// that it was not trained on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"
#include "eval/haystack.h"

namespace longhold {

struct CalibrationCase {
  std::string form;  // "locker", "cue-words", ...
  std::string question;
  // The value that a correct answer contains. Empty for cues, whose answers are not judged.
  std::string answer;
  ByteSpan evidence;      // in CalibrationCorpus::text
  bool learned = false;   // a training case; else a test case
  bool new_form = false;  // its form is not in the training set
};

// Value type.
struct CalibrationCorpus {
  std::string text;
  std::vector<CalibrationCase> cases;
  // Questions that the text does not answer. `unanswerable`: cues from sentences of the source that
  // are not in the text. `other_keys`: questions for needles that were not hidden, while other
  // needles of the same form were.
  std::vector<std::string> unanswerable, other_keys;
};

struct CorpusRequest {
  uint64_t bytes = 96 << 10;  // approximate size of the text
  uint32_t per_form = 12;     // number of needles per form
  uint32_t cues = 40;         // number of cues per form
  uint64_t seed = 1;
};

// Generates the corpus. The same request and source give the same corpus on every machine. Errors:
// invalid_argument (the source has fewer than 200 sentences).
Result<CalibrationCorpus> BuildCalibrationCorpus(const Haystack& source,
                                                 const CorpusRequest& request);

}  // namespace longhold
