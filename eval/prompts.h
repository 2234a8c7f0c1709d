// Prompts for the model's own attention, laid out as the engine lays out its own: what is given
// stands where recalled spans would.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "memory/model/language_model.h"

namespace longhold {

// `given` and what comes before it, and the question with what leads to its answer: a text that
// several questions share is read once.
struct NativePrompt {
  std::vector<TokenId> prefix;
  std::vector<TokenId> tail;
  size_t size() const { return prefix.size() + tail.size(); }
};
NativePrompt JoinPrompt(NativePrompt prompt);  // all of it as prefix
Result<NativePrompt> BuildNativePrompt(const LanguageModel& model, std::span<const TokenId> given,
                                       std::string_view question, std::string_view answer_prefix);

// A text's tokens as an ingest of it reads them, without BOS, and the bytes of each.
struct TokenizedText {
  std::vector<TokenId> tokens;
  std::vector<uint16_t> bytes;  // [tokens]; they add up to the text's size
};
Result<TokenizedText> TokenizeForPrompt(const LanguageModel& model, std::string_view text);

// The answer in what a model wrote: trimmed, of a model without chat template the first line (it
// goes on with questions of its own), bytes that are no UTF-8 as "?".
std::string CutAnswer(const LanguageModel& model, std::string_view written);
std::string CleanUtf8(std::string_view text);

}  // namespace longhold
