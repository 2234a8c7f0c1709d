// Whether an answer rests on the recalled text, or on what the model knew before.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "memory/recall/question.h"
#include "memory/recall/recall_plan.h"
#include "memory/text/vocabulary.h"

namespace longhold {

// What an answer says beyond its question, and how much of that the text has. Value type.
struct AnswerWords {
  uint32_t own = 0;    // distinct content words of the answer that the question does not have
  uint32_t found = 0;  // of them, those that the text has in any inflection
};

// Pure. `text` are the words of the recalled spans, in any order.
AnswerWords MatchAnswer(std::span<const LexicalWord> answer, std::span<const LexicalWord> question,
                        std::span<const LexicalWord> text);

// These decide only where the evidence is not strong (docs/decisions/0032). The answer then rests
// on the text in three cases. It has no words of its own ("yes"). Or the text has kGroundedShare of
// its own words. Or a recalled sentence has a cosine of kGroundedCosine with question and answer.
inline constexpr double kGroundedShare = 0.34;
inline constexpr double kGroundedCosine = 0.5;

// Whether an answer to the question rests on the plan's spans. Where the embedder fails, it does,
// with a note. Errors: the tokenizer's, the index's.
Result<bool> RestsOnSpans(const Question& question, const RecallPlan& plan,
                          std::string_view answer);

}  // namespace longhold
