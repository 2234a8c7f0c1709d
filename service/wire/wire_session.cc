#include "service/wire/wire_session.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <new>

#include "base/clock.h"
#include "base/hash.h"
#include "base/utf8.h"
#include "service/common/text_input.h"
#include "service/server/api_call.h"
#include "store/memory_name.h"

namespace longhold::wire {
namespace {

constexpr char kPingByte = 'p';
constexpr unsigned kUnauthorized = 401;  // as HTTP reports a missing key

// What a key needs for a request. Forgetting a whole memory needs more.
Scope ScopeOf(FrameType type) {
  switch (type) {
    case FrameType::kPutBegin:
    case FrameType::kPutRows:
    case FrameType::kPutFinish:
    case FrameType::kForget: return Scope::kWrite;
    default: return Scope::kRead;
  }
}

Status Forbidden(Scope needed, Scope has) { return FailedPrecondition(ScopeRefusal(needed, has)); }

// Pieces of one document's rows, and of a connection's life, are not reported one by one.
bool IsReported(FrameType type) {
  return type != FrameType::kPutRows && type != FrameType::kPing && type != FrameType::kHello;
}

// As FetchRequest and PutRowsRequest have them: the keys of a layer, its values, the next layer's.
template <typename Data, typename Byte>
struct Rows {
  std::vector<Data*> keys, values;
  KvLayout layout;
  KvArrays<Data> arrays() const { return {keys, values, layout}; }

