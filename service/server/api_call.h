// What the parts of the HTTP API share: a request on its way, its replies. Internal to the api*.cc
// files.
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

namespace longhold {

// --- replies ---
HttpReply JsonReply(std::string body, unsigned status = 200);
// "type" of an error, in OpenAI's words where it has one.
std::string ErrorType(const Status& status);
HttpReply ErrorReply(const Status& status);
// The same of what is not taken, because there is too much already: resource_exhausted is 429.
HttpReply NotQueuedReply(const Status& status);

// Whether what failed so beside others may succeed with the engine to itself.
bool WantsEngineAlone(const Status& status);
// So many seconds from now; 0: none.
std::optional<std::chrono::steady_clock::time_point> DeadlineIn(double seconds);

// Runs `work`, which answers `exchange`; an exception of its is answered as an error.
void RunGuarded(HttpExchange& exchange, const std::function<void()>& work);

// --- ingests ---
std::string_view StateName(IngestState state);
std::string IngestId(uint64_t id);
// `memory`: as the client calls it.
boost::json::object IngestObject(const IngestJob& job, const std::string& memory);
// What a tenant may still have; as much as there is where it has no limits. Value type.
struct TenantRoom {
  uint64_t documents = UINT64_MAX, disk_bytes = UINT64_MAX;
};
// Errors: failed_precondition where it may have nothing more: no document, but for one in `memory`
// that `document` replaces, or no byte.
Result<TenantRoom> RoomFor(Engine& engine, const TenantLimits& limits, const std::string& memory,
                           const std::string& document);

// Who asks, and which memories are theirs. Value type.
struct Client {
  TenantLimits limits;  // of the tenant, whose name is empty for the operator

  const std::string& tenant() const { return limits.tenant; }
  // What the engine calls the memory that this client calls `name`. Every name of a memory comes
  // through here: a tenant's can only be one of its own. Errors: invalid_argument.
  Result<std::string> MemoryName(const std::string& name) const {
    LH_RETURN_IF_ERROR(Engine::CheckName(name));
    if (tenant().empty()) return name;
    if (!Engine::SplitName(name).first.empty())
      return InvalidArgument("memory name \"" + name + "\": has a slash; name it as you made it");
    return tenant() + "/" + name;
  }
  // What this client calls it.
  std::string Shown(const std::string& memory) const {
    return tenant().empty() ? memory : Engine::SplitName(memory).second;
  }
  bool Owns(const std::string& memory) const {
    return tenant().empty() || Engine::SplitName(memory).first == tenant();
  }
};

// A request on its way. `request` and `exchange` are set when it is handled.
struct Api::Call {
  HttpRequest request;
  std::shared_ptr<HttpExchange> exchange;
  const Route* route = nullptr;
  std::vector<std::string> names;  // what the {} of the route's path stand for
  Scope scope = Scope::kNone;      // of the client
  Client client;
  std::shared_ptr<RequestRecord> record;
  // the record's, which lives as long as the exchange; set before others have that
  Access* access = nullptr;

  void Fail(const Status& status) const { exchange->Respond(ErrorReply(status)); }
  HttpReply Forbidden(Scope needed) const {
    const std::string why = "this needs a key of scope " + std::string(ScopeName(needed)) +
                            "; the key's is " + std::string(ScopeName(scope));
    return JsonReply(ErrorJson("permission_error", why), 403);
  }
  void Forbid(Scope needed) const { exchange->Respond(Forbidden(needed)); }
};

}  // namespace longhold
