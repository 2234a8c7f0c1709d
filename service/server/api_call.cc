#include "service/server/api_call.h"

#include <algorithm>
#include <boost/json.hpp>
#include <exception>
#include <new>
#include <utility>

namespace longhold {

namespace json = boost::json;

namespace {

unsigned HttpStatus(StatusCode code) {
  switch (code) {
    case StatusCode::kOk: return 200;
    case StatusCode::kInvalidArgument: return 400;
    case StatusCode::kNotFound: return 404;
    case StatusCode::kAlreadyExists:
    case StatusCode::kFailedPrecondition: return 409;
    case StatusCode::kResourceExhausted:
    case StatusCode::kUnavailable:
    case StatusCode::kCancelled: return 503;
    case StatusCode::kDeadlineExceeded: return 504;
    case StatusCode::kUnimplemented: return 501;
    default: return 500;
  }
}

}  // namespace

std::string ErrorType(const Status& status) {
  if (status.code() == StatusCode::kInvalidArgument) return "invalid_request_error";
  return std::string(StatusCodeName(status.code()));
}

HttpReply ErrorReply(const Status& status) {
  HttpReply reply{.status = HttpStatus(status.code()),
                  .body = ErrorJson(ErrorType(status), status.message()),
                  .headers = {}};
  if (reply.status == 503) reply.headers.emplace_back("Retry-After", "1");
  return reply;
}

HttpReply NotQueuedReply(const Status& status) {
  HttpReply reply = ErrorReply(status);
  if (status.code() == StatusCode::kResourceExhausted) reply.status = 429;
  return reply;
}

bool NeedsExclusiveEngine(const Status& status) {
  return status.code() == StatusCode::kResourceExhausted ||
         status.code() == StatusCode::kUnavailable;
}

std::optional<std::chrono::steady_clock::time_point> DeadlineIn(double seconds) {
  if (seconds <= 0) return std::nullopt;
  return std::chrono::steady_clock::now() +
         std::chrono::duration_cast<std::chrono::steady_clock::duration>(
             std::chrono::duration<double>(seconds));
}

void RunGuarded(HttpExchange& exchange, const std::function<void()>& work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    exchange.Respond(ErrorReply(ResourceExhausted(
        "out of memory; send a smaller request, or give the server more memory")));
  } catch (const std::exception& error) {
    exchange.Respond(ErrorReply(Internal(std::string("internal error: ") + error.what())));
  }
}

HttpReply JsonReply(std::string body, unsigned status) {
  return {.status = status, .body = std::move(body), .headers = {}};
}

std::string_view StateName(IngestState state) {
  switch (state) {
    case IngestState::kQueued: return "queued";
    case IngestState::kRunning: return "running";
    case IngestState::kDone: return "done";
    case IngestState::kFailed: return "failed";
    case IngestState::kCancelled: break;
  }
  return "cancelled";
}

std::string IngestId(uint64_t id) { return "ingest-" + std::to_string(id); }

json::object IngestObject(const IngestJob& job, const std::string& memory) {
  json::object object{
      {"id", JsonString(IngestId(job.id))},         {"memory", JsonString(memory)},
      {"document", JsonString(job.document)},       {"state", JsonString(StateName(job.state))},
      {"tokens_searchable", job.tokens_searchable}, {"tokens_done", job.tokens_done},
      {"tokens_total", job.tokens_total},           {"tokens_per_s", job.tokens_per_s}};
  if (job.report.has_value()) {
    object["document"] = JsonString(job.report->document);
    object["version"] = job.report->version;
    object["unchanged"] = job.report->outcome == IngestReport::Outcome::kUnchanged;
  }
  if (!job.status.ok())
    object["error"] = json::object{{"message", JsonString(job.status.message())},
                                   {"type", JsonString(ErrorType(job.status))}};
  return object;
}

Status Redacted(const Status& status, const std::string& home) {
  std::string message = status.message();
  for (size_t at; !home.empty() && (at = message.find(home)) != std::string::npos;)
    message.replace(at, home.size(), "the server's home");
  return Status(status.code(), message);
}

Result<TenantRoom> RoomFor(Engine& engine, const TenantLimits& limits, const std::string& memory,
                           const std::string& document) {
  if (limits.documents == 0 && limits.disk_bytes == 0) return TenantRoom{};
  LH_ASSIGN_OR_RETURN(const std::vector<MemoryInfo> all, engine.List(limits.tenant));
  return RoomFor(all, limits, memory, document);
}

Result<TenantRoom> RoomFor(const std::vector<MemoryInfo>& all, const TenantLimits& limits,
                           const std::string& memory, const std::string& document) {
  TenantRoom room;
  uint64_t documents = 0, disk_bytes = 0;
  bool replaces = false;
  for (const MemoryInfo& info : all) {
    disk_bytes += info.disk_bytes;
    documents += info.documents.size();
    for (const DocumentInfo& d : info.documents)
      replaces |= info.name == memory && d.name == document;
  }
  const std::string tenant = "tenant " + limits.tenant + " has ";
  if (limits.documents > 0 && documents >= limits.documents && !replaces) {
    return FailedPrecondition(tenant + std::to_string(documents) + " documents, and its limit is " +
                              std::to_string(limits.documents) +
                              "; forget some, or ask the operator for a higher limit");
  }
  if (limits.disk_bytes > 0 && disk_bytes >= limits.disk_bytes) {
    return FailedPrecondition(tenant + std::to_string(disk_bytes) +
                              " bytes on the disk, and its limit is " +
                              std::to_string(limits.disk_bytes) +
                              "; forget some documents, or ask the operator for a higher limit");
  }
  if (limits.documents > 0)
    room.documents = limits.documents - std::min(limits.documents, documents);
  if (limits.disk_bytes > 0) room.disk_bytes = limits.disk_bytes - disk_bytes;
  return room;
}

}  // namespace longhold
