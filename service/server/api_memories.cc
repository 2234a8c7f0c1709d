// The routes of memories, of their documents and of uploads.
#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <chrono>
#include <memory>
#include <span>
#include <utility>

#include "service/common/render.h"
#include "service/common/text_input.h"
#include "service/server/api_call.h"
#include "service/server/contained_path.h"

namespace longhold {

namespace json = boost::json;

namespace {

constexpr size_t kDocumentNameMax = 1024;
constexpr uint64_t kBytesPerToken = 4;  // estimate for a text that is not tokenized yet
// limit for a text from an upload or a file, which waits in RAM
constexpr uint64_t kFileTextMax = 128ull << 20;
// Memory budget of the engine of a job, which has no model: a share of the server's budget.
constexpr uint64_t kJobShare = 5, kJobBudgetMin = 32ull << 20, kJobBudgetMax = 256ull << 20;
constexpr size_t kOperatorExports = 4;    // concurrent exports; a tenant has one
constexpr size_t kPieceBytes = 64 << 10;  // of an export, written at once
// The version of the tus protocol, whose clients can use these routes
// (https://tus.io/protocols/resumable-upload).
constexpr const char* kTusVersion = "1.0.0";

// Parses the value of a header: digits only. Errors: invalid_argument, with the name of the header.
Result<uint64_t> ParseCount(const std::string& name, const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    return InvalidArgument(name + ": must be a number of bytes");
  return value;
}

json::object UploadObject(const Upload& upload) {
  return {{"id", JsonString(upload.id)}, {"length", upload.length}, {"offset", upload.offset}};
}

HttpReply UploadReply(const Upload& upload, unsigned status) {
  HttpReply reply = JsonReply(status == 204 ? "" : DumpJson(UploadObject(upload)), status);
  reply.headers = {{"Tus-Resumable", kTusVersion},
                   {"Upload-Offset", std::to_string(upload.offset)},
                   {"Upload-Length", std::to_string(upload.length)}};
  if (status == 201) reply.headers.emplace_back("Location", "/v1/uploads/" + upload.id);
  return reply;
}

Result<std::string> ReadWhole(const ByteSource& source, const std::string& name,
                              uint64_t bytes_max) {
  std::string text;
  for (;;) {
    const size_t used = text.size();
    text.resize(used + kPieceBytes);
    LH_ASSIGN_OR_RETURN(const size_t n, source(std::span(text).subspan(used)));
    text.resize(used + n);
    if (n == 0) return text;
    if (text.size() > bytes_max)
      return ResourceExhausted(name + ": more than " + std::to_string(bytes_max) +
                               " bytes; split it into several parts");
  }
}

Status Stopping() { return Unavailable("the server is stopping; retry later"); }

}  // namespace

uint64_t Api::JobBudget() const {
  return options_.budget == nullptr
             ? kJobBudgetMax
             : std::clamp(options_.budget->limit_bytes() / kJobShare, kJobBudgetMin, kJobBudgetMax);
}

Result<Api::JobEngine> Api::NewJobEngine(uint64_t bytes) const {
  JobEngine own;
  if (options_.budget != nullptr) {
    LH_ASSIGN_OR_RETURN(own.memory,
                        options_.budget->Reserve(bytes, "an export, an import or a verify"));
  }
  own.engine = std::make_unique<Engine>(
      options_.stores,
      EngineOptions{.memory_budget_bytes = bytes, .encryption_key = options_.encryption_key});
  return own;
}

std::shared_ptr<void> Api::BeginExport(const std::string& tenant) {
  const std::lock_guard lock(exports_mutex_);
  if (exports_.count(tenant) >= (tenant.empty() ? kOperatorExports : 1)) return nullptr;
  const auto own = exports_.insert(tenant);
  return {static_cast<void*>(this), [this, own](void*) {
            const std::lock_guard end(exports_mutex_);
            exports_.erase(own);
          }};
}

void Api::OnJob(Call& call, std::function<void()> work) {
  const Status taken = jobs_->Add(
      [this, exchange = call.exchange, work = std::move(work)] {
        if (exchange->gone()) return;
        if (jobs_->stopping()) return exchange->Respond(ErrorReply(Stopping()));
        RunGuarded(*exchange, work);
      },
      call.client.tenant());
  if (!taken.ok()) call.exchange->Respond(NotQueuedReply(taken));
}

// ------------------------------------------------------------------------------------------------
// memories

void Api::CreateMemory(Call& call) {
  std::string shown, memory, codec;
  const auto read = [&]() -> Status {
    LH_ASSIGN_OR_RETURN(const json::object body, ParseJsonObject(call.request.body));
    LH_ASSIGN_OR_RETURN(shown, StringField(body, "name"));
    LH_ASSIGN_OR_RETURN(codec, StringField(body, "codec"));
    LH_ASSIGN_OR_RETURN(memory, call.client.MemoryName(shown));
    call.access->memory = shown;
    return OkStatus();
  };
  if (const Status status = read(); !status.ok()) return call.Fail(status);
  OnEngine(
      call,
      [limits = call.client.limits, shown, memory, codec](Engine& engine) -> Result<HttpReply> {
        LH_RETURN_IF_ERROR(RoomFor(engine, limits, memory, "").status());
        LH_RETURN_IF_ERROR(engine.Create(memory, codec));
        LH_ASSIGN_OR_RETURN(MemoryInfo info, engine.Show(memory));
        info.name = shown;
        HttpReply reply = JsonReply(ShowJson(info), 201);
        reply.headers.emplace_back("Location", "/v1/memories/" + shown);
        return reply;
      });
}

void Api::ShowTiers(Call& call) {
  ReadEngine(call, "",
             [client = call.client, name = call.names[0]](Engine& engine) -> Result<HttpReply> {
               LH_ASSIGN_OR_RETURN(const TierReport report, engine.Tiers(name));
               return JsonReply(TiersJson(client.Shown(name), report));
             });
}

void Api::VerifyMemory(Call& call) {
  OnJob(call, [this, exchange = call.exchange, client = call.client, name = call.names[0]] {
    const Result<JobEngine> own = NewJobEngine(JobBudget());
    if (!own.ok()) return exchange->Respond(ErrorReply(own.status()));
    Engine& engine = *own->engine;
    const Status status = engine.Verify(name);
    if (status.ok() || status.code() == StatusCode::kDataLoss) metrics_->Verified(status.ok());
    if (!status.ok() && status.code() != StatusCode::kDataLoss)
      return exchange->Respond(ErrorReply(Redact(status)));
    Result<MemoryInfo> info = engine.Show(name);
    MemoryInfo shown = info.ok() ? std::move(*info) : MemoryInfo{};
    shown.name = client.Shown(name);
    shown.status = status.ok() ? info.status() : Redact(status);
    exchange->Respond(JsonReply(VerifyJson(shown)));
  });
}

// An export in progress. While the client receives slowly, it waits without a thread.
struct Api::Exporting {
  std::shared_ptr<HttpExchange> exchange;
  std::string memory, tenant;
  bool head_only = false;
  std::shared_ptr<void> slot;  // of BeginExport
  JobEngine own;
  std::unique_ptr<MemoryExport> stream;
  std::string bytes;   // the current bytes of the stream
  size_t written = 0;  // how many of them are written
  bool begun = false;  // the reply has begun
};

void Api::ExportMemory(Call& call) {
  OnJob(call, [this, exchange = call.exchange, name = call.names[0], tenant = call.client.tenant(),
               head_only = call.request.head_only] {
    // A slow client holds the resources of its export for a long time. So they are small, and the
    // number of exports is limited.
    std::shared_ptr<void> slot = BeginExport(tenant);
    if (slot == nullptr)
      return exchange->Respond(NotQueuedReply(ResourceExhausted(
          "an export is already running; receive it first, or close its connection")));
    Result<JobEngine> own = NewJobEngine(kJobBudgetMin);
    if (!own.ok()) return exchange->Respond(ErrorReply(own.status()));
    Result<std::unique_ptr<MemoryExport>> stream = own->engine->OpenExport(name);
    if (!stream.ok()) return exchange->Respond(ErrorReply(Redact(stream.status())));
    ContinueExport(std::make_shared<Exporting>(Exporting{.exchange = exchange,
                                                         .memory = name,
                                                         .tenant = tenant,
                                                         .head_only = head_only,
                                                         .slot = std::move(slot),
                                                         .own = std::move(*own),
                                                         .stream = std::move(*stream),
                                                         .bytes = {}}));
  });
}

void Api::ContinueExport(const std::shared_ptr<Exporting>& e) {
  const auto resume = [this, e] {
    jobs_->Resume([this, e] { RunGuarded(*e->exchange, [&] { ContinueExport(e); }); }, e->tenant);
  };
  while (!e->exchange->gone()) {
    if (e->written == e->bytes.size()) {
      Result<std::string> next = e->stream->Next();
      // A broken connection tells the client that the export is incomplete.
      if (!next.ok() && e->begun) return e->exchange->Break();
      if (!next.ok())
        return e->exchange->Respond(ErrorReply(Redact(
            Status(next.status().code(), "memory " + e->memory + ": " + next.status().message()))));
      if (!e->begun) e->exchange->BeginBytes("application/octet-stream");
      e->begun = true;
      e->bytes = std::move(*next);
      e->written = 0;
      if (e->head_only || e->bytes.empty()) return e->exchange->EndStream();
    }
    const std::string piece = e->bytes.substr(e->written, kPieceBytes);
    if (!e->exchange->WriteBytes(piece, resume)) return;
    e->written += piece.size();
  }
}

void Api::ImportMemory(Call& call) {
  std::string id;
  const auto read = [&]() -> Status {
    if (call.request.content_type == "application/octet-stream") return OkStatus();
    if (call.request.content_type != "application/json") {
      return InvalidArgument("Content-Type '" + call.request.content_type +
                             "': send application/octet-stream, or application/json with upload");
    }
    LH_ASSIGN_OR_RETURN(const json::object body, ParseJsonObject(call.request.body));
    LH_ASSIGN_OR_RETURN(id, StringField(body, "upload"));
    return id.empty() ? BadField("upload", "must be the id of an upload") : OkStatus();
  };
  if (const Status status = read(); !status.ok()) return call.Fail(status);
  const auto bytes =
      std::make_shared<std::string>(id.empty() ? std::move(call.request.body) : std::string());
  OnJob(call,
        [this, exchange = call.exchange, client = call.client, name = call.names[0], id, bytes] {
          const auto import = [&]() -> Result<MemoryInfo> {
            LH_ASSIGN_OR_RETURN(const JobEngine own, NewJobEngine(JobBudget()));
            Engine& engine = *own.engine;
            LH_ASSIGN_OR_RETURN(const TenantRoom room, RoomFor(engine, client.limits, name, ""));
            ByteSource upload;
            if (!id.empty()) {
              LH_ASSIGN_OR_RETURN(upload, uploads_.Open(id, client.tenant()));
            }
            size_t at = 0;
            LH_RETURN_IF_ERROR(engine
                                   .Import(
                                       [&](std::span<char> out) -> Result<size_t> {
                                         if (jobs_->stopping()) return Stopping();
                                         if (exchange->gone())
                                           return Cancelled("the client has disconnected");
                                         if (upload) return upload(out);
                                         const size_t n = std::min(out.size(), bytes->size() - at);
                                         std::copy_n(bytes->data() + at, n, out.data());
                                         at += n;
                                         return n;
                                       },
                                       name,
                                       {.bytes_max = room.disk_bytes,
                                        .documents_max = room.documents,
                                        .model = &queue_->engine().model_info()})
                                   .status());
            return engine.Show(name);
          };
          Result<MemoryInfo> info = import();
          // A damaged file is an error of the client.
          if (info.status().code() == StatusCode::kDataLoss)
            return exchange->Respond(ErrorReply(InvalidArgument(Redact(info.status()).message())));
          if (!info.ok()) return exchange->Respond(ErrorReply(Redact(info.status())));
          if (!id.empty()) (void)uploads_.Remove(id, client.tenant());
          info->name = client.Shown(name);
          HttpReply reply = JsonReply(ShowJson(*info), 201);
          reply.headers.emplace_back("Location", "/v1/memories/" + info->name);
          exchange->Respond(std::move(reply));
        });
}

void Api::ListMemories(Call& call) {
  ReadEngine(call, "", [client = call.client](Engine& engine) -> Result<HttpReply> {
    LH_ASSIGN_OR_RETURN(std::vector<MemoryInfo> memories, engine.List(client.tenant()));
    for (MemoryInfo& memory : memories) memory.name = client.Shown(memory.name);
    return JsonReply("{\"memories\":" + ListJson(memories) + "}");
  });
}

void Api::ShowMemory(Call& call) {
  ReadEngine(call, "",
             [client = call.client, name = call.names[0]](Engine& engine) -> Result<HttpReply> {
               LH_ASSIGN_OR_RETURN(MemoryInfo info, engine.Show(name));
               info.name = client.Shown(info.name);
               return JsonReply(ShowJson(info));
             });
}

void Api::ForgetMemory(Call& call) {
  OnEngine(call, [client = call.client, name = call.names[0]](Engine& engine) -> Result<HttpReply> {
    LH_RETURN_IF_ERROR(engine.Forget(name, "", true));
    return JsonReply(ForgetJson(client.Shown(name), "", true));
  });
}

void Api::ForgetDocument(Call& call) {
  OnEngine(call,
           [client = call.client, name = call.names[0],
            document = call.names[1]](Engine& engine) -> Result<HttpReply> {
             if (document.empty()) return InvalidArgument("the name of the document is empty");
             const Status forgotten = engine.Forget(name, document, true);
             engine.CloseMemory();  // allows writes of other processes
             LH_RETURN_IF_ERROR(forgotten);
             return JsonReply(ForgetJson(client.Shown(name), document, true));
           });
}

void Api::AddDocument(Call& call) {
  const std::string& memory = call.names[0];
  IngestInput input;
  std::string upload, path;
  const auto read = [&]() -> Status {
    if (call.request.content_type == "application/json") {
      LH_ASSIGN_OR_RETURN(const json::object body, ParseJsonObject(call.request.body));
      LH_ASSIGN_OR_RETURN(input.name, StringField(body, "name"));
      LH_ASSIGN_OR_RETURN(input.text, StringField(body, "text"));
      LH_ASSIGN_OR_RETURN(upload, StringField(body, "upload"));
      LH_ASSIGN_OR_RETURN(path, StringField(body, "path"));
      if (!input.text.empty() + !upload.empty() + !path.empty() > 1)
        return BadField("text", "must be the only one of text, upload and path");
      if (!path.empty() && options_.ingest_root.empty())
        return BadField("path",
                        "names a file of the server, which is not allowed; "
                        "'longhold serve --ingest-root DIR' allows it");
      if (input.name.empty()) input.name = path;
    } else if (call.request.content_type == "text/plain") {
      input.name = call.request.query["name"];
      input.text = std::move(call.request.body);
    } else {
      return InvalidArgument(
          "Content-Type '" + call.request.content_type +
          "': send text/plain with ?name=NAME, or application/json with name and text");
    }
    if (input.name.empty() || input.name.size() > kDocumentNameMax)
      return BadField("name", "must have 1 to 1024 bytes");
    LH_RETURN_IF_ERROR(CheckText("name", input.name));
    return upload.empty() && path.empty() ? CheckText(input.name, input.text) : OkStatus();
  };
  if (const Status status = read(); !status.ok()) return call.Fail(status);
  if (!path.empty() && !call.client.tenant().empty()) {
    return call.exchange->Respond(
        JsonReply(ErrorJson("permission_error",
                            "only the operator may name files of the server; send the text"),
                  403));
  }
  if (upload.empty() && path.empty())
    return TakeText(call.exchange, call.client, memory, std::move(input), "");
  OnJob(call, [this, exchange = call.exchange, client = call.client, memory, input, upload,
               path]() mutable {
    const auto read_file = [&]() -> Result<std::string> {
      if (!path.empty()) return ReadContained(options_.ingest_root, path, kFileTextMax);
      LH_ASSIGN_OR_RETURN(const ByteSource source, uploads_.Open(upload, client.tenant()));
      return ReadWhole(source, "upload '" + upload + "'", kFileTextMax);
    };
    Result<std::string> text = read_file();
    Status status = text.status();
    if (status.ok()) status = CheckText(input.name, *text);
    // Too long a text is a permanent error: retrying does not help.
    if (status.code() == StatusCode::kResourceExhausted) status = InvalidArgument(status.message());
    if (!status.ok()) return exchange->Respond(ErrorReply(Redact(status)));
    input.text = std::move(*text);
    TakeText(exchange, client, memory, std::move(input), upload);
  });
}

std::function<Result<uint64_t>()> Api::DiskLimit(const TenantLimits& limits,
                                                 const std::string& memory) const {
  if (limits.disk_bytes == 0) return nullptr;
  return [this, most = limits.disk_bytes, tenant = limits.tenant, memory]() -> Result<uint64_t> {
    return most - std::min(most, queue_->engine().DiskBytes(tenant, memory));
  };
}

void Api::TakeText(const std::shared_ptr<HttpExchange>& exchange, const Client& client,
                   const std::string& memory, IngestInput input, const std::string& upload) {
  const uint64_t tokens = input.text.size() / kBytesPerToken;
  const std::string document = input.name;
  if (const uint64_t most = client.limits.disk_bytes; most > 0) {
    const std::string over_limit = " bytes, and the disk limit of tenant " + client.tenant() +
                                   " is " + std::to_string(most) + " bytes; ";
    if (input.text.size() > most) {
      return exchange->Respond(
          ErrorReply(FailedPrecondition(document + ": has " + std::to_string(input.text.size()) +
                                        over_limit + "ask the operator for a higher limit")));
    }
    const uint64_t waiting = queue_->WaitingBytes(client.tenant()) + input.text.size();
    if (waiting > most)
      return exchange->Respond(
          NotQueuedReply(ResourceExhausted("the queued texts have " + std::to_string(waiting) +
                                           over_limit + "send this one when they are ingested")));
  }
  input.disk_bytes_max = DiskLimit(client.limits, memory);
  const Status taken = queue_->Ingest(
      memory, std::move(input),
      [this, client, exchange, tokens, upload](const Result<IngestJob>& job) {
        if (!job.ok()) return exchange->Respond(ErrorReply(job.status()));
        if (!upload.empty()) (void)uploads_.Remove(upload, client.tenant());
        Spend(client.limits, tokens);
        HttpReply reply = JsonReply(DumpJson(IngestObject(*job, client.Shown(job->memory))), 202);
        reply.headers.emplace_back("Location", "/v1/ingests/" + IngestId(job->id));
        exchange->Respond(std::move(reply));
      },
      [limits = client.limits, memory, document](Engine& engine) {
        return RoomFor(engine, limits, memory, document).status();
      });
  if (!taken.ok()) exchange->Respond(NotQueuedReply(taken));
}

// ------------------------------------------------------------------------------------------------
// uploads

void Api::ListUploads(Call& call) {
  OnJob(call, [this, exchange = call.exchange, tenant = call.client.tenant()] {
    json::array all;
    for (const Upload& upload : uploads_.List(tenant)) all.push_back(UploadObject(upload));
    exchange->Respond(JsonReply(DumpJson(json::object{{"uploads", std::move(all)}})));
  });
}

void Api::CreateUpload(Call& call) {
  uint64_t length = 0;
  const auto read = [&]() -> Status {
    if (!call.request.upload_length.empty()) {
      LH_ASSIGN_OR_RETURN(length, ParseCount("Upload-Length", call.request.upload_length));
      return OkStatus();
    }
    LH_ASSIGN_OR_RETURN(const json::object body, ParseJsonObject(call.request.body));
    LH_ASSIGN_OR_RETURN(const int64_t bytes, IntegerField(body, "length", 0, INT64_MAX, 0));
    length = static_cast<uint64_t>(bytes);
    return OkStatus();
  };
  if (const Status status = read(); !status.ok()) return call.Fail(status);
  OnJob(call, [this, exchange = call.exchange, limits = call.client.limits, length] {
    const Result<Upload> upload = uploads_.Create(limits.tenant, length, limits.disk_bytes);
    exchange->Respond(upload.ok() ? UploadReply(*upload, 201)
                                  : NotQueuedReply(Redact(upload.status())));
  });
}

void Api::ShowUpload(Call& call) {
  OnJob(call, [this, exchange = call.exchange, tenant = call.client.tenant(), id = call.names[0]] {
    const Result<Upload> upload = uploads_.Find(id, tenant);
    exchange->Respond(upload.ok() ? UploadReply(*upload, 200) : ErrorReply(upload.status()));
  });
}

void Api::AppendUpload(Call& call) {
  if (call.request.content_type != "application/offset+octet-stream" &&
      call.request.content_type != "application/octet-stream") {
    return call.Fail(InvalidArgument(
        "Content-Type '" + call.request.content_type +
        "': a part of an upload must be application/offset+octet-stream, as in tus"));
  }
  const Result<uint64_t> offset = ParseCount("Upload-Offset", call.request.upload_offset);
  if (!offset.ok()) return call.Fail(offset.status());
  const auto bytes = std::make_shared<const std::string>(std::move(call.request.body));
  OnJob(call, [this, exchange = call.exchange, tenant = call.client.tenant(), id = call.names[0],
               offset = *offset, bytes] {
    const Result<Upload> upload = uploads_.Append(id, tenant, offset, *bytes);
    exchange->Respond(upload.ok() ? UploadReply(*upload, 204)
                                  : ErrorReply(Redact(upload.status())));
  });
}

void Api::RemoveUpload(Call& call) {
  OnJob(call, [this, exchange = call.exchange, tenant = call.client.tenant(), id = call.names[0]] {
    const Status removed = uploads_.Remove(id, tenant);
    if (!removed.ok()) return exchange->Respond(ErrorReply(Redact(removed)));
    HttpReply reply = JsonReply("", 204);
    reply.headers.emplace_back("Tus-Resumable", kTusVersion);
    exchange->Respond(std::move(reply));
  });
}

}  // namespace longhold
