#include <utility>

#include "memory/recall/dense_signal.h"
#include "memory/recall/head_signal.h"
#include "memory/recall/stages.h"
#include "memory/recall/word_signals.h"

namespace longhold {

SignalList StandardSignals() {
  SignalList signals;
  signals.push_back(std::make_unique<WordSignal>());
  signals.push_back(std::make_unique<ExpansionSignal>());
  signals.push_back(std::make_unique<DenseSignal>());
  signals.push_back(std::make_unique<HeadSignal>());
  return signals;
}

Result<RecallPlan> Retrieve(const Question& question, RecallPlan plan) {
  for (const auto& signal : question.signals) {
    const double weight = question.profile().WeightOf(signal->name());
    if (weight <= 0) continue;
    LH_ASSIGN_OR_RETURN(SignalScores scores, signal->Score(question, kCandidatesPerSignal));
    plan.scan_ms += scores.scan_ms;
    plan.retrieved.push_back({signal->name(), weight, std::move(scores)});
  }
  return plan;
}

}  // namespace longhold
