// Replies of a connection of the HTTP server: heads, pieces of streams, the queue of what the
// client has not received yet, and the end of a reply.
#include <cstdio>
#include <ctime>
#include <utility>

#include "base/clock.h"
#include "service/server/asio_http_server.h"
#include "service/server/http_connection.h"

namespace longhold::asio_http {
namespace {

// Bytes of one reply that may wait for the client; the pieces of an answer are far smaller.
constexpr size_t kPendingBytesMax = 4 << 20;
constexpr size_t kDiscardBytes = 4096;  // read of discarded bytes
constexpr std::chrono::seconds kLingerTime{2};

std::string Date() {
  const std::time_t now = UnixSeconds();
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[40];
  std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &utc);
  return text;
}

}  // namespace

std::string Connection::Head(const HttpReply& reply, bool stream) const {
  std::string head = "HTTP/1.1 " + std::to_string(reply.status) + " " +
                     std::string(http::obsolete_reason(static_cast<http::status>(reply.status))) +
                     "\r\nDate: " + Date() + "\r\nContent-Type: " + reply.content_type + "\r\n";
  if (!stream && reply.status != 204)
    head += "Content-Length: " + std::to_string(reply.body.size()) + "\r\n";
  if (stream && chunked_) head += "Transfer-Encoding: chunked\r\n";
  head += std::string("Connection: ") + (keep_alive_ ? "keep-alive" : "close") +
          "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n";
  if (!id_.empty()) head += "X-Request-Id: " + id_ + "\r\n";
  for (const auto& [name, value] : reply.headers) head += name + ": " + value + "\r\n";
  return head + "\r\n";
}

void Connection::Reply(uint64_t serial, HttpReply reply) {
  if (serial != serial_ || state_ != State::kAnswering) return;
  keep_alive_ = keep_alive_ && !server_.draining();
  Enter(State::kFinishing);
  std::string bytes = Head(reply, false);
  if (!head_only_) bytes += reply.body;
  Queue(std::move(bytes));
}

void Connection::Begin(uint64_t serial, const std::string& content_type) {
  if (serial != serial_ || state_ != State::kAnswering) return;
  keep_alive_ = keep_alive_ && !server_.draining() && chunked_;
  Enter(State::kStreaming);
  events_ = content_type == "text/event-stream";
  Queue(Head({.content_type = content_type}, true));
}

void Connection::Break(uint64_t serial) {
  if (serial == serial_ && state_ == State::kStreaming) Close();
}

void Connection::Piece(uint64_t serial, const std::string& piece, bool counted) {
  if (serial != serial_ || state_ != State::kStreaming || piece.empty() || head_only_) {
    if (counted && serial == serial_ && answering_ != nullptr) answering_->OnSent(piece.size());
    return;
  }
  if (out_bytes_ + piece.size() > kPendingBytesMax) return Close();
  char size[20];
  std::snprintf(size, sizeof size, "%zx\r\n", piece.size());
  Queue(chunked_ ? size + piece + "\r\n" : piece, counted ? piece.size() : 0);
}

void Connection::End(uint64_t serial) {
  if (serial != serial_ || state_ != State::kStreaming) return;
  Enter(State::kFinishing);
  if (chunked_ && !head_only_)
    Queue("0\r\n\r\n");
  else if (!writing_)
    Finished();
}

void Connection::Queue(std::string bytes, size_t counted) {
  if (!server_.ReserveReply(this, bytes.size())) return;
  out_bytes_ += bytes.size();
  out_.emplace_back(std::move(bytes), counted);
  if (!writing_) WriteNext();
}

void Connection::WriteNext() {
  writing_ = true;
  writing_since_ = Clock::now();
  SetDeadline(server_.options().write_time);
  Through([&](auto& stream) {
    net::async_write(stream, net::buffer(out_.front().first),
                     [self = shared_from_this()](const error_code& ec, size_t) {
                       self->writing_ = false;
                       if (self->state_ == State::kClosed) return;
                       if (ec) return self->Close();
                       self->out_bytes_ -= self->out_.front().first.size();
                       self->server_.ReleaseReply(self->peer_, self->out_.front().first.size());
                       if (self->answering_ != nullptr && self->out_.front().second > 0)
                         self->answering_->OnSent(self->out_.front().second);
                       self->out_.pop_front();
                       if (!self->out_.empty()) return self->WriteNext();
                       if (self->state_ == State::kFinishing) return self->Finished();
                       self->events_
                           ? self->SetDeadline(self->server_.options().ping_time, &Connection::Ping)
                           : self->StopDeadline();
                     });
  });
}

void Connection::Ping() { Piece(serial_, ": ping\n\n"); }

void Connection::Finished() {
  StopDeadline();
  watch_timer_.cancel();
  ++serial_;
  id_.clear();
  answering_.reset();
  keep_alive_ ? AwaitRequest() : Linger();
}

// Lingering close: the server discards what the client still sends. Closing at once would cause a
// reset, and the client could lose the reply.
void Connection::Linger() {
  Enter(State::kLingering);
  SetDeadline(kLingerTime);
  const auto discard = [self = shared_from_this()] {
    error_code ignored;
    self->socket_.shutdown(tcp::socket::shutdown_send, ignored);
    self->Discard();
  };
  if (!tls_.has_value()) return discard();
  // Without a TLS shutdown a client cannot distinguish the end of a reply from a truncated one. A
  // client that still sends a body does not answer the shutdown; its records are discarded unread.
  tls_->async_shutdown([self = shared_from_this(), discard](const error_code& ec) {
    if (self->state_ == State::kClosed) return;
    ec ? discard() : self->Close();
  });
}

void Connection::Discard() {
  buffer_.clear();
  socket_.async_read_some(buffer_.prepare(kDiscardBytes),
                          [self = shared_from_this()](const error_code& ec, size_t) {
                            if (self->state_ == State::kClosed) return;
                            if (ec) return self->Close();
                            self->Discard();
                          });
}

}  // namespace longhold::asio_http
