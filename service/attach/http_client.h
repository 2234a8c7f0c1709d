// An HTTP/1.1 client for one server of this machine: one connection for each request, deadlines,
// and replies in pieces. Boost.Asio and Boost.Beast stop at http_client.cc.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"

namespace longhold {

// Where a server is: of "http://127.0.0.1:8080". Value type.
struct HttpAddress {
  std::string host;
  uint16_t port = 80;
  std::string prefix;  // of all paths; without a slash at the end

  std::string Authority() const {
    const bool v6 = host.find(':') != std::string::npos;
    return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
  }
  std::string Url() const { return "http://" + Authority() + prefix; }
};
// Errors: invalid_argument (not a URL of plain HTTP).
Result<HttpAddress> ParseHttpUrl(const std::string& url);

// The target of a request: what ParseTarget of service/server/http_text.h takes apart. Everything
// that has a meaning in a path or a query is percent-encoded.
std::string FormatTarget(std::span<const std::string> path,
                         const std::map<std::string, std::string>& query);

// Value type.
struct ClientRequest {
  std::string method = "GET";
  std::string target;  // "/slots/0?action=save", already encoded
  std::string body;
  std::string content_type = "application/json";
  std::string authorization;  // empty: none
};

// Value type.
struct ClientReply {
  unsigned status = 0;
  std::string content_type;
  std::string body;  // without what was given to on_body
};

// What a caller wants to know before the end. Borrows its functions for the call.
struct ClientEvents {
  // Called once, when the header has arrived. Returns whether on_body receives the body. May be
  // empty: it does.
  std::function<bool(unsigned status, const std::string& content_type)> on_head;
  // Receives the body in pieces. Where it does not, the reply has the body, up to
  // kClientBodyBytesMax.
  std::function<void(std::string_view piece)> on_body;
  // Asked 20 times a second, and after each piece: whether to hang up. May be empty.
  std::function<bool()> stop;
};
inline constexpr uint64_t kClientBodyBytesMax = 64ull << 20;

struct HttpClientOptions {
  std::chrono::milliseconds connect_time{5'000};
  // between two bytes of a reply; a long prompt on a slow machine is silent for minutes
  std::chrono::milliseconds silence_time{600'000};
};

// Owner: whoever talks to that server. Thread use: *immutable*; calls are independent and may run
// concurrently. Each blocks its thread.
class HttpClient {
 public:
  explicit HttpClient(HttpAddress address, HttpClientOptions options = {})
      : address_(std::move(address)), options_(options) {}
  const HttpAddress& address() const { return address_; }

  // A reply of any status is no error. Errors: unavailable (nobody listens, or the connection
  // broke), deadline_exceeded, cancelled (`stop`), resource_exhausted (the body is too long).
  Result<ClientReply> Send(const ClientRequest& request, const ClientEvents& events = {}) const;

 private:
  const HttpAddress address_;
  const HttpClientOptions options_;
};

}  // namespace longhold
