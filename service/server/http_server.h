// An HTTP/1.1 server, plain or with TLS: connections, their limits and deadlines, replies and
// streams. It knows no routes. Boost.Asio, Boost.Beast and OpenSSL stop at its own files:
// http_server.cc, asio_http_server.h, http_connection*, and http_tls.*.
//
// The server decides on a request in two steps. When the header has arrived, it asks HttpAdmit
// whether the request is admitted. A request that is refused at this point costs no memory beyond
// its header. The body of an admitted request is read in pieces, and memory for it is reserved as
// the pieces arrive.
//
// Owner: the `serve` command. One thread runs all connections (HttpServer::Run). HttpAdmit and its
// callbacks are called on this thread and must not block. An exchange may be answered from any
// thread, at any later time.
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

// A request. `body` is empty until the body has been read. Value type.
struct HttpRequest {
  std::string method;      // "GET" also for HEAD
  bool head_only = false;  // true for HEAD: the reply is sent without its body
  // percent-decoded segments: "/v1/memories/a%2Fb" is {"v1", "memories", "a/b"}
  std::vector<std::string> path;
  std::map<std::string, std::string> query;  // percent-decoded; of equal names the last one counts
  // the X-Request-Id of the request if it has 1 to 64 letters, digits and ._-, else a new id; the
  // reply repeats it
  std::string id;
  std::string traceparent;   // unchanged; empty unless it has W3C's form
  std::string peer;          // the address of the client
  std::string content_type;  // lower case, without parameters
  std::string authorization;
  std::string upload_offset, upload_length;  // unchanged
  std::string body;
};

struct HttpReply {
  unsigned status = 200;
  std::string content_type = "application/json";
  std::string body;
  // additional headers; their names and values never come from a client
  std::vector<std::pair<std::string, std::string>> headers;
};

// One request that waits for its reply. Thread use: *synchronised*. Calls after the end of the
// reply, or after the client has disconnected, have no effect. If the last reference is released
// before an answer, the client gets 500. Whoever holds the body of the request holds the exchange,
// too: releasing the exchange returns the memory of the body to the budget of the server.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  virtual void Respond(HttpReply reply) = 0;
  // Begins a reply of unknown length: server-sent events. During pauses the server sends ": ping"
  // comments, so that proxies do not time out.
  virtual void BeginStream() = 0;
  virtual void Write(std::string piece) = 0;
  virtual void EndStream() = 0;
  // Begins a reply of bytes of unknown length instead, such as a file. Calls of WriteBytes and one
  // of EndStream follow.
  virtual void BeginBytes(const std::string& content_type) = 0;
  // As Write, with flow control. Returns false and writes nothing while the client has too much
  // left to receive. `ready` is then called once, on some thread, when the client has received most
  // of it or has disconnected. Call it from one thread at a time.
  virtual bool WriteBytes(std::string piece, std::function<void()> ready) = 0;
  // Closes the connection without an end of the reply, so that the client sees that the rest is
  // missing.
  virtual void Break() = 0;
  // True once the client has disconnected, or was disconnected because it received its reply too
  // slowly. The flag lives as long as the exchange.
  virtual const std::atomic<bool>& gone() const = 0;
};

// The decision on a request after its header: refused or admitted. Value type.
struct HttpAdmission {
  // reply to a refused request; the body is not read, and the other members are ignored
  std::optional<HttpReply> refusal;
  // Limit for the body; the limit of the server applies, too. A longer body gets 413. 0: the server
  // does not wait for a body.
  uint64_t body_bytes_max = 0;
  std::string when_longer;  // end of the message of a 413: what the client can do
  // Receives the complete request. It is called once, unless `refused` is called or the client
  // disconnects before the body is complete. In the latter case neither is called.
  std::function<void(HttpRequest request, std::shared_ptr<HttpExchange> exchange)> handle;
  // Called when the server refuses the request with this status after admission: the body was too
  // long, too slow or malformed, or there was no memory for it.
  std::function<void(unsigned status)> refused;
};

// Decides on `head`, a request without its body.
using HttpAdmit = std::function<HttpAdmission(const HttpRequest& head)>;

// PEM files. The server reloads them for new connections when one of them has changed. If that
// fails it keeps the old certificate.
struct TlsFiles {
  // the certificate of the server, then the intermediate ones; empty: no TLS
  std::string certificate;
  std::string key;  // private key of the certificate, without a password
  // CA that signs client certificates, which are then required; empty: not required
  std::string client_ca;
};

struct HttpServerOptions {
  std::string address = "127.0.0.1";
  uint16_t port = 0;  // 0: any free port
  uint64_t body_bytes_max = 64ull << 20;
  // Limits for all bodies (from the first byte until the exchange is released) and for all replies
  // that clients have not received yet. A request whose body would exceed the first gets 503. If a
  // reply would exceed the second, the server closes the connection whose client has received
  // nothing for the longest time.
  uint64_t bodies_bytes_max = 256ull << 20;
  uint64_t replies_bytes_max = 128ull << 20;
  // At this limit the server closes a connection that serves no admitted request, the one that has
  // waited longest. If there is none the new connection gets 503.
  uint32_t connections_max = 1024;
  // largest share of these three limits for one client (an address, or a /64 network of IPv6)
  double peer_share = 0.5;
  // accepted names in a Host header, in addition to loopback and `address`; other names get 421
  std::vector<std::string> hosts;
  // for the request line and the headers, from the first byte, and for the TLS handshake
  std::chrono::milliseconds header_time{10'000};
  std::chrono::milliseconds body_time{300'000};       // for a whole body
  std::chrono::milliseconds body_stall_time{30'000};  // between two bytes of a body
  std::chrono::milliseconds idle_time{60'000};        // between requests
  std::chrono::milliseconds write_time{30'000};       // for each piece of a reply
  std::chrono::milliseconds ping_time{10'000};
  TlsFiles tls;
  // for log messages of the server; called on the thread of Run; may be empty
  std::function<void(std::string_view)> note;
  // Called for each request that the server refuses before HttpAdmit: malformed HTTP, a wrong host,
  // a request of a web page, no free connection. `head` has what is known so far: always id and
  // peer; method and path if they could be parsed. Called on the thread of Run; may be empty.
  std::function<void(const HttpRequest& head, unsigned status)> refused;
};

class HttpServer {
 public:
  // Opens the port and listens. Connections are served once Run is called. Errors: invalid_argument
  // (the address is malformed or in use; a TLS file cannot be used).
  static Result<std::unique_ptr<HttpServer>> Listen(const HttpServerOptions& options,
                                                    HttpAdmit admit);
  virtual ~HttpServer() = default;
  virtual uint16_t port() const = 0;
  // Serves until `*stop` is set. Then it refuses new connections, calls `on_stop` once, and returns
  // when all replies in progress are sent. After `drain` it closes the remaining connections.
  virtual void Run(const std::atomic<bool>* stop, std::chrono::milliseconds drain,
                   const std::function<void()>& on_stop) = 0;
};

// Whether `address` is a loopback address.
bool IsLoopback(const std::string& address);

}  // namespace longhold
