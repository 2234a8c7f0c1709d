#include "eval/calibrate_cases.h"

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <optional>
#include <utility>

#include "eval/case_recall.h"
#include "eval/unread_model.h"

namespace longhold {
namespace {

namespace json = boost::json;
using Clock = std::chrono::steady_clock;

// Reports progress, by passes over all questions.
class Progress {
 public:
  Progress(const std::function<void(const CalibrateProgress&)>& on_progress, size_t passes)
      : on_progress_(on_progress), passes_(passes) {}

  CaseMemories::OnCount Reading() const { return Step("reading, bytes"); }
  CaseMemories::OnCount NextPass() {
    return Step("asking, pass " + std::to_string(++pass_) + " of " + std::to_string(passes_) +
                ", questions");
  }

 private:
  CaseMemories::OnCount Step(const std::string& step) const {
    return [this, step](uint64_t done, uint64_t total) {
      if (on_progress_) on_progress_({step, done, total});
    };
  }

  const std::function<void(const CalibrateProgress&)>& on_progress_;
  const size_t passes_;
  size_t pass_ = 0;
};

std::vector<std::string> LearnedSignals(const RecallProfile& present, bool embeds) {
  std::vector<std::string> signals = {std::string(kWordSignal), std::string(kExpansionSignal)};
  if (embeds) signals.emplace_back(kDenseSignal);
  if (!present.heads.empty()) signals.emplace_back(kHeadSignal);
  return signals;
}

// The profile's weights, as multiples of that of words.
std::vector<double> WeightsOf(const RecallProfile& profile,
                              const std::vector<std::string>& signals) {
  const double words = profile.WeightOf(kWordSignal);
  std::vector<double> weights;
  for (const std::string& signal : signals) {
    weights.push_back(
        std::min(profile.WeightOf(signal) / (words > 0 ? words : 1), kFusionWeightMax));
  }
  weights[0] = 1;
  return weights;
}

// Rounded, so that the profile's file holds what was judged.
RecallProfile WithWeights(RecallProfile profile, const std::vector<std::string>& signals,
                          const std::vector<double>& weights) {
  for (size_t s = 0; s < signals.size(); ++s)
    profile.signals[signals[s]] = std::round(weights[s] * 1000) / 1000;
  return profile;
}

RecallProfile WordsAlone(RecallProfile profile) {
  profile.signals = {{std::string(kWordSignal), 1}};
  return profile;
}

std::vector<std::vector<PlaceRanks>> FoundIn(const std::vector<KindRecall>& asked) {
  std::vector<std::vector<PlaceRanks>> found;
  for (const KindRecall& kind : asked) found.push_back(kind.Found());
  return found;
}

// The evidence of all kinds but `left_out`; SIZE_MAX: of all.
std::vector<EvidenceKind> EvidenceOf(const std::vector<KindRecall>& asked, size_t left_out) {
  std::vector<EvidenceKind> evidence;
  for (size_t k = 0; k < asked.size(); ++k) {
    if (k != left_out) evidence.push_back(asked[k].Evidence());
  }
  return evidence;
}

// ------------------------------------------------------------------------------------------------
// the record

double Rounded(double x) { return std::round(x * 1000) / 1000; }

json::object RankJson(const RankScore& s) {
  return {{"hit@1", Rounded(s.hit1)},
          {"hit@4", Rounded(s.hit4)},
          {"hit@8", Rounded(s.hit8)},
          {"mrr", Rounded(s.mrr)}};
}

json::object RefusalJson(const RefusalScore& s) {
  return {{"refused", Rounded(s.refused)}, {"recognised", Rounded(s.recognised)}};
}

json::object ThresholdJson(const AbstainThresholds& t) {
  return {{"abstain_found", t.found}, {"abstain_similarity", t.similarity}};
}

// The embedding model's fingerprint, as those of language models are written.
json::value EmbedderJson(const TextEmbedder* embedder) {
  if (embedder == nullptr) return nullptr;
  char hex[17];
  std::snprintf(hex, sizeof hex, "%016llx",
                static_cast<unsigned long long>(embedder->fingerprint()));
  return json::value(hex);
}

json::object WeightJson(const std::vector<std::string>& signals,
                        const std::vector<double>& weights) {
  json::object named;
  for (size_t s = 0; s < signals.size(); ++s) named[signals[s]] = Rounded(weights[s]);
  return named;
}

json::object KindJson(const CaseReport& report, const KindJudgement& k) {
  json::object kind{{"kind", k.name},
                    {"tokens", k.tokens},
                    {"answerable", k.answerable},
                    {"unanswerable", k.unanswerable},
                    {"words", RankJson(k.words)},
                    {"present", RankJson(k.present)},
                    {"learned_on_all", RankJson(k.all)},
                    {"abstaining_present", RefusalJson(k.refusal_present)},
                    {"abstaining_written", RefusalJson(k.refusal_final)}};
  if (!report.judged) return kind;
  kind["learned_without"] = RankJson(k.without);
  kind["weights_without"] = WeightJson(report.signals, k.weights_without);
  kind["thresholds_without"] = ThresholdJson(k.thresholds_without);
  kind["abstaining_without"] = RefusalJson(k.refusal_without);
  return kind;
}

// The present profile's record, with a member on this calibration.
std::string Record(const CaseReport& report, const ModelInfo& model, const TextEmbedder* embedder,
                   const std::string& before) {
  json::array kinds;
  for (const KindJudgement& k : report.kinds) kinds.push_back(KindJson(report, k));
  json::object spans;
  for (size_t i = 0; i < report.evidence_by_spans.size(); ++i)
    spans[std::to_string(kSpanCounts[i])] = Rounded(report.evidence_by_spans[i]);
  json::object record{
      {"model", model.name},
      {"model_fingerprint", model.fingerprint},
      {"embedder", EmbedderJson(embedder)},
      {"weights_present", WeightJson(report.signals, report.present_weights)},
      {"weights_learned", WeightJson(report.signals, report.learned_weights)},
      {"weights_kept", report.weights_kept},
      {"thresholds_present", ThresholdJson(report.present_thresholds)},
      {"thresholds_learned", report.learned_thresholds ? ThresholdJson(*report.learned_thresholds)
                                                       : json::value(nullptr)},
      {"thresholds_kept", report.thresholds_kept},
      {"spans_present", report.present_spans},
      {"evidence_by_spans", std::move(spans)},
      {"kinds", std::move(kinds)}};
  boost::system::error_code ec;
  json::value all = json::parse(before, ec);
  if (ec || !all.is_object()) all = json::object();
  all.as_object()["labelled_cases"] = std::move(record);
  return json::serialize(all);
}

// ------------------------------------------------------------------------------------------------
// the calibration

// One run over kinds that were read.
class Calibration {
 public:
  Calibration(CaseMemories* memories, const RecallProfile& present, Progress* progress,
              CaseReport* report)
      : memories_(*memories), present_(present), progress_(*progress), report_(*report) {}

