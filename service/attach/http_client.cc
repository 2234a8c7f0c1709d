#include "service/attach/http_client.h"

#include <array>
#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <charconv>
#include <optional>
#include <utility>

#include "base/text.h"

namespace longhold {
namespace {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kPoll{50};

// One request on its own connection. Confined to the calling thread.
class Exchange {
 public:
  Exchange(const HttpAddress& address, const HttpClientOptions& options, const ClientEvents& events)
      : address_(address), options_(options), events_(events), stream_(io_) {}

  Status Connect() {
    error_code failed;
    net::ip::tcp::resolver resolver(io_);
    const auto found = resolver.resolve(address_.host, std::to_string(address_.port), failed);
    if (failed) return Unavailable(address_.Url() + ": " + failed.message());
    return Await("connect to", options_.connect_time, [&](auto done) {
      stream_.async_connect(found, [done](error_code e, auto&&) { done(e); });
    });
  }

  Status Write(const ClientRequest& request) {
    http::request<http::string_body> message;
    message.method_string(request.method);
    message.target(address_.prefix + request.target);
    message.version(11);
    message.set(http::field::host, address_.Authority());
    message.set(http::field::connection, "close");
    if (!request.authorization.empty())
      message.set(http::field::authorization, request.authorization);
    if (!request.body.empty() || request.method == "POST") {
      message.set(http::field::content_type, request.content_type);
      message.body() = request.body;
      message.prepare_payload();
    }
    return Await("send to", options_.silence_time, [&](auto done) {
      http::async_write(stream_, message, [done](error_code e, size_t) { done(e); });
    });
  }

  Result<ClientReply> Read() {
    http::response_parser<http::buffer_body> parser;
    parser.body_limit(boost::none);
    parser.header_limit(64 << 10);
    LH_RETURN_IF_ERROR(Await("read from", options_.silence_time, [&](auto done) {
      http::async_read_header(stream_, buffer_, parser, [done](error_code e, size_t) { done(e); });
    }));
    ClientReply reply;
    reply.status = parser.get().result_int();
    reply.content_type = std::string(parser.get()[http::field::content_type]);
    const bool taken = !events_.on_head || events_.on_head(reply.status, reply.content_type);
    std::array<char, 16384> piece;
    while (!parser.is_done()) {
      auto& body = parser.get().body();
      body.data = piece.data();
      body.size = piece.size();
      body.more = true;
      LH_RETURN_IF_ERROR(Await("read from", options_.silence_time, [&](auto done) {
        http::async_read_some(stream_, buffer_, parser, [done](error_code e, size_t) {
          done(e == http::error::need_buffer ? error_code() : e);
        });
      }));
      const std::string_view got(piece.data(), piece.size() - body.size);
      if (taken && events_.on_body) {
        if (!got.empty()) events_.on_body(got);
      } else if (reply.body.size() + got.size() > kClientBodyBytesMax) {
        return ResourceExhausted(address_.Url() + ": its reply is longer than 64 MiB");
      } else {
        reply.body += got;
      }
      if (events_.stop && events_.stop()) return Cancelled(address_.Url() + ": hung up");
    }
    return reply;
  }

 private:
  // Runs one asynchronous operation to its end, or cancels it.
  template <typename Start>
  Status Await(const char* doing, std::chrono::milliseconds time, Start start) {
    std::optional<error_code> ended;
    const Clock::time_point deadline = Clock::now() + time;
    start([&ended](error_code e) { ended = e; });
    const std::string what = std::string("cannot ") + doing + " " + address_.Url() + ": ";
    Status status;
    while (!ended.has_value()) {
      io_.restart();
      io_.run_for(kPoll);
      if (ended.has_value() || !status.ok()) continue;
      if (events_.stop && events_.stop()) {
        status = Cancelled(address_.Url() + ": hung up");
      } else if (Clock::now() >= deadline) {
        status =
            DeadlineExceeded(what + "nothing for " + std::to_string(time.count() / 1000) + " s");
      }
      if (!status.ok()) stream_.close();  // ends the operation
    }
    if (!status.ok()) return status;
    if (*ended) return Unavailable(what + ended->message());
    return OkStatus();
  }

  const HttpAddress& address_;
  const HttpClientOptions& options_;
  const ClientEvents& events_;
  net::io_context io_{1};
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
};

std::string PercentEncode(std::string_view text) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (IsNameByte(c) || c == '~') {  // unreserved: RFC 3986, section 2.3
      out += c;
    } else {
      out += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return out;
}

}  // namespace

std::string FormatTarget(std::span<const std::string> path,
                         const std::map<std::string, std::string>& query) {
  std::string target;
  for (const std::string& segment : path) target += "/" + PercentEncode(segment);
  if (target.empty()) target = "/";
  char mark = '?';
  for (const auto& [name, value] : query) {
    target += mark + PercentEncode(name) + "=" + PercentEncode(value);
    mark = '&';
  }
  return target;
}

Result<HttpAddress> ParseHttpUrl(const std::string& url) {
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme)) {
    return InvalidArgument("'" + url +
                           "' is not a URL of plain HTTP; write http://127.0.0.1:PORT, the address "
                           "of the server on this machine");
  }
  HttpAddress address;
  std::string rest = url.substr(kScheme.size());
  if (const size_t slash = rest.find('/'); slash != std::string::npos) {
    address.prefix = rest.substr(slash);
    rest.resize(slash);
  }
  while (address.prefix.ends_with('/')) address.prefix.pop_back();
  const size_t colon = rest.rfind(':');
  const bool v6_alone = rest.ends_with(']');
  if (colon != std::string::npos && !v6_alone) {
    const char* const begin = rest.data() + colon + 1;
    const char* const end = rest.data() + rest.size();
    const auto [at, error] = std::from_chars(begin, end, address.port);
    if (error != std::errc() || at != end || address.port == 0)
      return InvalidArgument("'" + url + "' has no valid port; write http://127.0.0.1:PORT");
    rest.resize(colon);
  }
  if (rest.starts_with('[') && rest.ends_with(']')) rest = rest.substr(1, rest.size() - 2);
  if (rest.empty() || rest.find_first_of("@?# ") != std::string::npos)
    return InvalidArgument("'" + url + "' has no valid host; write http://127.0.0.1:PORT");
  address.host = rest;
  return address;
}

Result<ClientReply> HttpClient::Send(const ClientRequest& request, const ClientEvents& events) const
    try {
  Exchange exchange(address_, options_, events);
  LH_RETURN_IF_ERROR(exchange.Connect());
  LH_RETURN_IF_ERROR(exchange.Write(request));
  return exchange.Read();
} catch (const std::exception& e) {
  return Internal(address_.Url() + ": " + e.what());
}

}  // namespace longhold
