// OpenAI's completions: parses the request, asks the engine and sends the reply. With a session,
// the turn is ingested before the reply ends.
#include <utility>

#include "base/clock.h"
#include "service/server/api_call.h"
#include "service/server/completion_reply.h"
#include "service/server/conversation.h"
#include "service/server/openai.h"

namespace longhold {
// One completion, which passes through the queue once or twice.
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
        reply_(exchange_, request_, api->instance_ + "-" + std::to_string(serial_), request_.stop) {
  }

  // A task of the queue.
  Continuation Answer(Engine& engine, bool exclusive) {
    reply_.head().created = UnixSeconds();
    Result<AskReply> reply = Ask(engine);
    if (!reply_.begun() && !exclusive && NeedsExclusiveEngine(reply.status()))
      return {.run = Step(&Completion::Answer), .exclusive = true};
    if (!reply.ok()) {
      reply_.Fail(api_->Redact(reply.status()));
      return {};
    }
    answer_ = std::move(*reply);
    api_->metrics_->Answer(answer_);
    api_->Spend(limits_, answer_.prompt_tokens + answer_.completion_tokens);
    reply_.Begin();
    reply_.Finish();
    // Before the end of the reply, so that a client that has the reply can recall this turn.
    if (!request_.session.empty()) return {.run = Step(&Completion::Keep)};
    reply_.End(reply_.shown().stopped(), answer_);
    return {};
  }

 private:
  EngineTask Step(Continuation (Completion::*step)(Engine&, bool)) {
    return [self = shared_from_this(), step](Engine& engine, bool exclusive) {
      return ((*self).*step)(engine, exclusive);
    };
  }

  Result<AskReply> Ask(Engine& engine) {
    AskOptions options{.system = request_.system,
                       .earlier = request_.earlier,
                       .max_tokens = request_.max_tokens,
                       .sampler = request_.sampler};
    options.attend = request_.attend;
    options.likeliest = request_.likeliest;
    options.characters = request_.characters;
    if (!options.is_faithful()) {
      options.focused().deadline = deadline_;
      options.focused().answer_alone = !request_.session.empty();
    }
    if (request_.stream && request_.progress) {
      options.on_progress = [&](const AskProgress& progress) { reply_.Progress(progress); };
    }
    std::atomic<bool> halt{false};
    options.stop = &halt;
    options.on_text = [&](std::string_view piece) {
      reply_.Begin();
      reply_.Feed(piece);
      if (reply_.shown().stopped() || exchange_->gone()) halt = true;
    };
    if (!request_.session.empty()) {
      LH_RETURN_IF_ERROR(RoomFor(engine, limits_, memory_, "").status());
      if (engine.Exists(memory_).code() == StatusCode::kNotFound) {
        LH_RETURN_IF_ERROR(
            engine
                .Ingest(memory_,
                        OpeningDocument("session/" + request_.session, reply_.head().created),
                        nullptr, nullptr)
                .status());
        engine.CloseMemory();  // reopened for reading; the first completion that ends writes to it
      }
    }
    return engine.Ask(memory_, request_.question, options);
  }

  Continuation Keep(Engine& engine, bool exclusive) {
    const std::string conversation = "session/" + request_.session + "/" +
                                     TimeText(reply_.head().created) + " " + api_->instance_;
    IngestInput turn =
        TurnDocument(conversation, serial_, request_.question,
                     answer_.cited_answer.empty() ? reply_.shown().text() : answer_.answer);
    turn.disk_bytes_max = api_->DiskLimit(limits_, memory_);
    const Status kept = engine.Ingest(memory_, turn, nullptr, nullptr).status();
    engine.CloseMemory();  // allows writes of other processes
    if (!exclusive && NeedsExclusiveEngine(kept))
      return {.run = Step(&Completion::Keep), .exclusive = true};
    if (!kept.ok()) api_->options_.note("session " + request_.session + ": " + kept.message());
    reply_.End(reply_.shown().stopped(), answer_);
    return {};
  }

  Api* const api_;
  const std::shared_ptr<HttpExchange> exchange_;
  const TenantLimits limits_;
  const CompletionRequest request_;
  const std::string memory_;
  const Deadline deadline_;
  const uint64_t serial_;
  CompletionReply reply_;
  AskReply answer_;
};

void Api::Chat(Call& call) { Complete(call, true); }
void Api::Completions(Call& call) { Complete(call, false); }

void Api::Complete(Call& call, bool chat) {
  Result<CompletionRequest> parsed = ParseCompletion(call.request.body, chat);
  if (!parsed.ok()) return call.Fail(parsed.status());
  if (!parsed->session.empty() && call.scope < Scope::kWrite) return call.Forbid(Scope::kWrite);
  const Status resolved = ResolveModel(options_.model, options_.memory, &*parsed);
  if (!resolved.ok()) return call.Fail(resolved);
  Result<std::string> memory = call.client.MemoryName(parsed->memory);
  if (!memory.ok()) return call.Fail(memory.status());
  call.access->memory = parsed->memory;
  const bool faithful = std::holds_alternative<FaithfulOptions>(parsed->attend);
  const auto deadline = DeadlineIn(parsed->timeout_s);
  const auto completion =
      std::make_shared<Completion>(this, call, std::move(*parsed), *memory, deadline);
  // Faithful attention needs more memory than recalled spans, so it runs exclusively.
  Queue(
      call,
      [completion](Engine& engine, bool exclusive) {
        return completion->Answer(engine, exclusive);
      },
      /*concurrent=*/!faithful, *memory, deadline);
}

}  // namespace longhold
