#include "service/attach/attach_proxy.h"

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <semaphore>
#include <utility>

#include "base/clock.h"
#include "base/hash.h"
#include "memory/core/elapsed.h"
#include "service/common/json_text.h"
#include "service/server/api_call.h"
#include "service/server/completion_reply.h"
#include "store/memory_name.h"

namespace longhold {
namespace {

namespace json = boost::json;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kBodyBytesMax = 16ull << 20;
constexpr size_t kForwardThreads = 4;
// Positions that the server keeps to itself: it refuses prompts that fill its context.
constexpr uint32_t kContextSlack = 4;

JobPoolOptions Pool(size_t threads) {
  return {.threads = threads,
          .tenant_threads = threads,
          .operator_threads = threads,
          .tenant_waiting_max = 64,
          .waiting_max = 64};
}

bool Is(const HttpRequest& request, std::string_view method, std::string_view path) {
  std::string own;
  for (const std::string& segment : request.path) own += "/" + segment;
  return request.method == method && own == path;
}

}  // namespace

// One completion, on a thread of the pool.
class AttachProxy::Completion {
 public:
  Completion(AttachProxy* proxy, std::shared_ptr<HttpExchange> exchange, AttachRequest request)
      : proxy_(proxy),
        exchange_(std::move(exchange)),
        request_(std::move(request)),
        reply_(exchange_, request_.completion,
               proxy_->instance_ + "-" + std::to_string(proxy_->next_id_++), {}) {}

  // The prompt gives back what it has of the engine.
  ~Completion() {
    const std::lock_guard<std::mutex> lock(proxy_->engine_mutex_);
    prompt_.reset();
  }

  void Run() {
    if (exchange_->gone()) return;
    reply_.head().created = UnixSeconds();
    const Status status = Answer();
    proxy_->ReportNotes();
    if (!status.ok()) reply_.Fail(status);
  }

 private:
  Status Answer() {
    const Clock::time_point start = Clock::now();
    LH_RETURN_IF_ERROR(Plan());
    const double planned_ms = Milliseconds(start, Clock::now());
    ServerAnswer answer;
    if (prompt_->abstained()) {
      reply_.Feed(kAbstention);
    } else {
      LH_ASSIGN_OR_RETURN(answer, AskServer());
    }
    reply_.Finish();
    LH_ASSIGN_OR_RETURN(AskReply reply, Finish());
    reply.completion_tokens = answer.tokens;
    reply.cut = answer.cut;
    reply.timings.prompt_ms = answer.prompt_ms;
    reply.timings.decode_ms = answer.decode_ms;
    if (answer.decode_ms > 0)
      reply.timings.decode_tok_s = answer.tokens * 1000.0 / answer.decode_ms;
    reply.timings.first_token_ms = planned_ms + answer.first_token_ms;
    reply_.End(answer.stopped, reply);
    return OkStatus();
  }

  Status Plan() {
    const std::lock_guard<std::mutex> lock(proxy_->engine_mutex_);
    const CompletionRequest& parsed = request_.completion;
    const uint32_t context = proxy_->server_->context_tokens();
    LH_ASSIGN_OR_RETURN(prompt_,
                        proxy_->engine_->RecallPrompt(
                            parsed.memory, parsed.question,
                            PromptOptions(parsed, context - std::min(context, kContextSlack))));
    return OkStatus();
  }

  Result<AskReply> Finish() {
    const std::lock_guard<std::mutex> lock(proxy_->engine_mutex_);
    return prompt_->Finish(reply_.shown().text(), request_.completion.characters);
  }

  // Has the server answer in a slot of its own.
  Result<ServerAnswer> AskServer() {
    const LlamaServer& server = *proxy_->server_;
    const uint32_t prefix_tokens = prompt_->prefix_tokens();
    // The file's bytes, and the values while they wait for the keys.
    LH_ASSIGN_OR_RETURN(
        const MemoryReservation room,
        proxy_->engine_->budget().Reserve(SlotFileBytes(server.layout(), prefix_tokens) * 3 / 2,
                                          "the slot file"));
    struct Slot {
      AttachProxy* proxy;
      uint32_t id;
      ~Slot() { proxy->GiveSlot(id); }
    } slot{proxy_, proxy_->TakeSlot()};
    const ServerPrompt asked{
        .slot = slot.id,
        .tokens = prompt_->tokens(),
        .prefix_tokens = prefix_tokens,
        .answer_tokens_max = std::min(request_.completion.max_tokens, prompt_->answer_tokens()),
        .sampling = request_.sampling};
    const SlotPrefix prefix{.tokens = prompt_->tokens().first(prefix_tokens),
                            .copy = [this](uint32_t layer, uint16_t* keys, uint16_t* values) {
                              prompt_->CopyKeyValues(layer, keys, values);
                            }};
    const auto on_text = [this](std::string_view piece) { reply_.Feed(piece); };
    const auto gone = [this] { return exchange_->gone().load(); };
    Result<ServerAnswer> answer = server.Answer(asked, prefix, on_text, gone);
    // Another client of the server may have taken the slot in between.
    const bool again =
        answer.status().code() == StatusCode::kFailedPrecondition && reply_.shown().text().empty();
    if (again) answer = server.Answer(asked, prefix, on_text, gone);
    if (!answer.ok()) return answer;
    reply_.head().server = DumpJson(json::object{{"slot", slot.id},
                                                 {"prefix_tokens", prefix_tokens},
                                                 {"reused_tokens", answer->reused_tokens},
                                                 {"restore_ms", answer->restore_ms},
                                                 {"restored_again", again}});
    return answer;
  }

