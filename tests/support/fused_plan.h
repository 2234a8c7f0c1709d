// A plan from the fused signals alone, for hand-made words and head queries: the stages Retrieve
// and Fuse without a model.
#pragma once

#include <utility>
#include <vector>

#include "memory/recall/stages.h"

namespace longhold {

// The index queries of a question. Value type.
struct HandQuery {
  std::vector<LexicalWord> words;        // of the question
  std::vector<ScanQuery> heads;          // one per recall head of the memory, in its order
  std::vector<ExpansionWord> expansion;  // expansion words for the question's words
};

// Must hold: the memory's indexes are loaded.
inline Result<RecallPlan> FusedPlan(Memory& memory, LanguageModel& model,
                                    const RecallProfile& profile, const HandQuery& query,
                                    uint32_t spans_max,
                                    const SignalList& signals = StandardSignals()) {
  ModelContext context;
  context.model = &model;
  context.profile = profile;
  MemoryBudget budget(uint64_t{1} << 30);
  Notes notes;
  Question question{context, memory, budget, notes, signals};
  question.spans_max = spans_max;
  question.words = query.words;
  question.head_queries = query.heads;
  question.expansion = query.expansion;
  question.lexical = memory.lexical().Query(query.words, query.expansion, kCandidatesPerSignal);
  LH_ASSIGN_OR_RETURN(RecallPlan plan, Retrieve(question, RecallPlan()));
  return Fuse(question, std::move(plan));
}

}  // namespace longhold
