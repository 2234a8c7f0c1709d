// A server for Redis clients (RESP) over value stores: LMCache, redis-py, redis-cli and others keep
// values in longhold. docs/resp.md describes the commands.
//
// Boost.Asio stops at its own files: resp_server.cc, asio_resp_server.h and resp_connection.*.
//
// Owner: the `serve` command. One thread of its own runs all connections and never waits for the
// disk. Threads of two JobPools write and read values: one writes at a time for each store, so that
// changes that arrive together are written together.
//
// Bounds: RespServerOptions; those of one connection are in resp_connection.h, those of one command
// in resp_parser.h.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "service/resp/resp_stores.h"
#include "service/server/api_keys.h"

namespace longhold {

struct RespServerOptions {
  std::string address = "127.0.0.1";  // empty: no TCP
  uint16_t port = 0;                  // 0: any free port
  std::string unix_path;              // of a socket that is made; empty: none
  uint32_t connections_max = 1024;    // at this limit the one that is idle longest is closed
  // Of long arguments, changes and replies in progress, of all connections. A client that must wait
  // for them is not read from. If clients have waited for a second, the slowest one of those that
  // hold some is closed, if it moves less than 1 MiB a second. One client at a time may exceed the
  // limit to finish a command that has taken some already: otherwise such commands would wait for
  // each other.
  uint64_t in_flight_bytes_max = 256ull << 20;
  std::chrono::milliseconds auth_time{10'000};  // from connecting to AUTH, where there are keys
  std::chrono::milliseconds idle_time{3'600'000};
  std::chrono::milliseconds command_time{300'000};  // for a whole command
  std::chrono::milliseconds stall_time{30'000};     // between two bytes of a command, or of a reply
  std::string version;                              // of longhold
  Scope without_keys = Scope::kNone;           // of every client while there is no file of keys
  std::function<void(std::string_view)> note;  // on any thread; may be empty
};

// Counts since the start. Value type.
struct RespCounts {
  uint64_t connections = 0;  // open now
  uint64_t commands = 0;
};

class RespServer {
 public:
  // Listens and starts to serve. Borrows `stores` and `keys`. Errors: invalid_argument (the address
  // is malformed or in use).
  static Result<std::unique_ptr<RespServer>> Start(const RespServerOptions& options,
                                                   RespStores* stores, ApiKeys* keys);
  // Closes all connections.
  virtual ~RespServer() = default;
  virtual uint16_t port() const = 0;
  // Refuses new connections, sends the replies in progress for at most `drain`, and closes.
  virtual void Stop(std::chrono::milliseconds drain) = 0;
  virtual RespCounts Counts() const = 0;
};

}  // namespace longhold
