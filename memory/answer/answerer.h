// Answers questions from a memory.
#pragma once

#include <string>
#include <string_view>

#include "base/memory_budget.h"
#include "base/status.h"
#include "memory/answer/ask_types.h"
#include "memory/core/model_context.h"
#include "memory/core/notes.h"
#include "memory/recall/recaller.h"

namespace longhold {

// Owner: the engine. Thread use: *confined*; with a SharedModel, as Engine.
class Answerer {
 public:
  // Borrows all of them.
  Answerer(Recaller* recaller, MemoryBudget* budget, Notes* notes)
      : recaller_(recaller), budget_(budget), notes_(notes) {}
  void UseModel(const ModelContext* context) { context_ = context; }

  // Must hold: there is a model. Errors: Recaller::Open's, resource_exhausted, deadline_exceeded.
  Result<AskReply> Ask(const std::string& memory, std::string_view question,
                       const AskOptions& options);
  // Whether the budget has room for one more answer of the usual size with those under way. Safe to
  // call concurrently. Must hold: there is a model.
  bool HasRoomForAnother() const;

 private:
  Result<AskReply> AskFocused(const std::string& memory, std::string_view question,
                              const AskOptions& options);
  Result<AskReply> AskFaithful(const std::string& memory, std::string_view question,
                               const AskOptions& options);

  Recaller* const recaller_;
  MemoryBudget* const budget_;
  Notes* const notes_;
  const ModelContext* context_ = nullptr;
};

}  // namespace longhold
