// Where the server for Redis clients listens, as --resp gives it.
//
// Thread use: value type and pure function.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

struct RespAddress {
  std::string address;  // empty: no TCP
  uint16_t port = 0;
  std::string unix_path;  // empty: no socket file
};

// Parses "6379" (on 127.0.0.1), "ADDRESS:PORT", or the path of a socket, which begins with a slash.
// Errors: invalid_argument.
Result<RespAddress> ParseRespAddress(std::string_view text);

}  // namespace longhold
