// Connections of the HTTP server: states, deadlines, and reading of requests. Replies are in
// http_connection_reply.cc.
#include "service/server/http_connection.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "base/text.h"
#include "service/common/json_text.h"
#include "service/server/asio_http_server.h"
#include "service/server/http_text.h"

namespace longhold::asio_http {
namespace {

// First size of the buffer of a body; it doubles from there.
constexpr uint64_t kBodyFirstBytes = 16 << 10;
constexpr size_t kFirstBytes = 4096;  // first read of a request through TLS
constexpr std::chrono::milliseconds kGonePoll{250};

std::string RequestId(std::string_view own) {
  const bool good =
      !own.empty() && own.size() <= 64 && std::all_of(own.begin(), own.end(), IsNameByte);
  return good ? std::string(own) : "req-" + RandomHex(12);
}

using Message = http::request<http::buffer_body>;

std::vector<HttpField> FieldsOf(const Message& message) {
  std::vector<HttpField> fields;
  fields.reserve(16);
  for (const auto& field : message) fields.emplace_back(field.name_string(), field.value());
  return fields;
}

// "type" of an error that the HTTP server itself detects.
std::string_view ErrorTypeOf(unsigned status) {
  return status == 403   ? "permission_error"
         : status == 503 ? "unavailable"
                         : "invalid_request_error";
}

class Exchange final : public HttpExchange {
 public:
  // `room`: bytes of the body, which are returned to the server when the exchange ends.
  Exchange(std::shared_ptr<Connection> connection, net::any_io_executor executor, uint64_t serial,
           std::shared_ptr<Answering> answering, uint64_t room)
      : connection_(std::move(connection)),
        executor_(std::move(executor)),
        serial_(serial),
        answering_(std::move(answering)),
        reserved_(room) {}
  ~Exchange() override {
    net::post(executor_, [c = connection_, s = serial_, room = reserved_] {
      c->ReleaseBody(room);
      c->Reply(s, {.status = 500,
                   .body = ErrorJson("internal_error",
                                     "the server dropped the request; please report this")});
      c->End(s);
    });
  }
  void Respond(HttpReply reply) override {
    net::post(executor_, [c = connection_, s = serial_, r = std::move(reply)]() mutable {
      c->Reply(s, std::move(r));
    });
  }
  void BeginStream() override { BeginBytes("text/event-stream"); }
  void BeginBytes(const std::string& content_type) override {
    net::post(executor_,
              [c = connection_, s = serial_, content_type] { c->Begin(s, content_type); });
  }
  bool WriteBytes(std::string piece, std::function<void()> ready) override {
    {
      const std::lock_guard lock(answering_->mutex);
      if (answering_->gone) return true;
      if (answering_->unsent >= kUnsentBytesMax) {
        answering_->ready = std::move(ready);
        return false;
      }
      answering_->unsent += piece.size();
    }
    net::post(executor_,
              [c = connection_, s = serial_, p = std::move(piece)] { c->Piece(s, p, true); });
    return true;
  }
  void Break() override {
    net::post(executor_, [c = connection_, s = serial_] { c->Break(s); });
  }
  void Write(std::string piece) override {
    net::post(executor_, [c = connection_, s = serial_, p = std::move(piece)] { c->Piece(s, p); });
  }
  void EndStream() override {
    net::post(executor_, [c = connection_, s = serial_] { c->End(s); });
  }
  const std::atomic<bool>& gone() const override { return answering_->gone; }