  Rows(const KvGeometry& g, Byte* at, uint64_t tokens, bool float32, bool rotated)
      : layout{.token_stride = g.kv_width(),
               .head_stride = g.head_dim,
               .float32 = float32,
               .rotated = rotated} {
    const uint64_t bytes = tokens * g.kv_width() * (float32 ? sizeof(float) : sizeof(uint16_t));
    for (size_t l = 0; l < g.layers.size(); ++l) {
      keys.push_back(at);
      values.push_back(at + bytes);
      at += 2 * bytes;
    }
  }
};

uint64_t TokenBytes(const KvGeometry& g, bool float32) {
  return 2 * g.layers.size() * g.kv_width() * (float32 ? sizeof(float) : sizeof(uint16_t));
}

}  // namespace

Reply ErrorFrame(uint64_t request_id, const Status& status, bool close) {
  Reply reply;
  reply.frame = EncodeFrame(FrameType::kError, 0, request_id, Encode(ErrorReply{status}));
  reply.close = close;
  return reply;
}

Session::Session(Service* service, Peer peer) : service_(service), peer_(std::move(peer)) {}

Session::~Session() {
  writers_.clear();
  for (const Made& made : made_) PunchOut(made.memfd->get(), made.bytes);
}

Result<Caller> Session::Authenticate(std::string_view key) {
  const Scope without_keys = !peer_.local      ? service_->options().without_keys
                             : peer_.same_user ? Scope::kAdmin
                                               : Scope::kNone;
  Result<Caller> caller = service_->keys().CallerOfKey(key, UnixSeconds(), without_keys);
  if (!caller.ok()) {
    service_->options().note(caller.status().message());
    return Internal("the server cannot read its keys; its log says why");
  }
  if (caller->scope == Scope::kNone)
    return FailedPrecondition("the key is missing, unknown or expired; send it with hello");
  return caller;
}

Reply Session::Greet(const Request& request) {
  const uint64_t id = request.header.request_id;
  const Status intact = CheckMessage(request.header, request.message.text());
  if (!intact.ok()) return ErrorFrame(id, intact, true);
  if (request.header.type != FrameType::kHello || greeted_)
    return ErrorFrame(id, FailedPrecondition("the first request, and only it, is hello"), true);
  Result<HelloRequest> hello = DecodeAs<HelloRequest>(request.message.text());
  if (!hello.ok()) return ErrorFrame(id, hello.status(), true);
  if (hello->version == 0)
    return ErrorFrame(id, InvalidArgument("version: is 0, and the first version is 1"), true);
  key_ = hello->key.empty() ? Secret() : Secret(hello->key);
  Wipe(&hello->key);
  Result<Caller> caller = Authenticate(key_.view());
  if (!caller.ok()) {
    if (const auto record = NewRecord(FrameType::kHello, id)) record->End(kUnauthorized);
    return ErrorFrame(id, caller.status(), true);
  }
  caller_ = std::move(*caller);
  greeted_ = true;
  const HelloReply reply{.version = std::min<uint32_t>(hello->version, kProtocolVersion),
                         .server = "longhold " + service_->options().version,
                         .payload_bytes_max = kPayloadBytesMax,
                         .writers_max = kWritersMax,
                         .memfd = peer_.local};
  Reply out;
  out.frame = EncodeFrame(ReplyTo(FrameType::kHello), 0, id, Encode(reply));
  return out;
}

std::unique_ptr<RequestRecord> Session::NewRecord(FrameType type, uint64_t request_id) const {
  if (service_->options().sinks.metrics == nullptr) return nullptr;
  HttpRequest head;
  head.method = "WIRE";
  head.id = std::to_string(request_id);
  head.peer = peer_.name;
  auto record = std::make_unique<RequestRecord>(&service_->options().sinks, head);
  record->access()->unauthenticated = !greeted_;
  record->access()->key = caller_.key;
  record->access()->tenant = caller_.limits.tenant;
  record->access()->route = RouteOf(type);
  return record;
}

Status Session::Admit(const FrameHeader& header) {
  if (!IsRequest(header.type))
    return InvalidArgument("frame " + std::string(TypeName(header.type)) +
                           ": is a reply, which only a server sends");
  if (!peer_.local && header.flags != 0)
    return InvalidArgument("a memfd can be passed over a Unix socket only");
  if (!greeted_) {
    return header.type == FrameType::kHello ? OkStatus()
                                            : FailedPrecondition("the first request must be hello");
  }
  LH_ASSIGN_OR_RETURN(Caller caller, Authenticate(key_.view()));
  if (caller.limits.tenant != caller_.limits.tenant)
    return FailedPrecondition("the key belongs to another tenant now; connect again");
  caller_ = std::move(caller);
  const Scope needed = ScopeOf(header.type);
  return caller_.scope < needed ? Forbidden(needed, caller_.scope) : OkStatus();
}

Status Session::Count(FrameType type) {
  // The rows of a document belong to one request, as its text does over HTTP.
  if (type == FrameType::kPutRows || type == FrameType::kPutFinish ||
      service_->options().quotas == nullptr)
    return OkStatus();
  const auto refused =
      service_->options().quotas->Admit(caller_.limits, std::chrono::steady_clock::now());
  if (!refused.has_value()) return OkStatus();
  return ResourceExhausted(refused->why + "; retry in " + std::to_string(refused->seconds) + " s");
}

Reply Session::Handle(Request request) {
  const FrameType type = request.header.type;
  const uint64_t id = request.header.request_id;
  const Status intact = CheckMessage(request.header, request.message.text());
  if (!intact.ok()) return ErrorFrame(id, intact, true);
  memory_.clear();
  const std::unique_ptr<RequestRecord> record = IsReported(type) ? NewRecord(type, id) : nullptr;
  const auto work = [&]() -> Result<Reply> {
    try {
      LH_ASSIGN_OR_RETURN(Answer answer, Dispatch(request));
      if (answer.message.size() > MessageBytesMax(ReplyTo(type)))
        return ResourceExhausted("the reply is too long; ask for less");
      return ReplyWith(request.header, std::move(answer));
    } catch (const std::bad_alloc&) {
      return ResourceExhausted("out of memory; send a smaller request");
    } catch (const std::exception& error) {
      return Internal(std::string("internal error: ") + error.what());
    }
  };
  Result<Reply> reply = work();
  mapped_.Release();
  const Status status = Redacted(reply.status(), service_->options().home);
  if (record != nullptr) {
    record->access()->memory = memory_;
    record->End(status.ok() ? 200 : longhold::ErrorReply(status).status);
  }
  return reply.ok() ? std::move(*reply) : ErrorFrame(id, status, false);
}

Result<Session::Answer> Session::Dispatch(Request& request) {
  switch (request.header.type) {
    case FrameType::kUseModel: return UseModel(request);
    case FrameType::kDescribeModel: return DescribeModel(request);
    case FrameType::kPutBegin: return PutBegin(request);
    case FrameType::kPutRows: return PutRows(request);
    case FrameType::kPutFinish: return PutFinish(request);
    case FrameType::kPlan: return Plan(request);
    case FrameType::kFetch: return Fetch(request);
    case FrameType::kTokens: return Tokens(request);
    case FrameType::kPrefix: return Prefix(request);
    case FrameType::kForget: return Forget(request);
    case FrameType::kStat: return Stat(request);
    case FrameType::kPing: return Ping(request);
    case FrameType::kHello:
    case FrameType::kError: break;
  }
  return FailedPrecondition("hello is the first request, and only it");
}

// ------------------------------------------------------------------------------------------------
// payloads

Result<std::span<const char>> Session::PayloadOf(Request& request) {
  if ((request.header.flags & kPayloadInMemfd) == 0)
    return std::span<const char>(request.payload.bytes());
  if (request.memfd == nullptr)
    return InvalidArgument("the payload is said to be in a memfd, and none came with the header");
  LH_ASSIGN_OR_RETURN(mapped_, Payload::Map(request.memfd->get(), request.header.payload_bytes,
                                            /*writable=*/false));
  return std::span<const char>(mapped_.bytes());
}

Result<Session::Room> Session::ReplyRoom(Request& request, uint64_t bytes) {
  if (bytes > kPayloadBytesMax) {
    return InvalidArgument("the reply's payload has " + std::to_string(bytes) +
                           " bytes; the limit is " + std::to_string(kPayloadBytesMax) +
                           ": ask for less at once");
  }
  Room room;
  const uint8_t flags = request.header.flags;
  if ((flags & kReplyInMemfd) != 0 && (flags & kPayloadInMemfd) == 0 && request.memfd != nullptr) {
    LH_ASSIGN_OR_RETURN(room.payload, Payload::Map(request.memfd->get(), bytes, /*writable=*/true));
    room.flags = kReplyInMemfd;
    return room;
  }
  if ((flags & kReplyInMemfd) != 0) {
    if (bytes > service_->options().memfd_bytes_max) {
      return InvalidArgument("a memfd of the server has at most " +
                             std::to_string(service_->options().memfd_bytes_max) +
                             " bytes; send one with the request, or ask for less at once");
    }
    // Takes the oldest ones back: the client was told that it has so many bytes at a time.
    while (!made_.empty() && made_bytes_ + bytes > service_->options().memfd_bytes_max) {
      PunchOut(made_.front().memfd->get(), made_.front().bytes);
      made_bytes_ -= made_.front().bytes;
      made_.pop_front();
    }
    LH_ASSIGN_OR_RETURN(room.bytes, service_->bytes().Take(peer_.name, bytes));
    LH_ASSIGN_OR_RETURN(FileDescriptor memfd, MakeMemfd(bytes));
    LH_ASSIGN_OR_RETURN(room.payload, Payload::Map(memfd.get(), bytes, /*writable=*/true));
    room.memfd = std::make_shared<const FileDescriptor>(std::move(memfd));
    room.flags = kPayloadInMemfd;
    return room;
  }
  LH_ASSIGN_OR_RETURN(room.bytes, service_->bytes().Take(peer_.name, bytes));
  LH_ASSIGN_OR_RETURN(room.payload, Payload::OfSize(bytes));
  return room;
}

Reply Session::ReplyWith(const FrameHeader& request, Answer answer) {
  Room& room = answer.room;
  Reply reply;
  reply.frame = EncodeFrame(ReplyTo(request.type), room.flags, request.request_id, answer.message,
                            room.payload.size());
  reply.memfd = room.memfd;
  if (room.memfd != nullptr) {
    made_bytes_ += room.payload.size();
    made_.push_back({room.memfd, room.payload.size(), std::move(room.bytes)});
  } else if (room.flags == 0) {
    reply.payload = std::move(room.payload);
    reply.bytes = std::move(room.bytes);
  }
  return reply;
}

// ------------------------------------------------------------------------------------------------
// the model

Result<Sidecars::Lease> Session::Model() {
  if (fingerprint_.empty())
    return FailedPrecondition("this connection has no model yet; send use model or describe model");
  return service_->sidecars().Open(tenant(), fingerprint_);
}

Result<Session::Answer> Session::ModelAnswer(const std::string& fingerprint) {
  if (!writers_.empty())
    return FailedPrecondition("the model can change when no document is being put");
  LH_ASSIGN_OR_RETURN(const Sidecars::Lease sidecar,
                      service_->sidecars().Open(tenant(), fingerprint));
  fingerprint_ = fingerprint;
  return Answer{Encode(ModelReply{.sink_tokens = sidecar->sink_tokens(),
                                  .window_tokens = sidecar->window_tokens()})};
}

Result<Session::Answer> Session::UseModel(Request& request) {
  LH_ASSIGN_OR_RETURN(const UseModelRequest m, DecodeAs<UseModelRequest>(request.message.text()));
  return ModelAnswer(m.fingerprint);
}

Result<Session::Answer> Session::DescribeModel(Request& request) {
  LH_ASSIGN_OR_RETURN(const DescribeModelRequest m,
                      DecodeAs<DescribeModelRequest>(request.message.text()));
  // It stands in lists and logs.
  if (FirstInvalidUtf8(m.model.name).has_value() || CollapseSpace(m.model.name) != m.model.name)
    return InvalidArgument("name: must be one line of printable text");
  LH_RETURN_IF_ERROR(service_->sidecars().Describe(tenant(), m));
  return ModelAnswer(m.model.fingerprint);
}

// ------------------------------------------------------------------------------------------------
// putting

Result<std::string> Session::MemoryName(const std::string& name) {
  memory_ = name;
  return Client{.limits = caller_.limits}.MemoryName(name);
}

Status Session::CheckTenantRoom(Sidecar& sidecar, const std::string& memory,
                                const std::string& document) {
  if (caller_.limits.documents == 0 && caller_.limits.disk_bytes == 0) return OkStatus();
  LH_ASSIGN_OR_RETURN(const std::vector<MemoryInfo> all, sidecar.List(tenant()));
  return RoomFor(all, caller_.limits, memory, document).status();
}

DiskBytesMax Session::DiskLimit(Sidecar* sidecar, const std::string& memory) const {
  return [this, sidecar, memory]() -> Result<uint64_t> {
    const uint64_t most = caller_.limits.disk_bytes;
    if (most == 0) return UINT64_MAX;
    return most - std::min(most, sidecar->DiskBytes(tenant(), memory));
  };
}

Result<Session::Writer*> Session::FindWriter(uint32_t id) {
  const auto found = writers_.find(id);
  if (found == writers_.end())
    return NotFound("writer " + std::to_string(id) + ": this connection has none of that number");
  memory_ = SplitMemoryName(found->second.memory).name;
  return &found->second;
}

void Session::TakeNotes(Sidecar& sidecar) {
  for (const std::string& note : sidecar.TakeNotes()) service_->options().note(note);
}

Result<Session::Answer> Session::PutBegin(Request& request) {
  LH_ASSIGN_OR_RETURN(const PutBeginRequest m, DecodeAs<PutBeginRequest>(request.message.text()));
  LH_ASSIGN_OR_RETURN(const std::string memory, MemoryName(m.memory));
  if (writers_.size() >= kWritersMax)
    return ResourceExhausted("this connection puts " + std::to_string(kWritersMax) +
                             " documents already; finish one, or use another connection");
  if (m.name.empty()) return InvalidArgument("name: is empty");
  LH_RETURN_IF_ERROR(CheckText("name", m.name));
  LH_RETURN_IF_ERROR(CheckText(m.name, m.text));
  LH_ASSIGN_OR_RETURN(Sidecars::Lease sidecar, Model());
  LH_RETURN_IF_ERROR(CheckTenantRoom(*sidecar, memory, m.name));
  Writer writer;
  writer.memory = memory;
  writer.sidecar = std::move(sidecar);
  LH_ASSIGN_OR_RETURN(
      writer.writer,
      writer.sidecar->Put(memory, {.name = m.name,
                                   .text = m.text,
                                   .tokens = m.tokens,
                                   .token_bytes = m.token_bytes,
                                   .disk_bytes_max = DiskLimit(writer.sidecar.get(), memory)}));
  const PutBeginReply reply{.writer = next_writer_++,
                            .document = writer.writer->document(),
                            .position = writer.writer->position()};
  if (service_->options().quotas != nullptr)
    service_->options().quotas->Spend(caller_.limits, m.tokens.size() - reply.position,
                                      std::chrono::steady_clock::now());
  TakeNotes(*writer.sidecar);
  writers_.emplace(reply.writer, std::move(writer));
  return Answer{Encode(reply)};
}

Result<Session::Answer> Session::PutRows(Request& request) {
  LH_ASSIGN_OR_RETURN(const PutRowsRequest m, DecodeAs<PutRowsRequest>(request.message.text()));
  LH_ASSIGN_OR_RETURN(Writer* const writer, FindWriter(m.writer));
  const KvGeometry& g = writer->sidecar->model().geometry;
  const uint64_t bytes = m.tokens * TokenBytes(g, m.float32);
  if (bytes != request.header.payload_bytes) {
    return InvalidArgument(std::to_string(m.tokens) + " rows of this model have " +
                           std::to_string(bytes) + " bytes, and the payload has " +
                           std::to_string(request.header.payload_bytes));
  }
  if (m.tokens > 0) {
    LH_ASSIGN_OR_RETURN(const std::span<const char> payload, PayloadOf(request));
    const Rows<const void, const char> rows(g, payload.data(), m.tokens, m.float32, m.rotated);
    LH_RETURN_IF_ERROR(writer->writer->Append(rows.arrays(), m.tokens, m.position));
  }
  return Answer{Encode(PutRowsReply{writer->writer->position()})};
}

Result<Session::Answer> Session::PutFinish(Request& request) {
  LH_ASSIGN_OR_RETURN(const PutFinishRequest m, DecodeAs<PutFinishRequest>(request.message.text()));
  LH_ASSIGN_OR_RETURN(Writer* const writer, FindWriter(m.writer));
  const Status finished = writer->writer->Finish();
  const uint64_t position = writer->writer->position();
  TakeNotes(*writer->sidecar);
  writers_.erase(m.writer);
  LH_RETURN_IF_ERROR(finished);
  return Answer{Encode(PutFinishReply{position})};
}

// ------------------------------------------------------------------------------------------------
// reading

Result<Session::Answer> Session::Plan(Request& request) {
  LH_ASSIGN_OR_RETURN(const PlanRequest m, DecodeAs<PlanRequest>(request.message.text()));
  LH_ASSIGN_OR_RETURN(const std::string memory, MemoryName(m.memory));
  if (FirstInvalidUtf8(m.question).has_value()) return InvalidArgument("question: is not UTF-8");
  if (m.question.empty() && m.query_tokens == 0)
    return InvalidArgument("a plan needs a question, or queries");
  LH_ASSIGN_OR_RETURN(const Sidecars::Lease sidecar, Model());
  const KvGeometry& g = sidecar->model().geometry;
  const uint64_t head_bytes = uint64_t{m.query_tokens} * g.group() * g.head_dim * sizeof(float);
  const size_t heads = m.query_tokens == 0 ? 0 : sidecar->head_count();
  if (head_bytes * heads != request.header.payload_bytes) {
    return InvalidArgument("queries of " + std::to_string(heads) + " recall heads for " +
                           std::to_string(m.query_tokens) + " tokens have " +
                           std::to_string(head_bytes * heads) + " bytes, and the payload has " +
                           std::to_string(request.header.payload_bytes));
  }
  longhold::PlanRequest plan{.question = m.question,
                             .queries = {.heads = {},
                                         .tokens = m.query_tokens,
                                         .rotated = m.query_rotated,
                                         .position = m.query_position},
                             .spans_max = m.spans_max,
                             .tokens_max = m.tokens_max};
  Payload copy;  // queries are read several times, and a client may change a memfd meanwhile
  if (heads > 0) {
    LH_ASSIGN_OR_RETURN(const std::span<const char> payload, PayloadOf(request));
    LH_ASSIGN_OR_RETURN(copy, Payload::CopyOf({payload.data(), payload.size()}));
    for (size_t h = 0; h < heads; ++h)
      plan.queries.heads.push_back(
          reinterpret_cast<const float*>(copy.bytes().data() + h * head_bytes));
  }
  LH_ASSIGN_OR_RETURN(RecallReply found, sidecar->Plan(memory, plan));
  TakeNotes(*sidecar);
  if (service_->options().quotas != nullptr)
    service_->options().quotas->Spend(caller_.limits, found.prompt_tokens,
                                      std::chrono::steady_clock::now());
  return Answer{Encode(PlanReply{.spans = std::move(found.spans),
                                 .evidence = static_cast<uint8_t>(found.evidence.level),
                                 .coverage = found.coverage.value_or(-1),
                                 .degradation = found.degradation})};
}

Result<Session::Answer> Session::Fetch(Request& request) {
  LH_ASSIGN_OR_RETURN(const FetchRequest m, DecodeAs<FetchRequest>(request.message.text()));
  LH_ASSIGN_OR_RETURN(const std::string memory, MemoryName(m.memory));
  LH_ASSIGN_OR_RETURN(const Sidecars::Lease sidecar, Model());
  const KvGeometry& g = sidecar->model().geometry;
  const uint64_t token_bytes = TokenBytes(g, m.float32);
  uint64_t tokens = 0;
  for (const PlacedSpan& place : m.places) {
    if (place.tokens.empty()) return InvalidArgument("a place has no tokens");
    // Bounded at each step, so that the sum cannot overflow.
    tokens = std::min(kPayloadBytesMax, tokens + std::min(kPayloadBytesMax, place.tokens.size()));
  }
  if (tokens == 0) return InvalidArgument("there are no places to fetch");
  LH_ASSIGN_OR_RETURN(Room room, ReplyRoom(request, tokens * token_bytes));
  const Rows<void, char> rows(g, room.payload.bytes().data(), tokens, m.float32, m.rotated);
  LH_RETURN_IF_ERROR(sidecar->Fetch(memory, m.places, rows.arrays()));
  return Answer{Encode(FetchReply{tokens}), std::move(room)};
}

Result<Session::Answer> Session::Tokens(Request& request) {
  LH_ASSIGN_OR_RETURN(const TokensRequest m, DecodeAs<TokensRequest>(request.message.text()));
  LH_ASSIGN_OR_RETURN(const std::string memory, MemoryName(m.memory));
  if (m.span.empty() || m.span.size() > kTokensMax)
    return InvalidArgument("a place must have 1 to " + std::to_string(kTokensMax) + " tokens");
  LH_ASSIGN_OR_RETURN(const Sidecars::Lease sidecar, Model());
  TokensReply reply;
  LH_ASSIGN_OR_RETURN(reply.tokens, sidecar->Tokens(memory, m.document, m.span));
  return Answer{Encode(reply)};
}

Result<Session::Answer> Session::Prefix(Request& request) {
  LH_ASSIGN_OR_RETURN(const PrefixRequest m, DecodeAs<PrefixRequest>(request.message.text()));
  LH_ASSIGN_OR_RETURN(const std::string memory, MemoryName(m.memory));
  LH_ASSIGN_OR_RETURN(const Sidecars::Lease sidecar, Model());
  LH_ASSIGN_OR_RETURN(const StoredPrefix prefix, sidecar->LongestPrefix(memory, m.tokens));
  return Answer{Encode(PrefixReply{prefix})};
}

Result<Session::Answer> Session::Stat(Request& request) {
  LH_ASSIGN_OR_RETURN(const StatRequest m, DecodeAs<StatRequest>(request.message.text()));
  LH_ASSIGN_OR_RETURN(const std::string memory, MemoryName(m.memory));
  LH_ASSIGN_OR_RETURN(const Sidecars::Lease sidecar, Model());
  LH_ASSIGN_OR_RETURN(const MemoryInfo info, sidecar->Show(memory));
  return Answer{Encode(StatReply{
      .documents = info.documents.size(), .tokens = info.tokens, .disk_bytes = info.disk_bytes})};
}

Result<Session::Answer> Session::Forget(Request& request) {
  LH_ASSIGN_OR_RETURN(const ForgetRequest m, DecodeAs<ForgetRequest>(request.message.text()));
  LH_ASSIGN_OR_RETURN(const std::string memory, MemoryName(m.memory));
  if (m.document.empty() && caller_.scope < Scope::kAdmin)
    return Forbidden(Scope::kAdmin, caller_.scope);
  LH_ASSIGN_OR_RETURN(const Sidecars::Lease sidecar, Model());
  LH_RETURN_IF_ERROR(sidecar->Forget(memory, m.document));
  TakeNotes(*sidecar);
  return Answer{Encode(ForgetReply{})};
}

Result<Session::Answer> Session::Ping(Request& request) {
  LH_ASSIGN_OR_RETURN(const PingRequest m, DecodeAs<PingRequest>(request.message.text()));
  LH_ASSIGN_OR_RETURN(const std::span<const char> payload, PayloadOf(request));
  const uint64_t hash = Hash64({payload.data(), payload.size()});
  LH_ASSIGN_OR_RETURN(Room room, ReplyRoom(request, m.reply_bytes));
  std::fill(room.payload.bytes().begin(), room.payload.bytes().end(), kPingByte);
  return Answer{Encode(PingReply{hash}), std::move(room)};
}

}  // namespace longhold::wire
