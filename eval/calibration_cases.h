// The cases that a calibration learns from: made from plain text, without labels and without
// another model.
//
// Some facts of our own are hidden in the text and asked for (needles of many forms); some of the
// text's own sentences are asked for by what they say (cues). The wordings are none of those that
// `longhold eval` asks with, and some forms are kept out of learning, so that what is learned is
// judged on wordings that it has not seen.
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
  // what an answer must hold; empty for cues: their answers are not judged
  std::string answer;
  ByteSpan evidence;      // of the corpus's text
  bool learned = false;   // learned from; else judged by
  bool new_form = false;  // of a form that nothing is learned from
};

// Value type.
struct CalibrationCorpus {
  std::string text;
  std::vector<CalibrationCase> cases;
  // Questions that the text does not answer: cues of sentences that the source holds and the text
  // does not, and questions for needles that were not hidden, beside others of their form that
  // were.
  std::vector<std::string> unanswerable, other_keys;
};

struct CorpusRequest {
  uint64_t bytes = 96 << 10;  // of the text, about
  uint32_t per_form = 12;     // needles of each form
  uint32_t cues = 40;         // of each kind of cue
  uint64_t seed = 1;
};

// The same request and source give the same corpus on every machine. Errors: invalid_argument when
// the source has fewer than 200 sentences.
Result<CalibrationCorpus> BuildCalibrationCorpus(const Haystack& source,
                                                 const CorpusRequest& request);

}  // namespace longhold
