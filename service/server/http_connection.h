// One connection of the HTTP server: reads requests, checks them, and sends replies.
//
// Internal to the HTTP server: only http_server.cc and http_connection*.cc see it, and with it
// Boost.Asio and Boost.Beast. Owner: the server's set of connections, and the handlers of pending
// operations. Thread use: *confined* to the thread of HttpServer::Run.
#pragma once

#include <algorithm>
#include <atomic>
#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "service/server/http_server.h"
#include "service/server/peer_shares.h"

namespace longhold::asio_http {

namespace net = boost::asio;
namespace http = boost::beast::http;
namespace ssl = boost::asio::ssl;
using boost::system::error_code;
using net::ip::tcp;
using Clock = std::chrono::steady_clock;

constexpr uint32_t kHeaderBytesMax = 16 << 10;
constexpr size_t kReadBytes = 64 << 10;  // read of a long body
// Bytes of WriteBytes that may wait for the client to receive them.
constexpr size_t kUnsentBytesMax = 1 << 20;

class Server;

// State that an exchange shares with its connection. Thread use: *synchronised*.
struct Answering {
  std::atomic<bool> gone{false};
  std::mutex mutex;
  size_t unsent = 0;            // bytes of WriteBytes that the client has not received yet
  std::function<void()> ready;  // called when they are few, or the client has gone

  void SetGone() {
    gone = true;
    OnSent(0);
  }
  void OnSent(size_t bytes) {
    std::function<void()> callback;
    {
      const std::lock_guard lock(mutex);
      unsent -= std::min(unsent, bytes);
      if (gone || unsent < kUnsentBytesMax) callback = std::exchange(ready, nullptr);
    }
    if (callback) callback();
  }
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  // `tls`: null for plain HTTP.
  Connection(Server& server, tcp::socket socket, const net::ip::address& address,
             std::shared_ptr<ssl::context> tls)
      : server_(server),
        socket_(std::move(socket)),
        address_(address.to_string()),
        peer_(PeerOf(address_)),
        context_(std::move(tls)),
        deadline_(socket_.get_executor()),
        watch_timer_(socket_.get_executor()) {
    if (context_ != nullptr) tls_.emplace(socket_, *context_);
  }

  void Start();
  // Instead of Start, when no connection is free. `answer`: send a 503 first.
  void RejectExcess(bool answer);
  void Close();
  // No request has begun.
  bool idle() const { return state_ == State::kHandshake || state_ == State::kIdle; }
  // The server does no work for this client: no request has been admitted, or the last reply was
  // sent.
  bool waits() const {
    return state_ == State::kHandshake || state_ == State::kIdle || state_ == State::kHeader ||
           state_ == State::kLingering;
  }
  const std::string& peer() const { return peer_; }
  bool has_share() const { return has_share_; }
  // Since when the current piece of a reply waits for the client. Precondition: writing().
  bool writing() const { return writing_; }
  Clock::time_point writing_since() const { return writing_since_; }
  // Returns memory of a body to the budget of the server. Called when the exchange is released.
  void ReleaseBody(uint64_t bytes);

  // Called for the exchange of request `serial`, on the thread of the connections.
  void Reply(uint64_t serial, HttpReply reply);
  void Begin(uint64_t serial, const std::string& content_type);
  void Piece(uint64_t serial, const std::string& piece, bool counted = false);
  void End(uint64_t serial);
  void Break(uint64_t serial);

  // Position in Server::waiting_. Only the server uses it.
  std::optional<std::list<Connection*>::iterator> waiting_at;

 private:
  enum class State : uint8_t {
    kHandshake,
    kIdle,
    kHeader,
    kBody,
    kAnswering,
    kStreaming,
    kFinishing,
    kLingering,
    kClosed
  };
  // Calls `use` with the stream to read from and write to: TLS or the plain socket.
  template <typename Use>
  void Through(Use use) {
    if (tls_.has_value()) {
      use(*tls_);
    } else {
      use(socket_);
    }
  }
  void Enter(State state);
  void SetDeadline(std::chrono::milliseconds time,
                   void (Connection::*then)() = &Connection::Expired);
  void StopDeadline();
  void Expired();
  void AwaitRequest();
  void ReadHeader();
  // Fills head_ from the header as far as it has arrived. Returns false when the target is
  // malformed.
  bool ReadHead();
  void HeaderRead();
  void BeginBody();
  void ReadBody();
  // Grows the buffer of the body. Returns false, after a refusal, when there is no memory.
  bool GrowBody();
  void DropBody();
  void Handle();
  void Watch();
  void Ping();
  // Sends the refusal of HttpAdmit without reading the body.
  void Decline();
  // Refuses the request, reports it, and closes the connection.
  void Refuse(unsigned status, const std::string& message);
  void RefuseLongBody();
  void RefuseParse(const error_code& ec);
  std::string Head(const HttpReply& reply, bool stream) const;
  // `counted`: how many of these bytes come from WriteBytes.
  void Queue(std::string bytes, size_t counted = 0);
  void WriteNext();
  void Finished();
  void Linger();
  void Discard();

  Server& server_;
  tcp::socket socket_;
  const std::string address_, peer_;
  bool has_share_ = true;  // counts against connections_max
  std::shared_ptr<ssl::context> context_;
  std::optional<ssl::stream<tcp::socket&>> tls_;
  net::steady_timer deadline_;
  // serial of the current deadline: ignores the handler of an earlier one that is already queued
  uint64_t deadline_serial_ = 0;
  bool expired_ = false;  // the deadline passed while a header or a body was read
  net::steady_timer watch_timer_;
  boost::beast::flat_buffer buffer_{kHeaderBytesMax + kReadBytes};
  std::optional<http::request_parser<http::buffer_body>> parser_;
  State state_ = State::kHandshake;
  uint64_t serial_ = 0;
  // The current request: its head and admission until it is handled, its id until it is answered.
  HttpRequest head_;
  std::optional<HttpAdmission> admission_;
  std::string id_;
  std::string body_;  // its size is reserved_; the parser fills it
  // size of the body if its length is known, else the limit
  uint64_t body_bytes_max_ = 0;
  uint64_t reserved_ = 0;       // reserved for body_ in Server::bodies_
  Clock::time_point body_end_;  // deadline of the whole body
  std::shared_ptr<Answering> answering_;
  bool keep_alive_ = false, chunked_ = true, head_only_ = false, writing_ = false;
  bool events_ = false;  // the stream is server-sent events: it may have comments
  std::deque<std::pair<std::string, size_t>> out_;
  size_t out_bytes_ = 0;  // reserved for out_ in Server::replies_
  Clock::time_point writing_since_;
};

}  // namespace longhold::asio_http
