// The wire format of OpenAI's API: its requests as values, and replies as its clients expect them.
// Pure functions: no I/O, no state.
#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "memory/engine.h"

namespace longhold {

// What a completion asks for. Value type.
struct CompletionRequest {
  bool chat = true;               // /v1/chat/completions, else /v1/completions
  std::string model;              // "smollm2" of "smollm2@bible"
  std::string memory;             // "bible"; empty when none is named
  std::string system;             // all system and developer messages
  std::vector<ChatTurn> earlier;  // what was said before the question
  std::string question;           // the last message, which is the user's
  uint32_t max_tokens = 256;
  SamplerOptions sampler;         // temperature 0 unless the request says otherwise
  std::vector<std::string> stop;  // at most 4
  // "logprobs", "top_logprobs": how many others beside each token; none: nothing is told
  std::optional<uint32_t> likeliest;
  bool abstain = true;                                    // "abstain"; longhold's own
  std::optional<uint32_t> rerank_spans, reencode_tokens;  // "rerank", "reencode"; longhold's own
  Attend attend = Attend::kFocused;  // "attend", "attend_share"; longhold's own
  double attend_share = AskOptions().attend_share;
  // "session"; longhold's own: question and answer become documents of the memory
  std::string session;
  // "citations": "char_location", in Anthropic's form beside OpenAI's annotations
  bool characters = false;
  bool inline_citations = false;  // "citations": "inline", as [1] in the text
  // "return_progress", as llama.cpp's server has it: how far a stream's prompt has been read
  bool progress = false;
  double timeout_s = 0;  // "timeout"; longhold's own. 0: none
  bool stream = false;
  bool stream_usage = false;  // "stream_options": {"include_usage": true}
};

// Members that this server does not know are passed over; those of OpenAI's that change the answer
// and are not supported are refused. Errors: invalid_argument, naming the member.
Result<CompletionRequest> ParseCompletion(std::string_view body, bool chat);

// longhold's member "timeout" of a request, in seconds; 0 where it has none. Errors:
// invalid_argument.
Result<double> TimeoutField(const boost::json::object& body);
// longhold's member "attend" of a request, by AttendName. Errors: invalid_argument.
Result<Attend> AttendField(const boost::json::object& body);

// What is the same in all pieces of a reply.
struct CompletionHead {
  std::string id;       // "chatcmpl-..."
  int64_t created = 0;  // seconds since 1970
  std::string model;    // as the request named it
  bool chat = true;
  // the request wants them; in a stream they come with the last piece
  bool logprobs = false;
  bool characters = false;  // likewise
};

// The whole reply. `text` is the answer as far as the stop strings let it.
std::string CompletionJson(const CompletionHead& head, std::string_view text, bool stopped,
                           const AskReply& reply);

// Server-sent events. The first has the role, then come pieces of text, then the end with its
// reason and what longhold adds.
std::string StreamBegin(const CompletionHead& head);
std::string StreamPiece(const CompletionHead& head, std::string_view text);
std::string StreamProgress(const CompletionHead& head, const AskProgress& progress);
std::string StreamEnd(const CompletionHead& head, std::string_view text, bool stopped,
                      const AskReply& reply, bool usage);
std::string StreamError(std::string_view type, std::string_view message);

// {"object": "list", "data": [...]}: the model by itself, and with each memory that it can answer
// from; last the one for embeddings, unless that is empty.
std::string ModelsJson(const std::string& model, const std::vector<std::string>& memories,
                       const std::string& embedder, int64_t created);

// Ends a text at the first of its stop strings, wherever its pieces are cut. Owner: one answer.
// Thread use: *confined*.
class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> stop) : stop_(std::move(stop)) {}
  // What of the text may be shown now; what may be the beginning of a stop string is kept back.
  std::string Feed(std::string_view piece);
  // What was kept back; nothing once a stop string has come.
  std::string Finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stop_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace longhold
