// Recall as a list of stages. Each takes the question and a plan, and returns the plan.
//
// docs/design/recall.md describes every stage: its formulas, its constants with the measurements
// behind them, and the profile's parameters that control it.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "memory/recall/question.h"
#include "memory/recall/recall_plan.h"

namespace longhold {

// Runs all stages in order: retrieve, fuse, rerank, judge, expand, fit, lay out. Errors: those of
// the stages.
Result<RecallPlan> MakePlan(const Question& question);

// Asks every signal that the profile gives a weight. Errors: the signals'.
Result<RecallPlan> Retrieve(const Question& question, RecallPlan plan);

// Fuses the signals and cuts spans from the text.
//   score(block) = sum over signals of weight * the signal's score of the block
// Scores are shares of 1, so a signal that is unsure weighs little by itself. (Scaling each signal
// to a maximum of 1 instead let heads that look everywhere a little outvote words that stand in one
// place.)
//
// A span is whole units of text around the tokens that the signals point at (SpanAround), not the
// block, so that what stands across a block's edge is whole. Where two overlap, the worse one keeps
// what the better one leaves.
//
// The best span comes first, then those that explain what it leaves (SignalScores::cover), then the
// others by score. Errors: data_loss from reading text.
Result<RecallPlan> Fuse(const Question& question, RecallPlan plan);

// Where Question::rerank_spans asks for it, orders the best spans by query likelihood
// (query_likelihood.h) and drops those that fall far behind. Keeps the best spans_max. Where the
// memory budget has no room, the order stays as it is, with a note. Errors: the model's.
Result<RecallPlan> Rerank(const Question& question, RecallPlan plan);

// Decides whether the memory holds anything on the question (abstention.h), by the thresholds of
// the profile: abstain_support with reranking, else abstain_found. Where index or text is damaged,
// it never says no.
Result<RecallPlan> Judge(const Question& question, RecallPlan plan);

// Multi-hop retrieval (multi_hop.h): adds what the best spans lead to. Then gives each span the
// line that says when it was said (PlannedSpan::date_line).
Result<RecallPlan> Expand(const Question& question, RecallPlan plan);

// Drops the least relevant spans until the rest fits the model's context and the memory budget, and
// reserves the answer's RAM. Describes the spans; one whose text is damaged could not be cited, and
// is left out. Errors: resource_exhausted (not even the question fits).
Result<RecallPlan> Fit(const Question& question, RecallPlan plan);

// Chooses the excerpts that are re-encoded as text and the near-duplicate distractors that are not
// recalled (excerpts.h).
Result<RecallPlan> LayOut(const Question& question, RecallPlan plan);
// How many of `spans`, best first, are re-encoded whole as text (RecallLayout::reencoded_spans).
size_t SpansToReencode(const Question& question, const std::vector<PlannedSpan>& spans);

}  // namespace longhold
