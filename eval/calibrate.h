// Learns a recall profile for a model from plain text. docs/design/calibration.md describes the
// method and its reasons.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "eval/calibration_fit.h"
#include "eval/haystack.h"
#include "memory/model/language_model.h"
#include "memory/model/recall_profile.h"
#include "store/store_provider.h"

namespace longhold {

struct CalibrateSettings {
  StoreProvider* stores = nullptr;  // without memories; afterwards it holds that of the text
  std::string name;                 // name of the profile
  uint64_t seed = 1;
  double minutes = 15;  // approximate limit: reading and answering stop early to meet it
  uint64_t text_bytes = 96 << 10;
};

struct CalibrateProgress {
  std::string step;  // "reading", "probing", "learning", "answering", "abstaining"
  uint64_t done = 0, total = 0;
};

// The scores of one ranking method on the three sets of cases. Value type.
struct AblationRow {
  std::string name;   // "random", "words", ...
  RankScore learned;  // training cases
  RankScore held;     // held-out cases of the same forms
  RankScore fresh;    // cases of forms that are not in the training set
};

// The scores of three methods on one form (CalibrationCase::form), without its training cases:
// words only, the best head, and the calibrated profile. Value type.
struct FormScore {
  std::string form;
  bool new_form = false;  // CalibrationCase::new_form
  RankScore words, head, calibrated;
};

struct HeadScore {
  RecallHead head;
  RankScore alone;  // score on the training cases if this head alone ranks
};

// Share of correct answers with one setting of gate, re-encoding and span budget. Value type.
struct GateScore {
  double gate = 0;
  uint32_t reread = 0;  // RecallProfile::reencode_tokens
  uint32_t spans = 0;
  uint32_t cases = 0;
  double answered = 0;  // share of the answers that contain the expected value
};

// Quality of the abstention threshold on questions that were not used to choose it. Value type.
struct AbstainScore {
  uint32_t answerable = 0, unanswerable = 0, other_keys = 0;  // number of questions judged
  double wrongly = 0, rightly = 0, keys_rightly = 0;          // share of each that abstains
};

struct CalibrationReport {
  RecallProfile profile;  // its `calibration` member records all other fields
  std::string text_sha256;
  uint64_t text_tokens = 0;
  size_t cases = 0;
  std::vector<HeadScore> heads;  // the 16 best single heads, best first
  std::vector<AblationRow> ablation;
  // Forms of the training set come first, then the others; each group in alphabetical order.
  std::vector<FormScore> forms;
  std::vector<GateScore> gates;
  AbstainScore abstain;
  double seconds = 0;
};

// Learns a profile. `stop` and `on_progress` may be null. Errors: invalid_argument (too little
// text), cancelled, and the errors of ingest and ask.
Result<CalibrationReport> Calibrate(
    LanguageModel& model, const Haystack& source, const CalibrateSettings& settings,
    const std::atomic<bool>* stop,
    const std::function<void(const CalibrateProgress&)>& on_progress);

}  // namespace longhold
