// Asks a memory for the places that a question is about.
#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/memory_budget.h"
#include "base/status.h"
#include "memory/catalog/memory_catalog.h"
#include "memory/core/model_context.h"
#include "memory/core/notes.h"
#include "memory/recall/question.h"
#include "memory/recall/recall_plan.h"
#include "memory/recall/recall_types.h"

namespace longhold {

// A question and the memory that it is asked of, which stays open meanwhile. Move-only.
struct OpenQuestion {
  MemoryLease memory;
  std::unique_ptr<const Question> question;
  std::chrono::steady_clock::time_point start;  // when its memory was there to be asked
};

// Owner: the engine. Thread use: *confined*.
class Recaller {
 public:
  // Borrows the catalog, the budget and the notes.
  Recaller(MemoryCatalog* catalog, MemoryBudget* budget, Notes* notes, SignalList signals);

  // Errors: invalid_argument (the profile weighs a signal that there is not).
  Status UseModel(const ModelContext* context);

  // Must hold: there is a model. Errors: MemoryCatalog::Lease's, Understand's, the stages'.
  Result<RecallReply> Recall(const std::string& memory, std::string_view question,
                             const RecallOptions& options);
  // Leases the memory, loads its indexes and reads the question: what Recall and every answer begin
  // with.
  Result<OpenQuestion> Open(const std::string& memory, std::string_view question,
                            const QuestionOptions& options);
  // Keeps what the model read for a question of a memory that was open only for reading. Nothing is
  // kept while somebody else writes to the memory: the next question has it read again.
  void Keep(const std::string& memory, std::span<const UnkeptBlock> blocks);
  // The lease alone, with the indexes as they are.
  Result<MemoryLease> Lease(const std::string& memory);

 private:
  Status Explain(const Question& question, const RecallPlan& plan, RecallReply* reply) const;

  MemoryCatalog* const catalog_;
  MemoryBudget* const budget_;
  Notes* const notes_;
  const SignalList signals_;
  const ModelContext* context_ = nullptr;
};

}  // namespace longhold
