// Prompts for libllama's own full attention, in the layout of the engine. The given text stands at
// the place of the recalled spans.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "memory/model/language_model.h"

namespace longhold {

// A prompt in two parts. Questions about the same text share the prefix, which is then read once.
// Value type.
struct NativePrompt {
  std::vector<TokenId> prefix;  // begin of the chat template and the given text
  std::vector<TokenId> tail;    // question, end of the template, first words of the answer
  size_t size() const { return prefix.size() + tail.size(); }
};
NativePrompt JoinPrompt(NativePrompt prompt);  // moves the tail into the prefix
// Errors: those of BuildPrompt.
Result<NativePrompt> BuildNativePrompt(const LanguageModel& model, std::span<const TokenId> given,
                                       std::string_view question, std::string_view answer_prefix);

// The tokens of a text, as an ingest tokenizes it, without BOS. Value type.
struct TokenizedText {
  std::vector<TokenId> tokens;
  std::vector<uint16_t> bytes;  // [tokens] bytes of each token; their sum is the text's size
};
// Errors: those of TokenizeText.
Result<TokenizedText> TokenizeForPrompt(const LanguageModel& model, std::string_view text);

// The answer in the text that a model generated, trimmed and with CleanUtf8. For a model without
// chat template it is the first line, because such a model continues with questions of its own.
std::string CutAnswer(const LanguageModel& model, std::string_view written);
// Replaces bytes that are not valid UTF-8 by "?".
std::string CleanUtf8(std::string_view text);

}  // namespace longhold
