// Whether an answer rests on the recalled text, or on what the model knew before.
//
// Pure functions of words.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "memory/text/vocabulary.h"

namespace longhold {

// What an answer says beyond its question, and how much of that the text has. Value type.
struct AnswerWords {
  uint32_t own = 0;    // distinct content words of the answer that the question does not have
  uint32_t found = 0;  // of them, those that the text has in any inflection
};

// `text` are the words of the recalled spans, in any order.
AnswerWords MatchAnswer(std::span<const LexicalWord> answer, std::span<const LexicalWord> question,
                        std::span<const LexicalWord> text);

// Where the evidence for an answer is not strong, the answer rests on the text only if it says
// nothing of its own ("yes"), if the text has at least this share of its own words, or if a
// recalled sentence means nearly the same as question and answer (docs/decisions/0032).
inline constexpr double kGroundedShare = 0.34;
inline constexpr double kGroundedCosine = 0.5;

}  // namespace longhold