  Status Run() {
    LH_ASSIGN_OR_RETURN(const std::vector<FusionKind> tables,
                        memories_.Compete(present_, report_.signals, progress_.NextPass()));
    std::vector<const FusionKind*> kinds;
    for (const FusionKind& table : tables) kinds.push_back(&table);
    report_.learned_weights = FitFusion(kinds, report_.present_weights);
    LH_ASSIGN_OR_RETURN(asked_present_, memories_.Ask(present_, progress_.NextPass()));
    LH_RETURN_IF_ERROR(AskWordsAlone());
    LH_ASSIGN_OR_RETURN(
        asked_all_, memories_.Ask(WithWeights(present_, report_.signals, report_.learned_weights),
                                  progress_.NextPass()));
    for (size_t k = 0; k < tables.size(); ++k) {
      KindJudgement& kind = report_.kinds[k];
      kind.answerable = asked_present_[k].answerable.size();
      kind.unanswerable = asked_present_[k].unanswerable.size();
      kind.present = asked_present_[k].Ranks();
      kind.all = asked_all_[k].Ranks();
    }
    report_.judged = tables.size() >= 2;
    if (report_.judged) LH_RETURN_IF_ERROR(JudgeLeftOut(kinds));
    return Choose();
  }

 private:
  Status AskWordsAlone() {
    LH_ASSIGN_OR_RETURN(const std::vector<KindRecall> asked,
                        memories_.Ask(WordsAlone(present_), progress_.NextPass()));
    for (size_t k = 0; k < asked.size(); ++k) report_.kinds[k].words = asked[k].Ranks();
    return OkStatus();
  }

