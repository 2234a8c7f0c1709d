// Learns a recall profile for a model from plain text: docs/design/calibration.md says what is
// tried and why.
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

namespace longhold {

struct CalibrateSettings {
  std::string home;  // an empty directory for the text's memory; left with it
  std::string name;  // of the profile
  uint64_t seed = 1;
  double minutes = 15;  // reading and answering are cut short to keep to it, about
  uint64_t text_bytes = 96 << 10;
};

struct CalibrateProgress {
  std::string step;  // "reading", "probing", "learning", "answering", "abstaining"
  uint64_t done = 0, total = 0;
};

// How one way to rank does on the three kinds of cases.
struct AblationRow {
  std::string name;   // "random", "words", ...
  RankScore learned;  // cases that were learned from
  RankScore held;     // others of the same forms
  RankScore fresh;    // of forms that nothing was learned from
};

// How words, the best head and what was learned do on one form (CalibrationCase::form), by its
// cases that nothing was learned from.
struct FormScore {
  std::string form;
  bool new_form = false;  // CalibrationCase::new_form
  RankScore words, head, calibrated;
};

struct HeadScore {
  RecallHead head;
  RankScore alone;  // on the learned cases
};

struct GateScore {
  double gate = 0;
  uint32_t reread = 0;  // RecallProfile::reencode_tokens
  uint32_t spans = 0;
  uint32_t cases = 0;
  double answered = 0;  // share of the answers that hold what was asked for
};

// How the mark for abstaining does on questions that did not choose it.
struct AbstainScore {
  uint32_t answerable = 0, unanswerable = 0, other_keys = 0;  // how many were judged
  double wrongly = 0, rightly = 0, keys_rightly = 0;          // share of each that is turned down
};

struct CalibrationReport {
  RecallProfile profile;  // its `calibration` holds all of this
  std::string text_sha256;
  uint64_t text_tokens = 0;
  size_t cases = 0;
  std::vector<HeadScore> heads;  // the best 16 by themselves, best first
  std::vector<AblationRow> ablation;
  // in the alphabet's order, those that were learned from first
  std::vector<FormScore> forms;
  std::vector<GateScore> gates;
  AbstainScore abstain;
  double seconds = 0;
};

// Errors: invalid_argument (too little text), cancelled, and what ingest and questions report.
Result<CalibrationReport> Calibrate(
    LanguageModel& model, const Haystack& source, const CalibrateSettings& settings,
    const std::atomic<bool>* stop,
    const std::function<void(const CalibrateProgress&)>& on_progress);

}  // namespace longhold
