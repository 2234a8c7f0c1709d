// The wire format of OpenAI's API: parses requests and renders replies. Pure functions: no I/O, no
// state.
#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "memory/engine.h"

namespace longhold {

// A parsed request of a completion. Comments name the member of the request. Value type.
struct CompletionRequest {
  bool chat = true;               // /v1/chat/completions, else /v1/completions
  std::string model;              // "smollm2" of "smollm2@bible"
  std::string memory;             // "bible"; empty: the request names none
  std::string system;             // all system and developer messages
  std::vector<ChatTurn> earlier;  // turns before the question
  std::string question;           // the last message, of the user
  uint32_t max_tokens = 256;
  SamplerOptions sampler;         // default: temperature 0
  std::vector<std::string> stop;  // at most 4
  // "logprobs", "top_logprobs": number of alternatives for each token; nullopt: no log
  // probabilities
  std::optional<uint32_t> likeliest;
  AttendOptions attend = FocusedOptions{};  // the extensions that ask_fields.h reads
  // "session", an extension: question and answer become documents of the memory
  std::string session;
  // "citations": "char_location" adds citations in Anthropic's form to OpenAI's annotations
  bool characters = false;
  // "return_progress", as in llama.cpp's server: progress of the prompt in a stream
  bool progress = false;
  double timeout_s = 0;  // "timeout", an extension; 0: none
  bool stream = false;
  bool stream_usage = false;  // "stream_options": {"include_usage": true}
};

// Parses a request. Unknown members are ignored. Members of OpenAI that change the answer and are
// not supported are refused. Errors: invalid_argument, with the name of the member.
Result<CompletionRequest> ParseCompletion(std::string_view body, bool chat);

// Parses the member "timeout" of a request, in seconds; 0: it is missing. Errors: invalid_argument.
Result<double> TimeoutField(const boost::json::object& body);

// The parts that all pieces of a reply share.
struct CompletionHead {
  std::string id;       // "chatcmpl-..."
  int64_t created = 0;  // seconds since 1970
  std::string model;    // as in the request
  bool chat = true;
  // requested; in a stream they come with the last piece
  bool logprobs = false;
  bool characters = false;  // likewise
  // a JSON object that becomes the member "server" of "longhold": what another engine did
  std::string server;
};

// Renders a complete reply. `text` is the answer up to the first stop string.
std::string CompletionJson(const CompletionHead& head, std::string_view text, bool stopped,
                           const AskReply& reply);

// Render server-sent events: first the role, then pieces of text, then the end with its reason and
// the extensions of longhold.
std::string StreamBegin(const CompletionHead& head);
std::string StreamPiece(const CompletionHead& head, std::string_view text);
std::string StreamProgress(const CompletionHead& head, const AskProgress& progress);
std::string StreamEnd(const CompletionHead& head, std::string_view text, bool stopped,
                      const AskReply& reply, bool usage);
std::string StreamError(std::string_view type, std::string_view message);

// Renders {"object": "list", "data": [...]}: the model alone, the model with each memory that it
// can read, and the embedder unless that is empty.
std::string ModelsJson(const std::string& model, const std::vector<std::string>& memories,
                       const std::string& embedder, int64_t created);

// Ends a text at its first stop string, however the text is cut into pieces. Owner: one answer.
// Thread use: *confined*.
class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> stop) : stop_(std::move(stop)) {}
  // Returns the text that may be shown now. What may be the start of a stop string is held back.
  std::string Feed(std::string_view piece);
  // Returns the text that was held back; empty after a stop string.
  std::string Finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stop_;
  std::string held_;
  bool stopped_ = false;
};

// The answer that the client sees: without white space at its ends, and ended at the first stop
// string. Owner: one answer. Thread use: *confined*.
class ShownAnswer {
 public:
  explicit ShownAnswer(std::vector<std::string> stop) : stop_(std::move(stop)) {}
  // Returns the text that can be sent now.
  std::string Feed(std::string_view piece) { return Show(stop_.Feed(piece)); }
  std::string Finish() { return Show(stop_.Finish()); }
  bool stopped() const { return stop_.stopped(); }
  const std::string& text() const { return text_; }

 private:
  std::string Show(const std::string& piece);

  StopStrings stop_;
  std::string text_, blanks_;
};

}  // namespace longhold
