#include "service/server/completion_reply.h"

#include <utility>

#include "service/server/api_call.h"

namespace longhold {

Status ResolveModel(const std::string& model, const std::string& memory,
                    CompletionRequest* request) {
  if (request->model != model) {
    return NotFound("model '" + request->model + "' is not served here; this server has '" + model +
                    "'");
  }
  if (request->memory.empty()) request->memory = memory;
  if (!request->memory.empty()) return OkStatus();
  return InvalidArgument("the request names no memory; use model '" + model +
                         "@NAME', or add \"memory\": NAME");
}

CompletionReply::CompletionReply(std::shared_ptr<HttpExchange> exchange,
                                 const CompletionRequest& request, const std::string& id,
                                 std::vector<std::string> stop)
    : exchange_(std::move(exchange)),
      stream_(request.stream),
      stream_usage_(request.stream_usage),
      shown_(std::move(stop)) {
  head_.id = (request.chat ? "chatcmpl-" : "cmpl-") + id;
  head_.model = request.model + "@" + request.memory;
  head_.chat = request.chat;
  head_.logprobs = request.likeliest.has_value();
  head_.characters = request.characters;
}

void CompletionReply::Begin() {
  if (!stream_ || begun_) return;
  exchange_->BeginStream();
  exchange_->Write(StreamBegin(head_));
  begun_ = true;
}

void CompletionReply::Send(const std::string& text) {
  if (!stream_ || text.empty()) return;
  Begin();
  exchange_->Write(StreamPiece(head_, text));
}

void CompletionReply::Progress(const AskProgress& progress) {
  if (!stream_) return;
  Begin();
  exchange_->Write(StreamProgress(head_, progress));
}

void CompletionReply::Fail(const Status& status) {
  if (!begun_) return exchange_->Respond(ErrorReply(status));
  exchange_->Write(StreamError(ErrorType(status), status.message()));
  exchange_->EndStream();
}

void CompletionReply::End(bool stopped, const AskReply& reply) {
  if (!stream_)
    return exchange_->Respond(JsonReply(CompletionJson(head_, shown_.text(), stopped, reply)));
  Begin();
  exchange_->Write(StreamEnd(head_, shown_.text(), stopped, reply, stream_usage_));
  exchange_->EndStream();
}

}  // namespace longhold
