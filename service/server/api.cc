#include "service/server/api.h"

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <filesystem>
#include <utility>

#include "base/clock.h"
#include "base/format.h"
#include "base/hash.h"
#include "base/secret.h"
#include "service/common/json_text.h"
#include "service/common/render.h"
#include "service/server/api_call.h"
#include "service/server/ask_fields.h"
#include "service/server/openai.h"

namespace longhold {
namespace {

namespace json = boost::json;

// Longest body that is parsed on the thread of the server. A mebibyte of JSON would delay all other
// requests by some 30 ms.
constexpr size_t kParseInlineMax = 4096;
// limit for a question of recall and ask: longer than any model here accepts
constexpr size_t kQueryBytesMax = 64 << 10;
constexpr int64_t kDiskSeconds = 30;  // between two measurements of the disk usage
// prefix of the routes whose first name is a memory
constexpr std::string_view kMemoryPrefix = "/v1/memories/{memory}";

// Of the stores of all memories.
uint64_t StoredBytes(StoreProvider& stores) {
  std::vector<std::string> owners = stores.Tenants();
  owners.push_back("");
  uint64_t bytes = 0;
  for (const std::string& owner : owners) {
    const Result<std::vector<std::string>> names = stores.List(owner);
    if (!names.ok()) continue;
    for (const std::string& name : *names) bytes += stores.DiskBytes(name);
  }
  return bytes;
}

// Limits for the body of a route, and the advice in the message for a longer one. Only a text may
// make a JSON body long: JSON is parsed as a whole and then takes many times its length in RAM.
struct BodyLimit {
  uint64_t bytes = 0, json_bytes = 0;
  std::string_view when_longer;
};
constexpr uint64_t kServerLimit = UINT64_MAX, kJsonBytesMax = 1 << 20, kNoBodyBytesMax = 64 << 10;
// for a route without authentication: strangers get no memory for a body
constexpr BodyLimit kNothing{0, 0, "leave it out"};
// for a route without a body: some clients send one anyway
constexpr BodyLimit kNoBody{kNoBodyBytesMax, kNoBodyBytesMax,
                            "leave it out: this route takes no body"};
constexpr BodyLimit kJson{kJsonBytesMax, kJsonBytesMax, "ingest long texts as documents"};
constexpr BodyLimit kText{kServerLimit, kServerLimit,
                          "send it in parts, as an upload (POST /v1/uploads)"};
constexpr BodyLimit kFile{kServerLimit, kJsonBytesMax,
                          "send it in shorter parts, as an upload (POST /v1/uploads)"};

}  // namespace

struct Api::Route {
  std::string_view method, path;
  Scope scope;
  const BodyLimit& body;
  void (Api::*handle)(Call&);
  bool for_tenants = true;
};

const std::vector<Api::Route>& Api::Table() {
  static const std::vector<Route> table = {
      {"GET", "/healthz", Scope::kNone, kNothing, &Api::Health},
      {"GET", "/readyz", Scope::kRead, kNoBody, &Api::Ready},
      {"GET", "/metrics", Scope::kRead, kNoBody, &Api::ShowMetrics, /*for_tenants=*/false},
      {"GET", "/v1/models", Scope::kRead, kNoBody, &Api::Models},
      {"POST", "/v1/chat/completions", Scope::kRead, kJson, &Api::Chat},
      {"POST", "/v1/completions", Scope::kRead, kJson, &Api::Completions},
      {"POST", "/v1/embeddings", Scope::kRead, kJson, &Api::Embeddings},
      {"GET", "/v1/memories", Scope::kRead, kNoBody, &Api::ListMemories},
      {"POST", "/v1/memories", Scope::kWrite, kJson, &Api::CreateMemory},
      {"GET", "/v1/memories/{memory}", Scope::kRead, kNoBody, &Api::ShowMemory},
      {"DELETE", "/v1/memories/{memory}", Scope::kAdmin, kNoBody, &Api::ForgetMemory},
      {"GET", "/v1/memories/{memory}/tiers", Scope::kRead, kNoBody, &Api::ShowTiers},
      {"POST", "/v1/memories/{memory}/verify", Scope::kWrite, kNoBody, &Api::VerifyMemory},
      {"GET", "/v1/memories/{memory}/export", Scope::kWrite, kNoBody, &Api::ExportMemory},
      {"POST", "/v1/memories/{memory}/import", Scope::kWrite, kFile, &Api::ImportMemory},
      {"POST", "/v1/memories/{memory}/documents", Scope::kWrite, kText, &Api::AddDocument},
      {"DELETE", "/v1/memories/{memory}/documents/{document}", Scope::kWrite, kNoBody,
       &Api::ForgetDocument},
      {"POST", "/v1/memories/{memory}/recall", Scope::kRead, kJson, &Api::Recall},
      {"POST", "/v1/memories/{memory}/ask", Scope::kRead, kJson, &Api::Ask},
      {"GET", "/v1/ingests", Scope::kRead, kNoBody, &Api::ListIngests},
      {"GET", "/v1/ingests/{ingest}", Scope::kRead, kNoBody, &Api::ShowIngest},
      {"DELETE", "/v1/ingests/{ingest}", Scope::kWrite, kNoBody, &Api::CancelIngest},
      {"GET", "/v1/uploads", Scope::kWrite, kNoBody, &Api::ListUploads},
      {"POST", "/v1/uploads", Scope::kWrite, kJson, &Api::CreateUpload},
      {"GET", "/v1/uploads/{upload}", Scope::kWrite, kNoBody, &Api::ShowUpload},
      {"PATCH", "/v1/uploads/{upload}", Scope::kWrite, kFile, &Api::AppendUpload},
      {"DELETE", "/v1/uploads/{upload}", Scope::kWrite, kNoBody, &Api::RemoveUpload},
  };
  return table;
}

std::vector<ApiRoute> Api::Routes() {
  std::vector<ApiRoute> routes;
  for (const Route& route : Table())
    routes.push_back({route.method, route.path, route.scope, route.for_tenants});
  return routes;
}

namespace {

// Matches `path` against `pattern` and fills in the names that stand for {...}.
bool Matches(std::string_view pattern, const std::vector<std::string>& path,
             std::vector<std::string>* names) {
  names->clear();
  for (const std::string& segment : path) {
    if (pattern.empty()) return false;
    pattern.remove_prefix(1);  // the slash
    const std::string_view wanted = pattern.substr(0, pattern.find('/'));
    pattern.remove_prefix(wanted.size());
    if (wanted.starts_with('{')) {
      names->push_back(segment);
    } else if (wanted != segment) {
      return false;
    }
  }
  return pattern.empty();
}

}  // namespace

Api::Api(EngineQueue* queue, JobPool* jobs, JobPool* readers, Metrics* metrics, ApiOptions options)
    : queue_(queue),
      jobs_(jobs),
      readers_(readers),
      metrics_(metrics),
      options_(std::move(options)),
      sinks_{metrics, options_.log, options_.audit},
      keys_(
          options_.home, options_.audit == nullptr
                             ? std::function<void(const KeyChanges&)>()
                             : [this](const KeyChanges& changes) { AuditKeyChanges(changes); }),
      quotas_(options_.quotas == nullptr ? &own_quotas_ : options_.quotas),
      uploads_(options_.home, options_.encryption_key),
      instance_(RandomHex(4)) {
  // reads the keys now, so that later changes are recognised as changes
  if (options_.audit != nullptr) (void)keys_.CallerOf("", UnixSeconds(), Scope::kNone);
}

HttpAdmission Api::Admit(const HttpRequest& head) {
  const auto call = std::make_shared<Call>();
  call->record = std::make_shared<RequestRecord>(&sinks_, head);
  call->access = call->record->access();
  std::optional<HttpReply> refusal = Authenticate(head, *call);
  if (!refusal.has_value()) refusal = FindRoute(head, *call);
  if (refusal.has_value()) {
    call->record->End(refusal->status);
    return {.refusal = std::move(refusal)};
  }
  const BodyLimit& limit = call->route->body;
  return {
      .refusal = std::nullopt,
      .body_bytes_max = head.content_type == "application/json" ? limit.json_bytes : limit.bytes,
      .when_longer = std::string(limit.when_longer),
      .handle =
          [this, call](HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
            call->request = std::move(request);
            Wipe(&call->request.authorization);  // no longer needed; an answer may take minutes
            call->exchange = std::make_shared<RecordedExchange>(std::move(exchange), call->record);
            call->record->Begin();
            Handle(call);
          },
      .refused = [call](unsigned status) { call->record->End(status); }};
}

void Api::Handle(const std::shared_ptr<Call>& call) {
  const auto handle = [this, call] {
    RunGuarded(*call->exchange, [&] { (this->*call->route->handle)(*call); });
  };
  if (call->request.body.size() <= kParseInlineMax) return handle();
  const Status taken = readers_->Add(handle, call->client.tenant());
  if (!taken.ok()) call->exchange->Respond(NotQueuedReply(taken));
}

void Api::Refused(const HttpRequest& head, unsigned status) {
  RequestRecord record(&sinks_, head);
  std::vector<std::string> names;
  for (const Route& route : Table()) {
    if (!Matches(route.path, head.path, &names)) continue;
    record.access()->route = route.path;
    if (route.path.starts_with(kMemoryPrefix)) record.access()->memory = names[0];
    break;
  }
  record.End(status);
}

std::optional<HttpReply> Api::Authenticate(const HttpRequest& head, Call& call) {
  const bool open_to_all = head.path == std::vector<std::string>{"healthz"};
  if (open_to_all) return std::nullopt;
  const Result<Caller> caller =
      keys_.CallerOf(head.authorization, UnixSeconds(), options_.without_keys);
  if (!caller.ok()) {
    options_.note(caller.status().message());
    return ErrorReply(Internal("the server cannot read its keys; its log says why"));
  }
  call.scope = caller->scope;
  call.client.limits = caller->limits;
  call.access->unauthenticated = call.scope == Scope::kNone;
  call.access->key = caller->key;
  call.access->tenant = caller->limits.tenant;
  // Also for paths that do not exist: a client without a key must not learn which paths exist.
  if (call.scope == Scope::kNone) {
    HttpReply reply = JsonReply(
        ErrorJson("authentication_error",
                  "the key is missing, unknown or expired; send 'Authorization: Bearer KEY'"),
        401);
    reply.headers.emplace_back("WWW-Authenticate", "Bearer");
    return reply;
  }
  if (const auto refused = quotas_->Admit(call.client.limits, std::chrono::steady_clock::now())) {
    HttpReply reply = JsonReply(ErrorJson("rate_limit_exceeded", refused->why), 429);
    reply.headers.emplace_back("Retry-After", std::to_string(refused->seconds));
    return reply;
  }
  return std::nullopt;
}

std::optional<HttpReply> Api::FindRoute(const HttpRequest& head, Call& call) const {
  std::string allowed;
  for (const Route& route : Table()) {
    if (!Matches(route.path, head.path, &call.names)) continue;
    call.access->route = route.path;
    if (route.path.starts_with(kMemoryPrefix)) call.access->memory = call.names[0];
    if (route.method != head.method) {
      allowed += (allowed.empty() ? "" : ", ") + std::string(route.method);
      continue;
    }
    if (call.scope < route.scope) return call.Forbidden(route.scope);
    if (!call.client.tenant().empty() && !route.for_tenants) {
      return JsonReply(
          ErrorJson("permission_error",
                    "this covers all tenants and is only for the operator of the server"),
          403);
    }
    if (route.path.starts_with(kMemoryPrefix)) {
      Result<std::string> memory = call.client.MemoryName(call.names[0]);
      if (!memory.ok()) return ErrorReply(memory.status());
      call.names[0] = std::move(*memory);
    }
    call.route = &route;
    return std::nullopt;
  }
  if (allowed.empty())
    return JsonReply(ErrorJson("not_found", "there is no such route; docs/api.md lists the routes"),
                     404);
  HttpReply reply =
      JsonReply(ErrorJson("invalid_request_error",
                          "this route does not take " + head.method + "; it takes " + allowed),
                405);
  reply.headers.emplace_back("Allow", allowed);
  return reply;
}

EngineTask Api::Guarded(std::shared_ptr<HttpExchange> exchange, EngineTask work) {
  return [this, exchange = std::move(exchange), work = std::move(work)](Engine& engine,
                                                                        bool exclusive) {
    Continuation rest;
    RunGuarded(*exchange, [&] { rest = work(engine, exclusive); });
    ReportNotes(engine);
    if (rest.run) rest.run = Guarded(exchange, std::move(rest.run));
    return rest;
  };
}

void Api::Queue(Call& call, EngineTask work, bool concurrent, const std::string& memory,
                Deadline deadline) {
  const auto run = [deadline, exchange = call.exchange,
                    work = Guarded(call.exchange, std::move(work))](
                       Engine& engine, bool exclusive) -> Continuation {
    if (exchange->gone()) return {};
    if (deadline.has_value() && std::chrono::steady_clock::now() >= *deadline) {
      exchange->Respond(
          ErrorReply(DeadlineExceeded("the timeout passed while the request waited for others; "
                                      "set a longer timeout, or retry later")));
      return {};
    }
    return work(engine, exclusive);
  };
  const Status queued = concurrent ? queue_->AskConcurrent(run, call.client.tenant(), memory)
                                   : queue_->AskExclusive(run, call.client.tenant());
  if (!queued.ok()) call.exchange->Respond(NotQueuedReply(queued));
}

EngineTask Api::Answering(std::shared_ptr<HttpExchange> exchange,
                          std::function<Result<HttpReply>(Engine&)> work) {
  return [this, exchange = std::move(exchange), work = std::move(work)](
             Engine& engine, bool exclusive) -> Continuation {
    Result<HttpReply> reply = work(engine);
    if (!exclusive && NeedsExclusiveEngine(reply.status()))
      return {.run = Answering(exchange, work), .exclusive = true};
    exchange->Respond(reply.ok() ? std::move(*reply) : ErrorReply(Redact(reply.status())));
    return {};
  };
}

void Api::ReadEngine(Call& call, const std::string& memory,
                     std::function<Result<HttpReply>(Engine&)> work, Deadline deadline) {
  Queue(call, Answering(call.exchange, std::move(work)), /*concurrent=*/true, memory, deadline);
}

void Api::OnEngine(Call& call, std::function<Result<HttpReply>(Engine&)> work, Deadline deadline) {
  Queue(call, Answering(call.exchange, std::move(work)), /*concurrent=*/false, "", deadline);
}

void Api::AuditKeyChanges(const KeyChanges& changes) const {
  const auto names = [](const std::vector<std::string>& keys) {
    json::array list;
    for (const std::string& key : keys) list.push_back(JsonString(key));
    return list;
  };
  options_.audit->Write(DumpJson(json::object{{"time", UtcTime()},
                                              {"event", "keys"},
                                              {"added", names(changes.added)},
                                              {"removed", names(changes.removed)},
                                              {"changed", names(changes.changed)}}));
}

Status Api::Redact(const Status& status) const { return Redacted(status, options_.home); }

void Api::Spend(const TenantLimits& limits, uint64_t tokens) {
  quotas_->Spend(limits, tokens, std::chrono::steady_clock::now());
}

void Api::ReportNotes(Engine& engine) const {
  for (const std::string& note : engine.TakeNotes()) options_.note(note);
}

// ------------------------------------------------------------------------------------------------
// the server

void Api::Health(Call& call) { call.exchange->Respond(JsonReply("{\"status\":\"ok\"}")); }

void Api::Ready(Call& call) {
  if (draining_) return call.Fail(Unavailable("the server is stopping"));
  call.exchange->Respond(JsonReply("{\"status\":\"ready\"}"));
}

void Api::ShowMetrics(Call& call) {
  metrics_->Waiting(queue_->questions(), queue_->ingests());
  if (options_.budget != nullptr) metrics_->Budget(*options_.budget);
  metrics_->Tiers(queue_->engine().opens(), options_.stores->WriteStalls());
  if (options_.measure) options_.measure(*metrics_);
  MeasureDisk();
  call.exchange->Respond({.status = 200,
                          .content_type = "text/plain; version=0.0.4; charset=utf-8",
                          .body = metrics_->Text(),
                          .headers = {}});
}

void Api::MeasureDisk() {
  if (UnixSeconds() < disk_measured_ + kDiskSeconds) return;
  disk_measured_ = UnixSeconds();
  // Walking a directory with many memories takes a while.
  (void)jobs_->Add([this] { metrics_->DiskBytes(StoredBytes(*options_.stores)); }, "");
}

void Api::Models(Call& call) {
  ReadEngine(call, "", [this, client = call.client](Engine& engine) -> Result<HttpReply> {
    LH_ASSIGN_OR_RETURN(const std::vector<MemoryInfo> memories, engine.List(client.tenant()));
    std::vector<std::string> names;
    for (const MemoryInfo& memory : memories) {
      if (memory.status.ok() && memory.model_fingerprint == options_.fingerprint)
        names.push_back(client.Shown(memory.name));
    }
    return JsonReply(ModelsJson(options_.model, names, options_.embedder_name, UnixSeconds()));
  });
}

// ------------------------------------------------------------------------------------------------
// questions

namespace {

Status CheckQuery(std::string_view name, const std::string& query) {
  return query.size() <= kQueryBytesMax
             ? OkStatus()
             : BadField(name, "is longer than 64 KiB; ingest long texts as documents");
}

}  // namespace

void Api::Recall(Call& call) {
  std::string query;
  RecallOptions options;
  double timeout_s = 0;
  const auto read = [&]() -> Status {
    LH_ASSIGN_OR_RETURN(const json::object body, ParseJsonObject(call.request.body));
    LH_ASSIGN_OR_RETURN(query, StringField(body, "query"));
    LH_RETURN_IF_ERROR(CheckQuery("query", query));
    LH_ASSIGN_OR_RETURN(options, RecallFields(body));
    LH_ASSIGN_OR_RETURN(options.explain, FlagField(body, "explain", options.explain));
    LH_ASSIGN_OR_RETURN(timeout_s, TimeoutField(body));
    return OkStatus();
  };
  if (const Status status = read(); !status.ok()) return call.Fail(status);
  ReadEngine(
      call, call.names[0],
      [this, memory = call.names[0], limits = call.client.limits, query,
       options](Engine& engine) -> Result<HttpReply> {
        LH_ASSIGN_OR_RETURN(const RecallReply reply, engine.Recall(memory, query, options));
        metrics_->Recall(reply);
        Spend(limits, reply.prompt_tokens);
        return JsonReply(RecallJson(reply));
      },
      DeadlineIn(timeout_s));
}

void Api::Ask(Call& call) {
  std::string question;
  AskOptions options;
  Deadline deadline;
  const auto read = [&]() -> Status {
    LH_ASSIGN_OR_RETURN(const json::object body, ParseJsonObject(call.request.body));
    LH_ASSIGN_OR_RETURN(question, StringField(body, "question"));
    LH_RETURN_IF_ERROR(CheckQuery("question", question));
    LH_ASSIGN_OR_RETURN(options.system, StringField(body, "system"));
    LH_ASSIGN_OR_RETURN(options.answer_prefix, StringField(body, "answer_prefix"));
    LH_ASSIGN_OR_RETURN(const int64_t tokens,
                        IntegerField(body, "max_tokens", 1, 100000, options.max_tokens));
    options.max_tokens = static_cast<uint32_t>(tokens);
    LH_ASSIGN_OR_RETURN(options.attend, AttendFields(body));
    LH_ASSIGN_OR_RETURN(const bool inline_citations, FlagField(body, "inline_citations", false));
    LH_ASSIGN_OR_RETURN(const double timeout_s, TimeoutField(body));
    deadline = DeadlineIn(timeout_s);
    if (!options.is_faithful()) {
      options.focused().inline_citations = inline_citations;
      options.focused().deadline = deadline;
    }
    LH_ASSIGN_OR_RETURN(const double temperature, NumberField(body, "temperature", 0, 2, 0));
    options.sampler.temperature = static_cast<float>(temperature);
    LH_ASSIGN_OR_RETURN(const int64_t seed, IntegerField(body, "seed", INT32_MIN, UINT32_MAX, 1));
    options.sampler.seed = static_cast<uint32_t>(seed);
    return OkStatus();
  };
  if (const Status status = read(); !status.ok()) return call.Fail(status);
  // Ends the answer when the client disconnects. The flag lives as long as the exchange.
  const auto answer = [this, memory = call.names[0], limits = call.client.limits, question, options,
                       exchange = call.exchange](Engine& engine) mutable -> Result<HttpReply> {
    options.stop = &exchange->gone();
    LH_ASSIGN_OR_RETURN(const AskReply reply, engine.Ask(memory, question, options));
    metrics_->Answer(reply);
    Spend(limits, reply.prompt_tokens + reply.completion_tokens);
    return JsonReply(AskJson(reply));
  };
  if (!options.is_faithful()) return ReadEngine(call, call.names[0], answer, deadline);
  // faithful attention needs more memory than recalled spans, so it runs exclusively
  OnEngine(call, answer, deadline);
}

// ------------------------------------------------------------------------------------------------
// ingests

void Api::ListIngests(Call& call) {
  json::array all;
  for (IngestJob& job : queue_->Ingests()) {
    if (!call.client.Owns(job.memory)) continue;
    job.status = Redact(job.status);
    all.push_back(IngestObject(job, call.client.Shown(job.memory)));
  }
  call.exchange->Respond(JsonReply(DumpJson(json::object{{"ingests", std::move(all)}})));
}

namespace {

// Parses an ingest id: "ingest-12" is 12. Returns 0 when it is malformed.
uint64_t ParseIngestId(std::string_view text) {
  constexpr std::string_view kPrefix = "ingest-";
  if (!text.starts_with(kPrefix)) return 0;
  text.remove_prefix(kPrefix.size());
  if (text.empty() || text.size() > 18) return 0;
  uint64_t id = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return 0;
    id = 10 * id + static_cast<uint64_t>(c - '0');
  }
  return id;
}

Status UnknownIngest(const std::string& id) {
  return NotFound("ingest '" + id +
                  "' is not known; ingests that ended before the server started are not listed");
}

}  // namespace

