// Text of a model: the tokenizer, the embeddings of tokens and the chat template.
#include <algorithm>
#include <cstring>
#include <exception>

#include "ggml-cpu.h"
#include "llama.h"
#include "model/llama_host_internal.h"

namespace longhold {

Result<std::vector<TokenId>> LlamaHost::Tokenize(std::string_view text, bool special) const {
  if (text.size() > (256u << 20))
    return InvalidArgument("a text of " + std::to_string(text.size()) +
                           " bytes is too long to tokenise at once");
  std::vector<TokenId> tokens(text.size() + 8);
  const auto tokenize = [&] {
    return llama_tokenize(vocab_, text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                          static_cast<int32_t>(tokens.size()),
                          /*add_special=*/false, special);
  };
  int32_t n = 0;
  try {
    n = tokenize();
    if (n < 0) {  // more tokens than bytes: an invalid UTF-8 byte gives three
      tokens.resize(static_cast<size_t>(-static_cast<int64_t>(n)));
      n = tokenize();
    }
  } catch (const std::exception& e) {  // the vocabulary lacks a token that its tokenizer needs
    return InvalidArgument("model " + info_.path + ": its tokenizer failed (" + e.what() + ")");
  }
  if (n < 0)
    return Internal("model " + info_.name + ": tokenizer failed on " + std::to_string(text.size()) +
                    " bytes");
  tokens.resize(static_cast<size_t>(n));
  return tokens;
}

std::string LlamaHost::Piece(TokenId token) const {
  // libllama would throw
  if (token < 0 || static_cast<uint32_t>(token) >= info_.vocab_size) return "";
  char buffer[256];
  const int32_t n =
      llama_token_to_piece(vocab_, token, buffer, sizeof(buffer), 0, /*special=*/false);
  if (n >= 0) return std::string(buffer, static_cast<size_t>(n));
  std::string big(static_cast<size_t>(-n), '\0');
  llama_token_to_piece(vocab_, token, big.data(), static_cast<int32_t>(big.size()), 0, false);
  return big;
}

TokenId LlamaHost::Bos() const {
  return llama_vocab_get_add_bos(vocab_) ? llama_vocab_bos(vocab_) : -1;
}

bool LlamaHost::EndsAnswer(TokenId token) const { return llama_vocab_is_eog(vocab_, token); }

void LlamaHost::Embed(std::span<const TokenId> tokens, float* out) const {
  LH_CHECK(embeddings_ != nullptr);
  const int64_t width = embeddings_->ne[0];
  for (const TokenId token : tokens) {
    LH_CHECK(token >= 0 && token < embeddings_->ne[1]);
    const char* row = static_cast<const char*>(embeddings_->data) +
                      static_cast<size_t>(token) * embeddings_->nb[1];
    if (embeddings_->type == GGML_TYPE_F32) {
      std::memcpy(out, row, static_cast<size_t>(width) * sizeof(float));
    } else {
      ggml_get_type_traits(embeddings_->type)->to_float(row, out, width);
    }
    out += width;
  }
}

Result<PromptParts> LlamaHost::Format(std::string_view system, std::span<const ChatTurn> earlier,
                                      std::string_view question) const {
  PromptParts parts;
  const char* chat_template = llama_model_chat_template(model_.get(), nullptr);
  if (chat_template == nullptr) {
    std::string said = system.empty() ? "" : std::string(system) + "\n\n";
    for (const ChatTurn& turn : earlier)
      said += (turn.by_user ? "\nQuestion: " : "\nAnswer: ") + turn.text;
    if (!said.empty()) parts.head.push_back({.text = std::move(said), .special = false});
    const std::string lead = "\nQuestion: ";
    parts.tail = lead + std::string(question) + "\nAnswer:";
    parts.question_begin = lead.size();
    parts.question_end = parts.question_begin + question.size();
    return parts;
  }
  // Placeholders stand for the messages while the template is applied; no template writes them. So
  // the places are found even if a message contains the template's own text.
  std::vector<std::string> said, marks;
  std::vector<const char*> roles;
  const auto say = [&](const char* role, std::string_view text) {
    roles.push_back(role);
    said.emplace_back(text);
    marks.push_back("\x02longhold-turn-" + std::to_string(marks.size()) + "\x03");
  };
  if (!system.empty()) say("system", system);
  for (const ChatTurn& turn : earlier) say(turn.by_user ? "user" : "assistant", turn.text);
  say("user", question);
  std::vector<llama_chat_message> messages;
  for (size_t i = 0; i < marks.size(); ++i) messages.push_back({roles[i], marks[i].c_str()});
  std::string text(4096 + 256 * messages.size(), '\0');
  const int32_t n = llama_chat_apply_template(chat_template, messages.data(), messages.size(), true,
                                              text.data(), static_cast<int32_t>(text.size()));
  if (n < 0)
    return Unimplemented("model " + info_.path +
                         ": its chat template is not one that libllama supports");
  text.resize(std::min(text.size(), static_cast<size_t>(n)));
  size_t begin = 0;
  for (size_t i = 0; i < marks.size(); ++i) {
    const size_t at = text.find(marks[i], begin);
    if (at == std::string::npos)
      return Internal("model " + info_.path + ": its chat template leaves out a message");
    if (at > begin) parts.head.push_back({.text = text.substr(begin, at - begin), .special = true});
    begin = at + marks[i].size();
    if (i + 1 < marks.size() && !said[i].empty())
      parts.head.push_back({.text = said[i], .special = false});
  }
  parts.tail = std::string(question) + text.substr(begin);
  parts.question_begin = 0;
  parts.question_end = question.size();
  return parts;
}

}  // namespace longhold
