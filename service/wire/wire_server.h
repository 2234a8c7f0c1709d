// The server of the wire protocol: TCP and a Unix socket, connections with their limits and
// deadlines. docs/formats/wire.md is the manual for what goes over them. Boost.Asio stops at
// wire_server.cc and wire_connection.*.
//
// One thread of the server's own runs all connections and never blocks. Requests run on a pool of
// the server's own, one at a time for each connection, so that replies have the requests' order.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "service/server/job_pool.h"
#include "service/wire/wire_session.h"

namespace longhold::wire {

struct WireServerOptions {
  bool tcp = false;
  std::string address = "127.0.0.1";
  uint16_t port = 0;        // 0: any free port
  std::string socket_path;  // of a Unix socket; empty: none
  // At this limit the server closes the connection that has waited longest without a request and
  // without an open writer. If there is none, the new connection gets an error.
  uint32_t connections_max = 256;
  double peer_share = 0.5;  // of it, for one client: an address, or a user of this machine
  std::chrono::milliseconds hello_time{10'000};   // from the connection to the end of hello
  std::chrono::milliseconds frame_time{300'000};  // for a whole frame
  std::chrono::milliseconds stall_time{30'000};   // between two bytes of a frame
  std::chrono::milliseconds idle_time{600'000};   // between requests
  std::chrono::milliseconds write_time{30'000};   // between two bytes of a reply
  std::chrono::milliseconds drain_time{10'000};   // for replies in progress, after Stop
  // A sidecar runs one call at a time, so more threads help only with several models. A connection
  // has one job at most.
  JobPoolOptions jobs{.threads = 4,
                      .tenant_threads = 2,
                      .operator_threads = 3,
                      .tenant_waiting_max = 256,
                      .waiting_max = 1024};
  ServiceOptions service;
};

// Owner: the `serve` command. Thread use: *external*.
class WireServer {
 public:
  // Opens port and socket. Clients are served once Start is called. Errors: invalid_argument (an
  // address or path that is malformed or in use).
  static Result<std::unique_ptr<WireServer>> Listen(WireServerOptions options);
  // As Stop, and waits for the end.
  virtual ~WireServer() = default;
  virtual uint16_t port() const = 0;  // 0 without TCP
  virtual void Start() = 0;
  // Refuses new connections and requests. Replies in progress are still sent. Returns at once.
  virtual void Stop() = 0;
};

}  // namespace longhold::wire