 private:
  std::shared_ptr<Connection> connection_;
  net::any_io_executor executor_;
  uint64_t serial_;
  std::shared_ptr<Answering> answering_;
  uint64_t reserved_;
};

}  // namespace

void Connection::Enter(State state) {
  state_ = state;
  waits() ? server_.AddWaiting(this) : server_.RemoveWaiting(this);
}

void Connection::Close() {
  if (state_ == State::kClosed) return;
  Enter(State::kClosed);
  if (answering_ != nullptr) answering_->SetGone();
  admission_.reset();
  ReleaseBody(std::exchange(reserved_, 0));
  server_.ReleaseReply(peer_, std::exchange(out_bytes_, 0));
  error_code ignored;
  StopDeadline();
  watch_timer_.cancel();
  socket_.shutdown(tcp::socket::shutdown_both, ignored);
  socket_.close(ignored);
  server_.Remove(shared_from_this());
}

void Connection::ReleaseBody(uint64_t bytes) { server_.ReleaseBody(peer_, bytes); }

void Connection::SetDeadline(std::chrono::milliseconds time, void (Connection::*then)()) {
  deadline_.expires_after(time);
  deadline_.async_wait(
      [self = shared_from_this(), then, serial = ++deadline_serial_](const error_code& ec) {
        if (!ec && self->deadline_serial_ == serial && self->state_ != State::kClosed)
          ((*self).*then)();
      });
}

void Connection::StopDeadline() {
  ++deadline_serial_;
  deadline_.cancel();
}

void Connection::Expired() {
  if (state_ != State::kHeader && state_ != State::kBody) return Close();
  // The handler of the cancelled read sends the reply: the buffers are in use until then.
  expired_ = true;
  error_code ignored;
  socket_.cancel(ignored);
}

void Connection::Start() {
  if (!tls_.has_value()) return AwaitRequest();
  Enter(State::kHandshake);
  SetDeadline(server_.options().header_time);
  tls_->async_handshake(ssl::stream_base::server,
                        [self = shared_from_this()](const error_code& ec) {
                          if (self->state_ == State::kClosed) return;
                          if (ec) return self->Close();
                          self->AwaitRequest();
                        });
}

void Connection::RejectExcess(bool answer) {
  has_share_ = false;
  // With TLS a reply would need a handshake, which costs too much here.
  if (answer && !tls_.has_value()) return Refuse(503, "too many connections; retry later");
  (void)ReadHead();
  server_.Refused(head_, 503);
  Close();
}

void Connection::AwaitRequest() {
  if (server_.draining()) return Close();
  Enter(State::kIdle);
  if (buffer_.size() > 0) return ReadHeader();
  buffer_.shrink_to_fit();
  SetDeadline(server_.options().idle_time);
  // TLS reads ahead, so the socket does not show buffered bytes: read the first bytes instead of
  // waiting for readiness.
  if (tls_.has_value()) {
    return tls_->async_read_some(buffer_.prepare(kFirstBytes),
                                 [self = shared_from_this()](const error_code& ec, size_t bytes) {
                                   if (self->state_ == State::kClosed) return;
                                   if (ec) return self->Close();
                                   self->buffer_.commit(bytes);
                                   self->ReadHeader();
                                 });
  }
  socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](const error_code& ec) {
    if (self->state_ == State::kClosed) return;
    if (ec) return self->Close();
    self->ReadHeader();
  });
}

void Connection::ReadHeader() {
  Enter(State::kHeader);
  head_ = {};
  keep_alive_ = false;
  chunked_ = true;
  head_only_ = false;
  parser_.emplace();
  parser_->header_limit(kHeaderBytesMax);
  parser_->body_limit(boost::none);  // the limit of the route applies
  SetDeadline(server_.options().header_time);
  Through([&](auto& stream) {
    http::async_read_header(stream, buffer_, *parser_,
                            [self = shared_from_this()](const error_code& ec, size_t) {
                              if (self->state_ == State::kClosed) return;
                              if (self->expired_)
                                return self->Refuse(408, "the request header was too slow");
                              if (ec) return self->RefuseParse(ec);
                              self->HeaderRead();
                            });
  });
}

bool Connection::ReadHead() {
  head_.peer = address_;
  head_.id = id_ = RequestId(parser_.has_value() ? std::string_view(parser_->get()["X-Request-Id"])
                                                 : std::string_view());
  if (!parser_.has_value()) return false;
  const Message& message = parser_->get();
  keep_alive_ = message.keep_alive();
  chunked_ = message.version() >= 11;
  head_only_ = message.method() == http::verb::head;
  head_.method = head_only_ ? "GET" : std::string(message.method_string());
  head_.head_only = head_only_;
  if (const std::string_view trace = message["traceparent"]; IsTraceparent(trace))
    head_.traceparent = trace;
  const std::string type = LowerCase(message[http::field::content_type]);
  head_.content_type = type.substr(0, type.find(';'));
  while (head_.content_type.ends_with(' ')) head_.content_type.pop_back();
  head_.authorization = message[http::field::authorization];
  head_.upload_offset = message["Upload-Offset"];
  head_.upload_length = message["Upload-Length"];
  std::optional<HttpTarget> target = ParseTarget(message.target());
  if (!target.has_value()) return false;
  head_.path = std::move(target->path);
  head_.query = std::move(target->query);
  return true;
}

void Connection::HeaderRead() {
  const bool good_target = ReadHead();
  if (const auto objection =
          FindObjection(FieldsOf(parser_->get()), parser_->get().version() >= 11, server_.site())) {
    return Refuse(objection->status, objection->message);
  }
  if (!good_target) return Refuse(400, "the request target is malformed");
  admission_ = server_.admit()(head_);
  if (admission_->refusal.has_value()) return Decline();
  BeginBody();
}

void Connection::Decline() {
  HttpReply reply = std::move(*admission_->refusal);
  admission_.reset();
  keep_alive_ = keep_alive_ && parser_->is_done();  // a body is not read
  parser_.reset();
  Enter(State::kAnswering);
  Reply(serial_, std::move(reply));
}

void Connection::BeginBody() {
  Enter(State::kBody);
  body_bytes_max_ = std::min(admission_->body_bytes_max, server_.options().body_bytes_max);
  const auto length = parser_->content_length();
  // The server does not wait for a chunked body when the route takes none: that would occupy a
  // connection without work for the client.
  if (length.value_or(0) > body_bytes_max_ || (body_bytes_max_ == 0 && !parser_->is_done()))
    return RefuseLongBody();
  parser_->body_limit(body_bytes_max_);
  if (length.has_value()) body_bytes_max_ = *length;
  body_end_ = Clock::now() + server_.options().body_time;
  const bool patient = !parser_->is_done() && chunked_ &&
                       LowerCase(parser_->get()[http::field::expect]) == "100-continue";
  if (!patient) return ReadBody();
  SetDeadline(server_.options().write_time);
  static const std::string kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  Through([&](auto& stream) {
    net::async_write(stream, net::buffer(kContinue),
                     [self = shared_from_this()](const error_code& ec, size_t) {
                       if (self->state_ == State::kClosed) return;
                       if (ec) return self->Close();
                       self->ReadBody();
                     });
  });
}

