// The reply to one of OpenAI's completions, complete or as a stream of server-sent events. The HTTP
// API and the proxy of `attach-server` send it.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "service/server/http_server.h"
#include "service/server/openai.h"

namespace longhold {

// Checks that the request names `model`, which is served. One that names no memory gets `memory`,
// which may be empty. Errors: not_found (another model), invalid_argument (no memory).
Status ResolveModel(const std::string& model, const std::string& memory,
                    CompletionRequest* request);

// Owner: the completion. Thread use: *confined*.
class CompletionReply {
 public:
  // `id`: what stands behind "chatcmpl-". `stop`: where the answer ends, unless whoever answers
  // sees to that.
  CompletionReply(std::shared_ptr<HttpExchange> exchange, const CompletionRequest& request,
                  const std::string& id, std::vector<std::string> stop);

  CompletionHead& head() { return head_; }
  const ShownAnswer& shown() const { return shown_; }
  // Whether a part of a stream has been sent, so that no other reply is possible.
  bool begun() const { return begun_; }

  // Begins the stream before there is text, if the request wants one and it has not begun.
  void Begin();
  // The next piece of the answer. Sends what may be shown of it, if the request wants a stream.
  void Feed(std::string_view piece) { Send(shown_.Feed(piece)); }
  // The answer is complete: sends what was held back.
  void Finish() { Send(shown_.Finish()); }
  // Sends the progress, if the request wants a stream.
  void Progress(const AskProgress& progress);
  // The last call is one of these.
  void Fail(const Status& status);
  void End(bool stopped, const AskReply& reply);

 private:
  void Send(const std::string& text);

  const std::shared_ptr<HttpExchange> exchange_;
  const bool stream_, stream_usage_;
  CompletionHead head_;
  ShownAnswer shown_;
  bool begun_ = false;
};

}  // namespace longhold
