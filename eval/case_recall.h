// Asks labelled cases through the engine: what competed for a question, when its evidence was
// found, and how much the memory spoke for an answer.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "eval/fusion_fit.h"
#include "eval/labelled_cases.h"
#include "memory/model/language_model.h"
#include "memory/model/recall_profile.h"
#include "memory/model/text_embedder.h"
#include "store/store_provider.h"

namespace longhold {

// Spans of the order in which a place of evidence may be found.
inline constexpr uint32_t kRankedSpans = 32;

// What recall made of one question.
struct CaseRecall {
  PlaceRanks found;  // without places for a question of another kind
  EvidenceSample evidence;
};

// What recall made of the questions of one kind's memory: its own, and others of which it holds no
// answer.
struct KindRecall {
  std::vector<CaseRecall> answerable, unanswerable;

  std::vector<PlaceRanks> Found() const;  // of the answerable questions
  RankScore Ranks() const;                // of the first evidence
  EvidenceKind Evidence() const;
};

// The memories of all kinds, one each, and the questions that are asked of them. Borrows all it is
// given. Owner: one calibration. Thread use: *confined*.
class CaseMemories {
 public:
  using OnCount = std::function<void(uint64_t done, uint64_t total)>;

  // Must hold: `stores` has no memories.
  CaseMemories(StoreProvider* stores, LanguageModel* model, TextEmbedder* embedder,
               std::span<const LabelledKind> kinds, const std::atomic<bool>* stop);

  // Reads all texts. `profile` says for which recall heads they are indexed. Returns the number of
  // tokens of each kind. Errors: cancelled, the ingest's.
  Result<std::vector<uint64_t>> Read(const RecallProfile& profile, const OnCount& on_bytes);

  // The spans that compete, up to kCandidates for each answerable question, where each of `signals`
  // weighs 1. Errors: cancelled, those of recall.
  Result<std::vector<FusionKind>> Compete(RecallProfile profile,
                                          const std::vector<std::string>& signals,
                                          const OnCount& on_question);
  static constexpr uint32_t kCandidates = 64;

  // Asks all questions with a profile, as a user's recall would, but nothing reranks or follows
  // hops. Of a kind without an answer there are its own questions, and at most kOtherQuestions of
  // the other kinds, evenly spread. Errors: cancelled, those of recall.
  Result<std::vector<KindRecall>> Ask(RecallProfile profile, const OnCount& on_question);

  static constexpr size_t kOtherQuestions = 40;

 private:
  bool Stopped() const { return stop_ != nullptr && stop_->load(); }

  StoreProvider* const stores_;
  LanguageModel* const model_;
  TextEmbedder* const embedder_;
  const std::span<const LabelledKind> kinds_;
  const std::atomic<bool>* const stop_;
  std::vector<std::vector<std::string>> unanswerable_;  // [kinds]
};

}  // namespace longhold