void Api::ShowIngest(Call& call) {
  std::optional<IngestJob> job = queue_->Find(ParseIngestId(call.names[0]));
  if (!job.has_value() || !call.client.Owns(job->memory))
    return call.Fail(UnknownIngest(call.names[0]));
  call.access->memory = call.client.Shown(job->memory);
  job->status = Redact(job->status);
  call.exchange->Respond(JsonReply(DumpJson(IngestObject(*job, call.client.Shown(job->memory)))));
}

void Api::CancelIngest(Call& call) {
  const uint64_t id = ParseIngestId(call.names[0]);
  std::optional<IngestJob> job = queue_->Find(id);
  if (!job.has_value() || !call.client.Owns(job->memory))
    return call.Fail(UnknownIngest(call.names[0]));
  call.access->memory = call.client.Shown(job->memory);
  const bool cancelled = queue_->Cancel(id);
  job = queue_->Find(id).value_or(*job);
  if (!cancelled)
    return call.Fail(FailedPrecondition(
        "ingest '" + call.names[0] + "' has already ended: " + std::string(StateName(job->state))));
  job->status = Redact(job->status);
  call.exchange->Respond(
      JsonReply(DumpJson(IngestObject(*job, call.client.Shown(job->memory))), 202));
}

}  // namespace longhold
