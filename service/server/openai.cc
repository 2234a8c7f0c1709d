#include "service/server/openai.h"

#include <algorithm>
#include <boost/json.hpp>

#include "base/text.h"
#include "base/utf8.h"
#include "service/common/json_text.h"
#include "service/common/render.h"
#include "service/server/ask_fields.h"

namespace longhold {
namespace {

namespace json = boost::json;

constexpr size_t kMessagesMax = 1024;
constexpr size_t kStopsMax = 4, kStopBytesMax = 256;
constexpr uint32_t kTokensMax = 100000;
constexpr size_t kSessionBytesMax = 200;

// The content of a message: a string, or an array of text parts.
Result<std::string> Content(const json::object& message) {
  const json::value* content = FindField(message, "content");
  if (content == nullptr) return BadField("messages", "a message has no content");
  if (content->is_string()) return std::string(content->get_string());
  std::string text;
  if (!content->is_array())
    return BadField("messages", "a message's content must be a string or an array of text parts");
  for (const json::value& part : content->get_array()) {
    const json::value* of = part.is_object() ? FindField(part.get_object(), "text") : nullptr;
    if (of == nullptr || !of->is_string())
      return BadField("messages", "only text content is supported, no images or audio");
    text += std::string_view(of->get_string());
  }
  return text;
}

Status ParseMessages(const json::object& body, CompletionRequest* request) {
  const json::value* messages = FindField(body, "messages");
  if (messages == nullptr || !messages->is_array() || messages->get_array().empty())
    return BadField("messages", "must be an array with at least one message");
  const json::array& array = messages->get_array();
  if (array.size() > kMessagesMax)
    return BadField("messages", "has more than " + std::to_string(kMessagesMax) + " messages");
  for (const json::value& value : array) {
    if (!value.is_object())
      return BadField("messages", "each must be an object with role and content");
    LH_ASSIGN_OR_RETURN(const std::string role, StringField(value.get_object(), "role"));
    LH_ASSIGN_OR_RETURN(std::string text, Content(value.get_object()));
    if (role == "system" || role == "developer") {
      request->system += (request->system.empty() ? "" : "\n") + text;
    } else if (role == "user" || role == "assistant") {
      request->earlier.push_back({.by_user = role == "user", .text = std::move(text)});
    } else {
      return BadField("messages",
                      "role '" + role + "' is not known; use system, developer, user or assistant");
    }
  }
  if (request->earlier.empty() || !request->earlier.back().by_user)
    return BadField("messages", "the last message must have the role user");
  request->question = std::move(request->earlier.back().text);
  request->earlier.pop_back();
  return OkStatus();
}

Status ParsePrompt(const json::object& body, CompletionRequest* request) {
  const json::value* prompt = FindField(body, "prompt");
  if (prompt != nullptr && prompt->is_array() && prompt->get_array().size() == 1)
    prompt = &prompt->get_array()[0];
  if (prompt == nullptr || !prompt->is_string()) return BadField("prompt", "must be one string");
  request->question = std::string(prompt->get_string());
  return OkStatus();
}

Status ParseStop(const json::object& body, CompletionRequest* request) {
  const json::value* stop = FindField(body, "stop");
  if (stop == nullptr) return OkStatus();
  const json::array one{*stop};
  const json::array& all = stop->is_array() ? stop->get_array() : one;
  if (all.size() > kStopsMax)
    return BadField("stop", "has more than " + std::to_string(kStopsMax) + " strings");
  for (const json::value& value : all) {
    if (!value.is_string() || value.get_string().empty() ||
        value.get_string().size() > kStopBytesMax) {
      return BadField("stop", "must be a string of 1 to " + std::to_string(kStopBytesMax) +
                                  " bytes, or an array of such strings");
    }
    request->stop.emplace_back(value.get_string());
  }
  return OkStatus();
}

}  // namespace

Result<double> TimeoutField(const json::object& body) {
  if (FindField(body, "timeout") == nullptr) return 0.0;
  LH_ASSIGN_OR_RETURN(const double seconds, NumberField(body, "timeout", 0, 86400, 0));
  return seconds > 0 ? Result<double>(seconds) : BadField("timeout", "must be more than 0 seconds");
}

namespace {

// Refuses members of OpenAI that would change the answer. Ignoring them would give a wrong answer
// that looks right.
Status RefuseUnsupported(const json::object& body) {
  LH_ASSIGN_OR_RETURN(const int64_t n, IntegerField(body, "n", 1, 1, 1));
  (void)n;
  for (const char* name : {"presence_penalty", "frequency_penalty"}) {
    LH_ASSIGN_OR_RETURN(const double penalty, NumberField(body, name, 0, 0, 0));
    (void)penalty;
  }
  for (const char* name : {"tools", "functions", "logit_bias", "suffix", "audio", "prediction"}) {
    const json::value* value = FindField(body, name);
    const bool none = value == nullptr || (value->is_array() && value->get_array().empty()) ||
                      (value->is_object() && value->get_object().empty());
    if (!none) return BadField(name, "is not supported; remove it");
  }
  LH_ASSIGN_OR_RETURN(const bool echo, FlagField(body, "echo", false));
  if (echo) return BadField("echo", "is not supported; remove it");
  if (const json::value* format = FindField(body, "response_format")) {
    const json::value* type =
        format->is_object() ? FindField(format->get_object(), "type") : nullptr;
    if (type == nullptr || !type->is_string() || type->get_string() != "text")
      return BadField("response_format", "only {\"type\": \"text\"} is supported");
  }
  return OkStatus();
}

// Chat completions have a flag and a number, completions only the number.
Status ParseLogprobs(const json::object& body, CompletionRequest* request) {
  if (!request->chat) {
    LH_ASSIGN_OR_RETURN(const int64_t count, IntegerField(body, "logprobs", 0, 5, -1));
    if (count >= 0) request->likeliest = static_cast<uint32_t>(count);
    return OkStatus();
  }
  LH_ASSIGN_OR_RETURN(const bool wanted, FlagField(body, "logprobs", false));
  LH_ASSIGN_OR_RETURN(const int64_t count, IntegerField(body, "top_logprobs", 0, kLikeliestMax, 0));
  if (count > 0 && !wanted) return BadField("top_logprobs", "needs \"logprobs\": true");
  if (wanted) request->likeliest = static_cast<uint32_t>(count);
  return OkStatus();
}

// Text and bytes of a token: the text alone cannot represent a part of a character.
json::object TokenObject(const std::string& text, double log) {
  json::array bytes;
  for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
  return {{"token", JsonString(text)}, {"logprob", log}, {"bytes", std::move(bytes)}};
}

json::object ChatLogprobs(const AskReply& reply) {
  json::array content;
  for (const TokenLikelihood& token : reply.likelihoods) {
    json::array likeliest;
    for (const auto& [text, log] : token.likeliest) likeliest.push_back(TokenObject(text, log));
    json::object object = TokenObject(token.text, token.log);
    object["top_logprobs"] = std::move(likeliest);
    content.push_back(std::move(object));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

json::object TextLogprobs(const AskReply& reply) {
  json::array tokens, logs, tops, offsets;
  size_t offset = 0;
  for (const TokenLikelihood& token : reply.likelihoods) {
    json::object by_text;
    // if two tokens have the same text, emplace keeps the likelier one
    for (const auto& [text, log] : token.likeliest) by_text.emplace(JsonString(text), log);
    tokens.push_back(JsonString(token.text));
    logs.push_back(token.log);
    tops.push_back(std::move(by_text));
    offsets.push_back(offset);
    offset += CountColumns(token.text);
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(logs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

json::value Logprobs(const CompletionHead& head, const AskReply& reply) {
  if (!head.logprobs) return nullptr;
  return head.chat ? ChatLogprobs(reply) : TextLogprobs(reply);
}

json::object Usage(const AskReply& reply) {
  const uint64_t prompt = reply.prompt_tokens + reply.tokens_recalled + reply.tokens_reencoded;
  return {{"prompt_tokens", prompt},
          {"completion_tokens", reply.completion_tokens},
          {"total_tokens", prompt + reply.completion_tokens},
          {"prompt_tokens_details", json::object{{"cached_tokens", reply.tokens_recalled}}}};
}

json::object Head(const CompletionHead& head, bool chunk) {
  return {{"id", JsonString(head.id)},
          {"object",
           head.chat ? (chunk ? "chat.completion.chunk" : "chat.completion") : "text_completion"},
          {"created", head.created},
          {"model", JsonString(head.model)}};
}

std::string_view FinishReason(bool stopped, const AskReply& reply) {
  return reply.cut && !stopped ? "length" : "stop";
}

// Citations in OpenAI's form. Each covers the whole answer: the attention is not attributed to
// parts of the answer.
json::array Annotations(std::string_view text, const AskReply& reply) {
  json::array annotations;
  for (const Citation& c : reply.citations) {
    const std::string place = "longhold:" + c.span.document +
                              "#bytes=" + std::to_string(c.span.bytes.begin) + "-" +
                              std::to_string(c.span.bytes.end);
    annotations.push_back(
        json::object{{"type", "url_citation"},
                     {"url_citation", json::object{{"start_index", 0},
                                                   {"end_index", CountColumns(text)},
                                                   {"title", JsonString(c.span.document)},
                                                   {"url", JsonString(place)}}}});
  }
  return annotations;
}

// Citations in Anthropic's form.
json::array CharLocations(const AskReply& reply) {
  json::array citations;
  for (const Citation& c : reply.citations) {
    if (!c.characters.has_value()) continue;  // its text is damaged
    citations.push_back(json::object{{"type", "char_location"},
                                     {"cited_text", JsonString(c.span.text)},
                                     {"document_index", c.document_index},
                                     {"document_title", JsonString(c.span.document)},
                                     {"start_char_index", c.characters->begin},
                                     {"end_char_index", c.characters->end}});
  }
  return citations;
}

// The members of `ask --json` that OpenAI's reply does not have.
json::value Longhold(const CompletionHead& head, const AskReply& reply) {
  json::object all = AskObject(reply);
  all.erase("answer");
  all.erase("usage");
  if (!head.server.empty()) all["server"] = json::parse(head.server);
  return all;
}

std::string Event(const json::value& value) { return "data: " + DumpJson(value) + "\n\n"; }

json::object Chunk(const CompletionHead& head, json::value delta, json::value reason) {
  json::object chunk = Head(head, true);
  json::object choice{{"index", 0}, {"finish_reason", std::move(reason)}, {"logprobs", nullptr}};
  choice[head.chat ? "delta" : "text"] = std::move(delta);
  chunk["choices"] = json::array{std::move(choice)};
  return chunk;
}

}  // namespace

Result<CompletionRequest> ParseCompletion(std::string_view body, bool chat) {
  LH_ASSIGN_OR_RETURN(const json::object object, ParseJsonObject(body));
  CompletionRequest request{.chat = chat};
  LH_ASSIGN_OR_RETURN(const std::string model, StringField(object, "model"));
  if (model.empty()) return BadField("model", "is missing; GET /v1/models lists the models");
  const size_t at = model.rfind('@');
  request.model = model.substr(0, at);
  if (at != std::string::npos) request.memory = model.substr(at + 1);
  LH_ASSIGN_OR_RETURN(const std::string memory, StringField(object, "memory"));
  if (!memory.empty()) request.memory = memory;
  LH_RETURN_IF_ERROR(chat ? ParseMessages(object, &request) : ParsePrompt(object, &request));
  LH_RETURN_IF_ERROR(ParseStop(object, &request));
  LH_RETURN_IF_ERROR(RefuseUnsupported(object));
  LH_RETURN_IF_ERROR(ParseLogprobs(object, &request));
  const char* limit = FindField(object, "max_completion_tokens") != nullptr
                          ? "max_completion_tokens"
                          : "max_tokens";
  LH_ASSIGN_OR_RETURN(const int64_t tokens,
                      IntegerField(object, limit, 1, kTokensMax, request.max_tokens));
  request.max_tokens = static_cast<uint32_t>(tokens);
  LH_ASSIGN_OR_RETURN(const double temperature, NumberField(object, "temperature", 0, 2, 0));
  LH_ASSIGN_OR_RETURN(const double top_p, NumberField(object, "top_p", 0, 1, 1));
  LH_ASSIGN_OR_RETURN(const int64_t seed, IntegerField(object, "seed", INT32_MIN, UINT32_MAX, 1));
  request.sampler.temperature = static_cast<float>(temperature);
  request.sampler.top_p = static_cast<float>(top_p);
  request.sampler.seed = static_cast<uint32_t>(seed);
  LH_ASSIGN_OR_RETURN(request.attend, AttendFields(object));
  LH_ASSIGN_OR_RETURN(request.timeout_s, TimeoutField(object));
  LH_ASSIGN_OR_RETURN(request.session, StringField(object, "session"));
  if (request.session.size() > kSessionBytesMax)
    return BadField("session", "is longer than " + std::to_string(kSessionBytesMax) + " bytes");
  LH_ASSIGN_OR_RETURN(const std::string citations, StringField(object, "citations"));
  request.characters = citations == "char_location";
  const bool inline_citations = citations == "inline";
  if (auto* focused = std::get_if<FocusedOptions>(&request.attend))
    focused->inline_citations = inline_citations;
  if (!citations.empty() && !request.characters && !inline_citations) {
    return BadField(
        "citations",
        "'" + citations +
            "' is not known; use char_location or inline, or remove it for annotations only");
  }
  LH_ASSIGN_OR_RETURN(request.progress, FlagField(object, "return_progress", false));
  LH_ASSIGN_OR_RETURN(request.stream, FlagField(object, "stream", false));
  if (const json::value* options = FindField(object, "stream_options")) {
    if (!options->is_object()) return BadField("stream_options", "must be an object");
    LH_ASSIGN_OR_RETURN(request.stream_usage,
                        FlagField(options->get_object(), "include_usage", false));
  }
  return request;
}

std::string CompletionJson(const CompletionHead& head, std::string_view text, bool stopped,
                           const AskReply& reply) {
  json::object object = Head(head, false);
  json::object choice{{"index", 0},
                      {"finish_reason", FinishReason(stopped, reply)},
                      {"logprobs", Logprobs(head, reply)}};
  if (head.chat) {
    choice["message"] = json::object{{"role", "assistant"},
                                     {"content", JsonString(text)},
                                     {"refusal", nullptr},
                                     {"annotations", Annotations(text, reply)}};
  } else {
    choice["text"] = JsonString(text);
  }
  if (head.characters)
    (head.chat ? choice["message"].get_object() : choice)["citations"] = CharLocations(reply);
  object["choices"] = json::array{std::move(choice)};
  object["usage"] = Usage(reply);
  object["longhold"] = Longhold(head, reply);
  return DumpJson(object);
}

std::string StreamBegin(const CompletionHead& head) {
  return head.chat
             ? Event(Chunk(head, json::object{{"role", "assistant"}, {"content", ""}}, nullptr))
             : "";
}

std::string StreamPiece(const CompletionHead& head, std::string_view text) {
  return Event(Chunk(head,
                     head.chat ? json::value(json::object{{"content", JsonString(text)}})
                               : json::value(JsonString(text)),
                     nullptr));
}

std::string StreamProgress(const CompletionHead& head, const AskProgress& progress) {
  json::object chunk =
      Chunk(head, head.chat ? json::value(json::object{}) : json::value(""), nullptr);
  chunk["prompt_progress"] = json::object{{"total", progress.tokens},
                                          {"cache", progress.from_memory},
                                          {"processed", progress.done},
                                          {"time_ms", progress.ms}};
  return Event(chunk);
}

std::string StreamEnd(const CompletionHead& head, std::string_view text, bool stopped,
                      const AskReply& reply, bool usage) {
  json::value delta = head.chat
                          ? json::value(json::object{{"annotations", Annotations(text, reply)}})
                          : json::value("");
  json::object last = Chunk(head, std::move(delta), json::string(FinishReason(stopped, reply)));
  if (head.characters) {
    json::object& choice = last["choices"].get_array()[0].get_object();
    (head.chat ? choice["delta"].get_object() : choice)["citations"] = CharLocations(reply);
  }
  last["choices"].get_array()[0].get_object()["logprobs"] = Logprobs(head, reply);
  last["longhold"] = Longhold(head, reply);
  std::string out = Event(last);
  if (usage) {
    json::object chunk = Head(head, true);
    chunk["choices"] = json::array{};
    chunk["usage"] = Usage(reply);
    out += Event(chunk);
  }
  return out + "data: [DONE]\n\n";
}

std::string StreamError(std::string_view type, std::string_view message) {
  return "data: " + ErrorJson(type, message) + "\n\ndata: [DONE]\n\n";
}

std::string ModelsJson(const std::string& model, const std::vector<std::string>& memories,
                       const std::string& embedder, int64_t created) {
  json::array data;
  const auto add = [&](const std::string& id) {
    data.push_back(json::object{{"id", JsonString(id)},
                                {"object", "model"},
                                {"created", created},
                                {"owned_by", "longhold"}});
  };
  add(model);
  for (const std::string& memory : memories) add(model + "@" + memory);
  if (!embedder.empty()) add(embedder);
  return DumpJson(json::object{{"object", "list"}, {"data", std::move(data)}});
}

std::string StopStrings::Feed(std::string_view piece) {
  if (stopped_) return "";
  held_ += piece;
  size_t end = std::string::npos;
  for (const std::string& stop : stop_) end = std::min(end, held_.find(stop));
  if (end != std::string::npos) {
    stopped_ = true;
    held_.resize(end);
    return std::exchange(held_, "");
  }
  size_t keep = 0;
  for (const std::string& stop : stop_) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
      if (held_.ends_with(std::string_view(stop).substr(0, n))) keep = n;
    }
  }
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string ShownAnswer::Show(const std::string& piece) {
  std::string out;
  for (const char c : piece) {
    if (IsSpace(c)) {
      if (!text_.empty() || !out.empty()) blanks_ += c;
    } else {
      out += std::exchange(blanks_, "") + c;
    }
  }
  text_ += out;
  return out;
}

std::string StopStrings::Finish() { return stopped_ ? "" : std::exchange(held_, ""); }

}  // namespace longhold
