// Who can reach an address that a server listens on, and whether it may listen there. Each server
// of `serve` follows these rules: HTTP, the wire protocol and the one for Redis clients.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "service/server/api_keys.h"

namespace longhold {

struct Reach {
  std::string_view option;   // "--listen"
  std::string address;       // empty: none, the server has a socket file
  bool encrypted = false;    // with TLS
  bool insecure = false;     // --insecure: the operator trusts the network
  std::string_view instead;  // what to do instead of --insecure
};

// What clients may do while there are no keys: all on this machine, nothing from others.
Scope ScopeWithoutKeys(const Reach& reach);
// An address that other machines can reach needs encryption or a trusted network, and a key.
// Errors: invalid_argument; those of ApiKeys::List.
Status CheckReach(const Reach& reach, const ApiKeys& keys);

}  // namespace longhold
