#include "service/cli/reach.h"

#include <vector>

#include "service/server/http_server.h"

namespace longhold {

namespace {

bool IsLocal(const Reach& reach) { return reach.address.empty() || IsLoopback(reach.address); }

}  // namespace

Scope ScopeWithoutKeys(const Reach& reach) { return IsLocal(reach) ? Scope::kAdmin : Scope::kNone; }

Status CheckReach(const Reach& reach, const ApiKeys& keys) {
  if (IsLocal(reach)) return OkStatus();
  const std::string place = std::string(reach.option) + " " + reach.address;
  if (!reach.encrypted && !reach.insecure) {
    return InvalidArgument(
        place + ": other machines can reach this address and read the traffic; " +
        std::string(reach.instead) + ", or give --insecure if the network is your own");
  }
  LH_ASSIGN_OR_RETURN(const std::vector<ApiKey> known, keys.List());
  if (!known.empty()) return OkStatus();
  return InvalidArgument(place +
                         ": other machines can reach this address and there is no API key; create "
                         "one with 'longhold key add NAME'");
}

}  // namespace longhold