  AttachProxy* const proxy_;
  const std::shared_ptr<HttpExchange> exchange_;
  const AttachRequest request_;
  std::unique_ptr<RecalledPrompt> prompt_;
  CompletionReply reply_;
};

AttachProxy::AttachProxy(Engine* engine, const LlamaServer* server, AttachOptions options)
    : engine_(engine),
      server_(server),
      options_(std::move(options)),
      instance_(RandomHex(6)),
      forwards_(Pool(kForwardThreads)),
      completions_(Pool(server->slots())) {
  for (uint32_t slot = server->slots(); slot-- > 0;) free_slots_.push_back(slot);
}

AttachProxy::~AttachProxy() { Stop(); }

void AttachProxy::Stop() {
  completions_.Stop();
  forwards_.Stop();
}

uint32_t AttachProxy::TakeSlot() {
  const std::lock_guard<std::mutex> lock(slots_mutex_);
  LH_CHECK(!free_slots_.empty());  // each thread of completions_ has one at a time
  const uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  return slot;
}

void AttachProxy::GiveSlot(uint32_t slot) {
  const std::lock_guard<std::mutex> lock(slots_mutex_);
  free_slots_.push_back(slot);
}

void AttachProxy::ReportNotes() {
  std::vector<std::string> notes;
  {
    const std::lock_guard<std::mutex> lock(engine_mutex_);
    notes = engine_->TakeNotes();
  }
  for (const std::string& note : notes) options_.note(note);
}

HttpAdmission AttachProxy::Admit(const HttpRequest& head) {
  HttpAdmission admission;
  admission.body_bytes_max = head.method == "GET" ? 0 : kBodyBytesMax;
  admission.when_longer = "ingest long texts with 'longhold ingest'";
  admission.handle = [this](HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
    if (Is(request, "POST", "/v1/chat/completions")) return Complete(request, exchange, true);
    if (Is(request, "POST", "/v1/completions")) return Complete(request, exchange, false);
    const bool models = Is(request, "GET", "/v1/models");
    const Status queued = forwards_.Add(
        [this, models, request, exchange] {
          RunGuarded(*exchange, [&] { models ? Models(exchange) : Forward(request, exchange); });
        },
        "");
    if (!queued.ok()) exchange->Respond(NotQueuedReply(queued));
  };
  return admission;
}

void AttachProxy::Complete(const HttpRequest& request,
                           const std::shared_ptr<HttpExchange>& exchange, bool chat) {
  Result<AttachRequest> parsed = ParseAttachRequest(request.body, chat);
  if (!parsed.ok()) return exchange->Respond(ErrorReply(parsed.status()));
  CompletionRequest& completion = parsed->completion;
  const Status resolved = ResolveModel(options_.model, options_.memory, &completion);
  if (!resolved.ok()) return exchange->Respond(ErrorReply(resolved));
  if (const Status named = CheckMemoryName(completion.memory); !named.ok())
    return exchange->Respond(ErrorReply(named));
  const auto work = std::make_shared<Completion>(this, exchange, std::move(*parsed));
  const Status queued =
      completions_.Add([work, exchange] { RunGuarded(*exchange, [&] { work->Run(); }); }, "");
  if (!queued.ok()) exchange->Respond(NotQueuedReply(queued));
}

void AttachProxy::Models(const std::shared_ptr<HttpExchange>& exchange) {
  std::vector<std::string> names;
  {
    const std::lock_guard<std::mutex> lock(engine_mutex_);
    const Result<std::vector<MemoryInfo>> memories = engine_->List();
    if (!memories.ok()) return exchange->Respond(ErrorReply(memories.status()));
    for (const MemoryInfo& memory : *memories) {
      if (memory.status.ok() && memory.model_fingerprint == engine_->model_info().fingerprint)
        names.push_back(memory.name);
    }
  }
  exchange->Respond(JsonReply(ModelsJson(options_.model, names, "", UnixSeconds())));
}

void AttachProxy::Forward(const HttpRequest& request,
                          const std::shared_ptr<HttpExchange>& exchange) {
  bool begun = false;  // a stream, which is passed on as it comes
  const auto pass = [&](std::string_view piece) {
    // The server is read no faster than the client takes it. `ready` may be called when this
    // function has returned, so it shares the semaphore.
    const auto ready = std::make_shared<std::binary_semaphore>(0);
    while (!exchange->WriteBytes(std::string(piece), [ready] { ready->release(); }))
      ready->acquire();
  };
  Result<ClientReply> reply = server_->client().Send(
      {.method = request.head_only ? "GET" : request.method,
       .target = FormatTarget(request.path, request.query),
       .body = request.body,
       .content_type = request.content_type.empty() ? "application/json" : request.content_type,
       .authorization = request.authorization},
      {.on_head =
           [&](unsigned status, const std::string& type) {
             begun = status == 200 && type.starts_with("text/event-stream");
             if (begun) exchange->BeginBytes(type);
             return begun;
           },
       .on_body = pass,
       .stop = [&] { return exchange->gone().load(); }});
  if (begun) return reply.ok() ? exchange->EndStream() : exchange->Break();
  if (!reply.ok()) return exchange->Respond(ErrorReply(reply.status()));
  exchange->Respond({.status = reply->status,
                     .content_type = reply->content_type,
                     .body = std::move(reply->body)});
}

}  // namespace longhold
