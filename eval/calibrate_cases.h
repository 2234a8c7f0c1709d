// Learns the weights of the signals, the thresholds of abstention and the number of spans from
// labelled cases over several kinds of text, and judges them on a kind that was left out.
// docs/design/calibration.md describes the method and its reasons.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "eval/calibrate.h"
#include "eval/fusion_fit.h"
#include "eval/labelled_cases.h"
#include "memory/model/language_model.h"
#include "memory/model/recall_profile.h"
#include "memory/model/text_embedder.h"
#include "store/store_provider.h"

namespace longhold {

struct CaseSettings {
  StoreProvider* stores = nullptr;  // without memories; afterwards it holds those of the kinds
  RecallProfile present;            // what is not learned stays as it is here
};

// How one kind of text is served by what was learned from the others. Value type.
struct KindJudgement {
  std::string name;
  uint64_t tokens = 0;
  // Questions with and without an answer; of the latter some are other kinds'.
  size_t answerable = 0, unanswerable = 0;
  RankScore words, present, without, all;  // by words alone, and by the profiles, as recall ranks
  std::vector<double> weights_without;     // [CaseReport::signals] learned without this kind
  AbstainThresholds thresholds_without;
  RefusalScore refusal_present, refusal_without, refusal_final;
};

// Value type.
struct CaseReport {
  RecallProfile profile;             // its `calibration` member records all other fields
  std::vector<std::string> signals;  // whose weights were learned; words are the first
  std::vector<double> present_weights, learned_weights;  // [signals]
  AbstainThresholds present_thresholds;
  std::optional<AbstainThresholds> learned_thresholds;  // none if no pair refuses few enough
  uint32_t present_spans = 0;
  // With a single kind nothing is left out, and `without` and `refusal_without` are empty.
  bool judged = false;
  // The profile has the present ones: on kinds that were left out, the learned weights rank worse,
  // or there are no learned thresholds that refuse few enough.
  bool weights_kept = false, thresholds_kept = false;
  std::vector<KindJudgement> kinds;
  std::vector<double> evidence_by_spans;  // [kSpanCounts] EvidenceBySpans
  double seconds = 0;
};

// Learns a profile. Without an embedder, the weight of the dense signal and the threshold of
// similarity stay as they are. If the profile names no recall heads, the texts are indexed and not
// read (eval/unread_model.h). `embedder`, `stop` and `on_progress` may be null. Must hold: at least
// one kind. Errors: cancelled, those of ingest and recall.
Result<CaseReport> CalibrateOnCases(
    LanguageModel& model, TextEmbedder* embedder, std::span<const LabelledKind> kinds,
    const CaseSettings& settings, const std::atomic<bool>* stop,
    const std::function<void(const CalibrateProgress&)>& on_progress);

}  // namespace longhold
