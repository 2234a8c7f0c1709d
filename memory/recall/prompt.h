// A question as tokens for the model, and the recall heads' queries for it.
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

// A question as tokens: head before the recalled spans, tail after them. Also the range of the
// user's own question within the tail. Value type.
struct Prompt {
  std::vector<TokenId> head, tail;
  size_t words_begin = 0, words_end = 0;  // range of the question within tail
  size_t prefix_begin = 0;                // the answer prefix is tail from here on
  // [Words()] whether the token refers to the text itself (TextReferences) and is not searched for.
  std::vector<bool> aside;

  // Query likelihood (memory/recall/query_likelihood.h) runs Asked() after a span and scores its
  // tokens from JudgedBegin() on. The first token of the tail cannot be scored because no token
  // precedes it.
  std::span<const TokenId> Asked() const { return std::span(tail).first(words_end); }
  size_t JudgedBegin() const { return std::max<size_t>(words_begin, 1); }
  size_t JudgedTokens() const { return words_end - JudgedBegin(); }
  // Of a token of tail.
  bool Aside(size_t t) const { return t >= words_begin && t < words_end && aside[t - words_begin]; }
  // Number of scored tokens that are not aside; at least 1.
  size_t CountedTokens() const;
  std::span<const TokenId> Words() const {
    return std::span(tail).subspan(words_begin, words_end - words_begin);
  }
};

// The text around a question. Borrows its texts.
struct PromptContext {
  std::string_view system;
  // Earlier turns of the conversation. If they have more than kEarlierTokensMax tokens, the oldest
  // ones are left out.
  std::span<const ChatTurn> earlier;
  std::string_view answer_prefix;
};
// Earlier turns are there only so that the question can be understood. Content that must be
// remembered belongs in a memory.
inline constexpr size_t kEarlierTokensMax = 1024;

// Errors: those of the tokenizer, and of an unknown chat template.
Result<Prompt> BuildPrompt(const LanguageModel& model, std::string_view question,
                           const PromptContext& context);

// Runs `tokens` through the model over `set` in batches, from native position `position` on. Must
// hold: the set has room.
Status RunTokens(LanguageModel& model, WorkingSet& set, std::span<const TokenId> tokens,
                 uint32_t position, bool want_logits);

// The probe: runs only the prompt through the model, and records the queries of the question's
// words and of the answer prefix. Returns one ScanQuery per head; its `head` is the index in
// `heads`, and every row has weight 1. Must hold: `set` is empty. Afterwards `set` and the native
// cache hold the prompt's head. Without `heads`, only the prompt's head is run.
Result<std::vector<ScanQuery>> ProbeQueries(LanguageModel& model, WorkingSet& set,
                                            const Prompt& prompt,
                                            std::span<const RecallHead> heads);

}  // namespace longhold
