// Writes an answer token by token.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/status.h"
#include "memory/answer/ask_types.h"
#include "memory/answer/copy_bias.h"
#include "memory/attend/working_set.h"
#include "memory/model/language_model.h"

namespace longhold {

// What decides how an answer goes on, and who listens. Borrows all of it for the call.
struct DecodeOptions {
  const AskOptions& ask;
  uint32_t answer_tokens = 0;  // at most
  const CopyBias& copy_bias;
  // When the answer ends as if by max_tokens; read before each token. May be null.
  const std::optional<std::chrono::steady_clock::time_point>* deadline = nullptr;
  // When the question came, and when its prompt was begun.
  std::chrono::steady_clock::time_point question_start, prompt_start;
  uint32_t position = 0;  // native, of the answer's first token
  // After each token; may change the set. Gets the tokens so far and how many may follow, leaves
  // the last one's logits, and returns the native position of the next. May be empty.
  std::function<Result<uint32_t>(std::span<const TokenId> generated, uint32_t left)> on_token;
  // At the end of each sentence: the inline citation that is written behind it. May be empty.
  std::function<std::string()> cite;
};

// Samples the answer, the first token from the model's last logits, and fills the reply's text,
// likelihoods and timings. Errors: the model's, on_token's.
Status Decode(LanguageModel& model, WorkingSet& set, const DecodeOptions& options, AskReply* reply);

}  // namespace longhold
