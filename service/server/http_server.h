// HTTP/1.1, plain or through TLS: connections, their limits and deadlines, replies and streams.
// Knows no routes. Boost.Beast and OpenSSL stop at http_server.cc.
//
// A request is decided on in two steps. When its header has been read, and before anything of its
// body is waited for, the server asks who takes it (HttpAdmit): a request that is refused then
// costs no memory beyond its header. The body of one that is let in is read in pieces, and room for
// it is reserved as they arrive.
//
// Owner: the `serve` command. One thread runs all connections (HttpServer::Run); HttpAdmit and what
// it gives are called on it and must not block. An exchange may be answered from any thread, at any
// time later.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace longhold {

// A request; before its body is read, all but that. Value type.
struct HttpRequest {
  std::string method;      // "GET", also of HEAD
  bool head_only = false;  // of HEAD: nobody sees the reply's body
  // segments, percent-decoded: "/v1/memories/a%2Fb" is {"v1", "memories", "a/b"}
  std::vector<std::string> path;
  std::map<std::string, std::string> query;  // percent-decoded; the last of equal names counts
  // of its X-Request-Id where that is 1 to 64 letters, digits and ._-, else a new one; the reply
  // has it
  std::string id;
  std::string traceparent;   // as it came; empty where it is none of W3C's form
  std::string peer;          // the client's address
  std::string content_type;  // lower case, without parameters
  std::string authorization;
  std::string upload_offset, upload_length;  // as they came
  std::string body;
};

struct HttpReply {
  unsigned status = 200;
  std::string content_type = "application/json";
  std::string body;
  // further ones; names and values are the program's own
  std::vector<std::pair<std::string, std::string>> headers;
};

// One request that waits for its reply. Safe to call concurrently; what comes after the end of the
// reply, or after the client has gone, is dropped. An exchange that nobody holds any more and that
// was not answered is answered with 500. Whoever holds the request's body holds the exchange: the
// room of the body is free when the exchange is let go of.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  virtual void Respond(HttpReply reply) = 0;
  // A reply whose length is not known, as server-sent events are. Between pieces that are far apart
  // ": ping" comments keep proxies awake.
  virtual void BeginStream() = 0;
  virtual void Write(std::string piece) = 0;
  virtual void EndStream() = 0;
  // A reply of bytes instead: a file, as it is read. WriteBytes and EndStream follow.
  virtual void BeginBytes(const std::string& content_type) = 0;
  // As Write, where the client has taken most of what was written. False: it has not, and nothing
  // is written; `ready` is called once, on some thread, when it has, or has gone. From one thread
  // at a time.
  virtual bool WriteBytes(std::string piece, std::function<void()> ready) = 0;
  // Closes the connection, so that the client sees that the rest is missing.
  virtual void Break() = 0;
  // Set once the client has closed the connection, or takes its reply too slowly. Lives as long as
  // the exchange.
  virtual const std::atomic<bool>& gone() const = 0;
};

// What is decided on a request by its header: it is refused, or somebody takes it. Value type.
struct HttpAdmission {
  // of a request that is not let in; its body is not read, and the other members do not count
  std::optional<HttpReply> refusal;
  // that are read, though never more than the server's own limit; a longer body gets 413. 0: none
  // is waited for
  uint64_t body_bytes_max = 0;
  std::string when_longer;  // what to do then; the 413's message ends with it
  // Takes the request, with its body. Called once, unless `refused` is, or the client goes before
  // it has sent the body: then neither is.
  std::function<void(HttpRequest request, std::shared_ptr<HttpExchange> exchange)> handle;
  // The server has refused the request with this status: its body was too long, too slow or
  // malformed, or there was no room for it.
  std::function<void(unsigned status)> refused;
};

// Asked about `head`, a request without its body.
using HttpAdmit = std::function<HttpAdmission(const HttpRequest& head)>;

// PEM files. They are read again for new connections once one of them has changed; while that fails
// the old ones hold.
struct TlsFiles {
  // the server's, then those between it and a root; empty: no TLS
  std::string certificate;
  std::string key;  // the certificate's, without a password
  // who signs clients' certificates, which they then need; empty: they need none
  std::string client_ca;
};

struct HttpServerOptions {
  std::string address = "127.0.0.1";
  uint16_t port = 0;  // 0: any that is free
  uint64_t body_bytes_max = 64ull << 20;
  // Of all bodies, from their first byte until their exchanges are let go of, and of all replies
  // that clients have not taken yet. A request whose body would exceed it gets 503; where a reply
  // would, the connection whose client has taken nothing for longest is closed.
  uint64_t bodies_bytes_max = 256ull << 20;
  uint64_t replies_bytes_max = 128ull << 20;
  // Beyond it the connection that has waited longest for its client to send a request that is let
  // in is closed; where none waits the new one gets 503.
  uint32_t connections_max = 1024;
  // of these three that one client (an address; of IPv6 a /64 network) may have
  double peer_share = 0.5;
  // names in a Host header beside loopback's and `address`; others get 421
  std::vector<std::string> hosts;
  // for a request's line and headers, from its first byte, and for TLS's handshake
  std::chrono::milliseconds header_time{10'000};
  std::chrono::milliseconds body_time{300'000};       // for a body in all
  std::chrono::milliseconds body_stall_time{30'000};  // for each further byte of a body
  std::chrono::milliseconds idle_time{60'000};        // between requests
  std::chrono::milliseconds write_time{30'000};       // for each piece of a reply
  std::chrono::milliseconds ping_time{10'000};
  TlsFiles tls;
  // what the server's log should say; called on Run's thread; may be empty
  std::function<void(std::string_view)> note;
  // What the server refuses before anybody is asked: no HTTP, another host, a web page's request,
  // no connection free. `head` has what is known by then: always id and peer; method and path where
  // they came and can be read. Called on Run's thread; may be empty.
  std::function<void(const HttpRequest& head, unsigned status)> refused;
};

class HttpServer {
 public:
  // Listens from here on; connections are served once Run is called. Errors: invalid_argument (the
  // address is none, or is taken; a TLS file cannot be used).
  static Result<std::unique_ptr<HttpServer>> Listen(const HttpServerOptions& options,
                                                    HttpAdmit admit);
  virtual ~HttpServer() = default;
  virtual uint16_t port() const = 0;
  // Until `*stop` is set, and then until all replies under way are sent, or `drain` is over and the
  // connections are closed. New ones are refused meanwhile. `on_stop` is called once when `*stop`
  // is seen.
  virtual void Run(const std::atomic<bool>* stop, std::chrono::milliseconds drain,
                   const std::function<void()>& on_stop) = 0;
};

// Whether only this machine reaches the address.
bool IsLoopback(const std::string& address);

}  // namespace longhold
