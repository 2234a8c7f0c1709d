// A completion that another engine answers: OpenAI's request as `longhold serve` reads it, and the
// sampling options that only that engine knows. Pure functions.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "memory/answer/recalled_prompt.h"
#include "service/server/openai.h"

namespace longhold {

// Value type.
struct AttachRequest {
  CompletionRequest completion;
  std::string sampling;  // members for the server's /completion, as a JSON object
};

// Parses a request. Sampling members of OpenAI are translated; those of llama.cpp (top_k, min_p,
// repeat_penalty, grammar, ...) are passed on unchanged. Errors: invalid_argument, with the name of
// the member, as ParseCompletion; and for members that need the engine of longhold itself
// (logprobs, session, timeout, inline citations, faithful attention).
Result<AttachRequest> ParseAttachRequest(std::string_view body, bool chat);

// The recalled prompt of a request, for an engine that reads `context_tokens`.
RecalledPromptOptions PromptOptions(const CompletionRequest& request, uint32_t context_tokens);

}  // namespace longhold
