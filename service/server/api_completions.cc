// OpenAI's completions: from the request through the answer, and with a session what is kept of it,
// to the reply's end.
#include <utility>

#include "base/clock.h"
#include "base/text.h"
#include "service/server/api_call.h"
#include "service/server/conversation.h"
#include "service/server/openai.h"

namespace longhold {
namespace {

// The answer as a client is shown it: without blanks at its ends, and up to a stop string.
class ShownAnswer {
 public:
  explicit ShownAnswer(std::vector<std::string> stop) : stop_(std::move(stop)) {}
  // What can be sent now.
  std::string Feed(std::string_view piece) { return Show(stop_.Feed(piece)); }
  std::string Finish() { return Show(stop_.Finish()); }
  bool stopped() const { return stop_.stopped(); }
  const std::string& text() const { return text_; }

 private:
  std::string Show(const std::string& piece) {
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

  StopStrings stop_;
  std::string text_, blanks_;
};

}  // namespace

// One of them, on its way through the queue.
class Api::Completion : public std::enable_shared_from_this<Completion> {
 public:
  Completion(Api* api, const Call& call, CompletionRequest request, std::string memory,
             Deadline deadline)
      : api_(api),
        exchange_(call.exchange),
        limits_(call.client.limits),
        request_(std::move(request)),
        memory_(std::move(memory)),
        deadline_(deadline),
        serial_(api->next_id_++),
        shown_(request_.stop) {
    head_.id =
        (request_.chat ? "chatcmpl-" : "cmpl-") + api->instance_ + "-" + std::to_string(serial_);
    head_.model = request_.model + "@" + request_.memory;
    head_.chat = request_.chat;
    head_.logprobs = request_.likeliest.has_value();
    head_.characters = request_.characters;
  }

  // As a Question.
  Continuation Answer(Engine& engine, bool alone) {
    head_.created = UnixSeconds();
    Result<AskReply> reply = Ask(engine);
    if (!begun_ && !alone && WantsEngineAlone(reply.status()))
      return {.run = Step(&Completion::Answer), .alone = true};
    if (!reply.ok()) {
      Fail(api_->Redact(reply.status()));
      return {};
    }
    reply_ = std::move(*reply);
    api_->metrics_->Answer(reply_);
    api_->Spend(limits_, reply_.prompt_tokens + reply_.completion_tokens);
    Send(shown_.Finish());
    // Before the end of the reply: who has it may ask for what was said.
    if (!request_.session.empty()) return {.run = Step(&Completion::Keep)};
    End();
    return {};
  }

 private:
  Question Step(Continuation (Completion::*step)(Engine&, bool)) {
    return [self = shared_from_this(), step](Engine& engine, bool alone) {
      return ((*self).*step)(engine, alone);
    };
  }

  Result<AskReply> Ask(Engine& engine) {
    AskOptions options{.system = request_.system,
                       .earlier = request_.earlier,
                       .max_tokens = request_.max_tokens,
                       .sampler = request_.sampler};
    options.recall.abstain = request_.abstain;
    options.recall.rerank_spans = request_.rerank_spans;
    options.reencode_tokens = request_.reencode_tokens;
    options.attend = request_.attend;
    options.attend_share = request_.attend_share;
    options.likeliest = request_.likeliest;
    options.characters = request_.characters;
    options.inline_citations = request_.inline_citations;
    options.deadline = deadline_;
    if (request_.stream && request_.progress) {
      options.on_progress = [&](const AskProgress& progress) {
        Send("");
        exchange_->Write(StreamProgress(head_, progress));
      };
    }
    std::atomic<bool> halt{false};
    options.stop = &halt;
    options.on_text = [&](std::string_view piece) {
      Send(shown_.Feed(piece));
      if (shown_.stopped() || exchange_->gone()) halt = true;
    };
    if (!request_.session.empty()) {
      options.answer_alone = true;
      LH_RETURN_IF_ERROR(RoomFor(engine, limits_, memory_, "").status());
      if (engine.Exists(memory_).code() == StatusCode::kNotFound) {
        LH_RETURN_IF_ERROR(
            engine
                .Ingest(memory_, OpeningDocument("session/" + request_.session, head_.created),
                        nullptr, nullptr)
                .status());
        engine.CloseMemory();  // it is read from, and later written to by whoever ends first
      }
    }
    return engine.Ask(memory_, request_.question, options);
  }

