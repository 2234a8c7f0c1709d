#include "eval/prompts.h"

#include <algorithm>
#include <utility>

#include "memory/ingest/ingest.h"
#include "memory/recall/prompt.h"
#include "memory/record/records.h"

namespace longhold {

NativePrompt JoinPrompt(NativePrompt prompt) {
  prompt.prefix.insert(prompt.prefix.end(), prompt.tail.begin(), prompt.tail.end());
  prompt.tail.clear();
  return prompt;
}

Result<NativePrompt> BuildNativePrompt(const LanguageModel& model, std::span<const TokenId> given,
                                       std::string_view question, std::string_view answer_prefix) {
  LH_ASSIGN_OR_RETURN(
      Prompt asked,
      BuildPrompt(model, question, {.system = {}, .earlier = {}, .answer_prefix = answer_prefix}));
  NativePrompt prompt{.prefix = std::move(asked.head), .tail = std::move(asked.tail)};
  prompt.prefix.insert(prompt.prefix.end(), given.begin(), given.end());
  return prompt;
}

Result<TokenizedText> TokenizeForPrompt(const LanguageModel& model, std::string_view text) {
  TokenizedText out;
  if (text.empty()) return out;
  LH_ASSIGN_OR_RETURN(const std::vector<TextChunk> chunks, TokenizeText(model, text));
  for (const TextChunk& chunk : chunks) {
    out.tokens.insert(out.tokens.end(), chunk.tokens.begin(), chunk.tokens.end());
    out.bytes.insert(out.bytes.end(), chunk.token_bytes.begin(), chunk.token_bytes.end());
  }
  if (model.Bos() >= 0 && !out.tokens.empty() && out.tokens.front() == model.Bos()) {
    out.tokens.erase(out.tokens.begin());
    out.bytes.erase(out.bytes.begin());
  }
  return out;
}

std::string CleanUtf8(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const auto byte = [&](size_t k) {
      return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0u;
    };
    const unsigned b = byte(0);
    const size_t length = b < 0x80                ? 1
                          : b >= 0xC2 && b < 0xE0 ? 2
                          : b >= 0xE0 && b < 0xF0 ? 3
                          : b >= 0xF0 && b < 0xF5 ? 4
                                                  : 0;
    bool whole = length > 0;
    for (size_t k = 1; k < length; ++k) whole = whole && (byte(k) & 0xC0) == 0x80;
    // Overlong encodings, surrogates and codes above U+10FFFF are invalid.
    whole = whole && !(b == 0xE0 && byte(1) < 0xA0) && !(b == 0xED && byte(1) > 0x9F) &&
            !(b == 0xF0 && byte(1) < 0x90) && !(b == 0xF4 && byte(1) > 0x8F);
    if (whole)
      out.append(text.substr(i, length));
    else
      out += '?';
    i += whole ? length : 1;
  }
  return out;
}

std::string CutAnswer(const LanguageModel& model, std::string_view written) {
  constexpr const char* kBlank = " \n\t\r";
  size_t begin = std::min(written.find_first_not_of(kBlank), written.size());
  written.remove_prefix(begin);
  if (!model.info().chat) written = written.substr(0, written.find('\n'));
  const size_t last = written.find_last_not_of(kBlank);
  return CleanUtf8(written.substr(0, last == std::string_view::npos ? 0 : last + 1));
}

}  // namespace longhold