  // Learns from all kinds but one, and judges on that one.
  Status JudgeLeftOut(const std::vector<const FusionKind*>& kinds) {
    const std::vector<std::vector<double>> weights = FitWithoutEach(kinds, report_.present_weights);
    for (size_t k = 0; k < kinds.size(); ++k) {
      LH_ASSIGN_OR_RETURN(
          const std::vector<KindRecall> asked,
          memories_.Ask(WithWeights(present_, report_.signals, weights[k]), progress_.NextPass()));
      KindJudgement& kind = report_.kinds[k];
      kind.weights_without = weights[k];
      kind.without = asked[k].Ranks();
      kind.thresholds_without = ChooseThresholds(EvidenceOf(asked, k), report_.present_thresholds)
                                    .value_or(report_.present_thresholds);
      kind.refusal_without = ScoreThresholds(asked[k].Evidence(), kind.thresholds_without);
    }
    return OkStatus();
  }

  // Decides what the profile gets.
  Status Choose() {
    std::vector<RankScore> without, present;
    for (const KindJudgement& kind : report_.kinds) {
      without.push_back(kind.without);
      present.push_back(kind.present);
    }
    report_.weights_kept = report_.judged && !LearnedIsNoWorse(without, present);
    report_.profile = report_.weights_kept
                          ? present_
                          : WithWeights(present_, report_.signals, report_.learned_weights);
    std::vector<KindRecall> asked = report_.weights_kept ? asked_present_ : asked_all_;
    report_.evidence_by_spans = EvidenceBySpans(FoundIn(asked));
    report_.profile.spans_max = ChooseSpans(report_.evidence_by_spans);
    if (report_.profile.spans_max != present_.spans_max) {
      // More spans hold more of a question's words.
      LH_ASSIGN_OR_RETURN(asked, memories_.Ask(report_.profile, progress_.NextPass()));
    }
    PutThresholds(asked);
    return OkStatus();
  }

  void PutThresholds(const std::vector<KindRecall>& asked) {
    std::vector<RefusalScore> without, present;
    for (size_t k = 0; k < asked.size(); ++k) {
      KindJudgement& kind = report_.kinds[k];
      kind.refusal_present =
          ScoreThresholds(asked_present_[k].Evidence(), report_.present_thresholds);
      without.push_back(kind.refusal_without);
      present.push_back(kind.refusal_present);
    }
    report_.learned_thresholds =
        ChooseThresholds(EvidenceOf(asked, SIZE_MAX), report_.present_thresholds);
    report_.thresholds_kept = !report_.learned_thresholds || !LearnedRefuseNoMore(without, present);
    const AbstainThresholds thresholds =
        report_.thresholds_kept ? report_.present_thresholds : *report_.learned_thresholds;
    report_.profile.abstain_found = thresholds.found;
    report_.profile.abstain_similarity = thresholds.similarity;
    for (size_t k = 0; k < asked.size(); ++k)
      report_.kinds[k].refusal_final = ScoreThresholds(asked[k].Evidence(), thresholds);
  }

  CaseMemories& memories_;
  const RecallProfile& present_;
  Progress& progress_;
  CaseReport& report_;
  std::vector<KindRecall> asked_present_, asked_all_;
};

}  // namespace

Result<CaseReport> CalibrateOnCases(
    LanguageModel& model, TextEmbedder* embedder, std::span<const LabelledKind> kinds,
    const CaseSettings& settings, const std::atomic<bool>* stop,
    const std::function<void(const CalibrateProgress&)>& on_progress) {
  LH_CHECK(!kinds.empty());
  const Clock::time_point start = Clock::now();
  const RecallProfile& present = settings.present;
  CaseReport report;
  report.signals = LearnedSignals(present, embedder != nullptr);
  report.present_weights = WeightsOf(present, report.signals);
  report.present_thresholds = {present.abstain_found, present.abstain_similarity};
  report.present_spans = present.spans_max;

  UnreadModel unread(&model);
  CaseMemories memories(settings.stores, present.heads.empty() ? &unread : &model, embedder, kinds,
                        stop);
  // All competitors; words, the present and the learned profile; each kind left out; the result.
  Progress progress(on_progress, 4 + (kinds.size() > 1 ? kinds.size() : 0) + 1);
  LH_ASSIGN_OR_RETURN(const std::vector<uint64_t> tokens,
                      memories.Read(present, progress.Reading()));
  for (size_t k = 0; k < kinds.size(); ++k) {
    KindJudgement& kind = report.kinds.emplace_back();
    kind.name = kinds[k].name;
    kind.tokens = tokens[k];
  }
  LH_RETURN_IF_ERROR(Calibration(&memories, present, &progress, &report).Run());
  report.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  report.profile.calibration = Record(report, model.info(), embedder, present.calibration);
  return report;
}

}  // namespace longhold