void Connection::ReadBody() {
  if (parser_->is_done()) return Handle();
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(body_end_ - Clock::now());
  SetDeadline(
      std::min(server_.options().body_stall_time, std::max(left, std::chrono::milliseconds(0))));
  Through([&](auto& stream) {
    http::async_read_some(
        stream, buffer_, *parser_, [self = shared_from_this()](const error_code& ec, size_t) {
          if (self->state_ == State::kClosed) return;
          if (self->expired_)
            return self->Refuse(
                408, "the request body was too slow; send it again, or send a long body in parts");
          if (ec && ec != http::error::need_buffer) return self->RefuseParse(ec);
          if (ec && !self->GrowBody()) return;
          self->ReadBody();
        });
  });
}

bool Connection::GrowBody() {
  if (body_.size() >= body_bytes_max_) {
    RefuseLongBody();
    return false;
  }
  const uint64_t size =
      std::min(body_bytes_max_, std::max(kBodyFirstBytes, 2 * static_cast<uint64_t>(body_.size())));
  if (!server_.ReserveBody(peer_, size - reserved_)) {
    Refuse(503, "too many long requests; retry later");
    return false;
  }
  const size_t used = body_.size();  // it is full
  body_.resize(size);
  reserved_ = size;
  http::buffer_body::value_type& sink = parser_->get().body();
  sink.data = body_.data() + used;
  sink.size = size - used;
  if (used >= kReadBytes) buffer_.reserve(kReadBytes);
  return true;
}

void Connection::DropBody() {
  parser_.reset();
  body_ = std::string();
  ReleaseBody(std::exchange(reserved_, 0));
}

void Connection::RefuseLongBody() {
  const uint64_t most = std::min(admission_->body_bytes_max, server_.options().body_bytes_max);
  Refuse(413, "the request body is longer than " + std::to_string(most) + " bytes; " +
                  admission_->when_longer);
}

void Connection::RefuseParse(const error_code& ec) {
  if (ec == http::error::header_limit)
    return Refuse(431, "the request headers are longer than 16 KiB");
  if (ec == http::error::body_limit) return RefuseLongBody();
  if (ec.category() == http::make_error_code(http::error::bad_target).category() &&
      ec != http::error::end_of_stream && ec != http::error::partial_message) {
    return Refuse(400, "the request is not valid HTTP: " + ec.message());
  }
  Close();
}

void Connection::Refuse(unsigned status, const std::string& message) {
  expired_ = false;
  if (head_.id.empty()) (void)ReadHead();
  keep_alive_ = false;
  if (admission_.has_value()) {
    if (admission_->refused) admission_->refused(status);
  } else {
    server_.Refused(head_, status);
  }
  admission_.reset();
  DropBody();
  Enter(State::kAnswering);
  HttpReply reply{.status = status, .body = ErrorJson(ErrorTypeOf(status), message), .headers = {}};
  if (status == 503) reply.headers.emplace_back("Retry-After", "1");
  Reply(serial_, std::move(reply));
}

void Connection::Handle() {
  HttpRequest request = std::move(head_);
  body_.resize(body_.size() - parser_->get().body().size);
  request.body = std::exchange(body_, std::string());
  const HttpAdmission admission = std::move(*admission_);
  admission_.reset();
  parser_.reset();
  StopDeadline();
  Enter(State::kAnswering);
  answering_ = std::make_shared<Answering>();
  Watch();
  admission.handle(std::move(request),
                   std::make_shared<Exchange>(shared_from_this(), socket_.get_executor(), serial_,
                                              answering_, std::exchange(reserved_, 0)));
}

// Detects that the client has disconnected. Readiness without readable bytes means that it has.
// With readable bytes (the next request, or the end of TLS) the TCP state of the connection shows
// it.
void Connection::Watch() {
  const auto current = [self = shared_from_this(), serial = serial_](const error_code& ec) {
    return !ec && self->serial_ == serial && self->state_ != State::kClosed;
  };
  socket_.async_wait(
      tcp::socket::wait_read, [self = shared_from_this(), current](const error_code& ec) {
        if (!current(ec)) return;
        char byte = 0;
        const ssize_t n = recv(self->socket_.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return self->Close();
        tcp_info info{};
        socklen_t length = sizeof info;
        getsockopt(self->socket_.native_handle(), IPPROTO_TCP, TCP_INFO, &info, &length);
        if (info.tcpi_state != TCP_ESTABLISHED) return self->Close();
        self->watch_timer_.expires_after(kGonePoll);
        self->watch_timer_.async_wait([self, current](const error_code& ended) {
          if (current(ended)) self->Watch();
        });
      });
}

}  // namespace longhold::asio_http
