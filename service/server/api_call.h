// Shared by the api*.cc files, and internal to them: a request in progress, and its replies.
#pragma once

#include <boost/json/fwd.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "service/common/json_text.h"
#include "service/server/api.h"
#include "store/memory_name.h"

namespace longhold {

// --- replies ---
HttpReply JsonReply(std::string body, unsigned status = 200);
// Returns the "type" of an error: OpenAI's name if there is one, else the name of the status code.
std::string ErrorType(const Status& status);
HttpReply ErrorReply(const Status& status);
// The reply when a queue refuses work. As ErrorReply, but resource_exhausted (the queue is full) is
// 429.
HttpReply NotQueuedReply(const Status& status);

// The error without the path of the home, which clients must not learn.
Status Redacted(const Status& status, const std::string& home);

// Whether concurrent work that failed with this status may succeed when it runs exclusively.
bool NeedsExclusiveEngine(const Status& status);
// The time in `seconds` seconds; 0: none.
std::optional<std::chrono::steady_clock::time_point> DeadlineIn(double seconds);

// Runs `work`, which answers `exchange`. An exception is answered as an error.
void RunGuarded(HttpExchange& exchange, const std::function<void()>& work);

// --- ingests ---
std::string_view StateName(IngestState state);
std::string IngestId(uint64_t id);
// `memory`: the name that the client uses.
boost::json::object IngestObject(const IngestJob& job, const std::string& memory);
// What a tenant may still store. The maximum without limits. Value type.
struct TenantRoom {
  uint64_t documents = UINT64_MAX, disk_bytes = UINT64_MAX;
};
// Returns what the tenant may still store. Errors: failed_precondition when its documents or bytes
// are at the limit. A new version of `document` in `memory` does not count as a further document.
Result<TenantRoom> RoomFor(Engine& engine, const TenantLimits& limits, const std::string& memory,
                           const std::string& document);
// The same where `all` are the tenant's memories.
Result<TenantRoom> RoomFor(const std::vector<MemoryInfo>& all, const TenantLimits& limits,
                           const std::string& memory, const std::string& document);

// The client of a request, and the names of its memories. Value type.
struct Client {
  TenantLimits limits;  // limits of the tenant; its name is empty for the operator

  const std::string& tenant() const { return limits.tenant; }
  // Converts a name of this client to the name that the engine uses. Every memory name of a request
  // passes through this function, so that a tenant can only name its own memories. Errors:
  // invalid_argument.
  Result<std::string> MemoryName(const std::string& name) const {
    LH_RETURN_IF_ERROR(CheckMemoryName(name));
    if (tenant().empty()) return name;
    if (!SplitMemoryName(name).tenant.empty())
      return InvalidArgument("memory name \"" + name +
                             "\": contains a slash; use the name without the tenant");
    return tenant() + "/" + name;
  }
  // Converts a name of the engine to the name that this client uses.
  std::string Shown(const std::string& memory) const {
    return tenant().empty() ? memory : SplitMemoryName(memory).name;
  }
  bool Owns(const std::string& memory) const {
    return tenant().empty() || SplitMemoryName(memory).tenant == tenant();
  }
};

// A request in progress. `request` and `exchange` are set when the body is complete.
struct Api::Call {
  HttpRequest request;
  std::shared_ptr<HttpExchange> exchange;
  const Route* route = nullptr;
  std::vector<std::string> names;  // values of the {} in the path of the route
  Scope scope = Scope::kNone;      // of the client
  Client client;
  std::shared_ptr<RequestRecord> record;
  // points into `record`; written before other threads can see it
  Access* access = nullptr;

  void Fail(const Status& status) const { exchange->Respond(ErrorReply(status)); }
  HttpReply Forbidden(Scope needed) const {
    return JsonReply(ErrorJson("permission_error", ScopeRefusal(needed, scope)), 403);
  }
  void Forbid(Scope needed) const { exchange->Respond(Forbidden(needed)); }
};

}  // namespace longhold