  Continuation Keep(Engine& engine, bool alone) {
    const std::string conversation =
        "session/" + request_.session + "/" + TimeText(head_.created) + " " + api_->instance_;
    IngestInput turn = TurnDocument(conversation, serial_, request_.question,
                                    request_.inline_citations ? reply_.answer : shown_.text());
    turn.disk_bytes_max = api_->DiskLimit(limits_, memory_);
    const Status kept = engine.Ingest(memory_, turn, nullptr, nullptr).status();
    engine.CloseMemory();  // other processes may write to it again
    if (!alone && WantsEngineAlone(kept)) return {.run = Step(&Completion::Keep), .alone = true};
    if (!kept.ok()) api_->options_.note("session " + request_.session + ": " + kept.message());
    End();
    return {};
  }

  void Send(const std::string& piece) {
    if (!request_.stream) return;
    if (!begun_) {
      exchange_->BeginStream();
      exchange_->Write(StreamBegin(head_));
      begun_ = true;
    }
    if (!piece.empty()) exchange_->Write(StreamPiece(head_, piece));
  }

  void Fail(const Status& status) {
    if (!begun_) return exchange_->Respond(ErrorReply(status));
    exchange_->Write(StreamError(ErrorType(status), status.message()));
    exchange_->EndStream();
  }

  void End() {
    if (!request_.stream)
      return exchange_->Respond(
          JsonReply(CompletionJson(head_, shown_.text(), shown_.stopped(), reply_)));
    exchange_->Write(
        StreamEnd(head_, shown_.text(), shown_.stopped(), reply_, request_.stream_usage));
    exchange_->EndStream();
  }

  Api* const api_;
  const std::shared_ptr<HttpExchange> exchange_;
  const TenantLimits limits_;
  const CompletionRequest request_;
  const std::string memory_;
  const Deadline deadline_;
  const uint64_t serial_;
  CompletionHead head_;
  ShownAnswer shown_;
  bool begun_ = false;  // the stream
  AskReply reply_;
};

void Api::Chat(Call& call) { Complete(call, true); }
void Api::Completions(Call& call) { Complete(call, false); }

void Api::Complete(Call& call, bool chat) {
  Result<CompletionRequest> parsed = ParseCompletion(call.request.body, chat);
  if (!parsed.ok()) return call.Fail(parsed.status());
  if (!parsed->session.empty() && call.scope < Scope::kWrite) return call.Forbid(Scope::kWrite);
  if (parsed->model != options_.model) {
    return call.Fail(NotFound("model '" + parsed->model + "' is not served here; this is '" +
                              options_.model + "'"));
  }
  if (parsed->memory.empty()) parsed->memory = options_.memory;
  if (parsed->memory.empty()) {
    return call.Fail(InvalidArgument("no memory is named; ask for model '" + options_.model +
                                     "@NAME', or give \"memory\": NAME"));
  }
  Result<std::string> memory = call.client.MemoryName(parsed->memory);
  if (!memory.ok()) return call.Fail(memory.status());
  call.access->memory = parsed->memory;
  const bool faithful = parsed->attend == Attend::kFaithful;
  const auto deadline = DeadlineIn(parsed->timeout_s);
  const auto completion =
      std::make_shared<Completion>(this, call, std::move(*parsed), *memory, deadline);
  // What heads pick takes more memory than what is recalled.
  Queue(
      call, [completion](Engine& engine, bool alone) { return completion->Answer(engine, alone); },
      /*beside=*/!faithful, *memory, deadline);
}

}  // namespace longhold
