// A question as the model reads it, and what its recall heads ask for when it reads it alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"
#include "memory/attend/working_set.h"
#include "memory/index/scan_index.h"
#include "memory/model/language_model.h"
#include "memory/model/recall_profile.h"

namespace longhold {

// A question as tokens: head before the recalled spans, tail after them, with the user's own words
// marked. Value type.
struct Prompt {
  std::vector<TokenId> head, tail;
  size_t words_begin = 0, words_end = 0;  // of tail: the question
  size_t prefix_begin = 0;                // of tail: the answer prefix, to the end
  // [Words()] refers to the text itself (TextReferences): nothing to look for
  std::vector<bool> aside;

  // What a second look reads beside a span, and from where on the model judges it: the first token
  // has nothing before it.
  std::span<const TokenId> Asked() const { return std::span(tail).first(words_end); }
  size_t JudgedBegin() const { return std::max<size_t>(words_begin, 1); }
  size_t JudgedTokens() const { return words_end - JudgedBegin(); }
  // of tail
  bool Aside(size_t t) const { return t >= words_begin && t < words_end && aside[t - words_begin]; }
  // Judged tokens that count.
  size_t CountedTokens() const;
  std::span<const TokenId> Words() const {
    return std::span(tail).subspan(words_begin, words_end - words_begin);
  }
};

// What surrounds a question. Borrows its texts.
struct PromptContext {
  std::string_view system;
  // of the conversation; the oldest turns are left out where all have more than kEarlierTokensMax
  std::span<const ChatTurn> earlier;
  std::string_view answer_prefix;
};
// An earlier turn is there so that the question can be understood; what a conversation is to
// remember belongs into a memory.
inline constexpr size_t kEarlierTokensMax = 1024;

// Errors: the tokenizer's, and an unknown chat template.
Result<Prompt> BuildPrompt(const LanguageModel& model, std::string_view question,
                           const PromptContext& context);

// Runs `tokens` through the model over `set`, in batches, from native position `position`. Must
// hold: there is room in the set.
Status RunTokens(LanguageModel& model, WorkingSet& set, std::span<const TokenId> tokens,
                 uint32_t position, bool want_logits);

// The probe: the prompt alone runs through the model, and the queries of the question's own words
// and of the answer prefix are kept, one ScanQuery per head with `head` its place in `heads` and
// every row's weight 1. `set` must be empty; it is left with the prompt's head in it, and so is the
// native cache. Without heads only the prompt's head is run.
Result<std::vector<ScanQuery>> ProbeQueries(LanguageModel& model, WorkingSet& set,
                                            const Prompt& prompt,
                                            std::span<const RecallHead> heads);

}  // namespace longhold
