#include "service/wire/wire_connection.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

namespace longhold::wire {
namespace {

// A message up to this size needs no share of the common memory: connections_max bounds them.
constexpr uint32_t kSmallMessageBytes = 64 << 10;
// Of one connection, before others have their turn.
constexpr size_t kTurnBytes = 4 << 20;
constexpr size_t kScratchBytes = 64 << 10;
constexpr std::chrono::milliseconds kLinger{1000};

// Closes what came with a message, but for the first descriptor, which it returns.
std::optional<FileDescriptor> TakeDescriptor(msghdr* message, size_t* count) {
  std::optional<FileDescriptor> first;
  for (cmsghdr* c = CMSG_FIRSTHDR(message); c != nullptr; c = CMSG_NXTHDR(message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = 0; at + sizeof(int) <= c->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + at, sizeof fd);
      FileDescriptor owned(fd);
      ++*count;
      if (!first.has_value()) first.emplace(std::move(owned));
    }
  }
  return first;
}

}  // namespace

Connection::Connection(Host& host, Socket socket, Session::Peer peer)
    : host_(host),
      socket_(std::move(socket)),
      peer_(std::move(peer)),
      session_(std::make_shared<Session>(&host.service(), peer_)),
      deadline_(socket_.get_executor()) {}

void Connection::Start() {
  error_code ignored;
  socket_.non_blocking(true, ignored);
  AwaitFrame();
}

void Connection::RejectExcess() {
  error_code ignored;
  socket_.non_blocking(true, ignored);
  SendError(Unavailable("the server has no free connection; retry later"), true);
}

void Connection::Close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  StopDeadline();
  error_code ignored;
  socket_.close(ignored);
  request_ = {};
  reply_ = {};
  // A job that still runs holds the session, too.
  host_.jobs().Resume([session = std::move(session_)]() mutable { session.reset(); }, "");
  host_.Remove(shared_from_this());
}

void Connection::SetDeadline(std::chrono::milliseconds time) {
  const uint64_t serial = ++deadline_serial_;
  deadline_.expires_after(time);
  deadline_.async_wait([self = shared_from_this(), serial](const error_code& ec) {
    if (!ec && serial == self->deadline_serial_) self->Expired();
  });
}

void Connection::StopDeadline() {
  ++deadline_serial_;
  deadline_.cancel();
}

void Connection::Expired() {
  const bool greeted = session_ != nullptr && session_->greeted();
  if (state_ == State::kReading || (state_ == State::kIdle && !greeted))
    return SendError(DeadlineExceeded("the request came too slowly"), true);
  Close();
}

// ------------------------------------------------------------------------------------------------
// reading

void Connection::AwaitFrame() {
  if (host_.draining()) return Close();
  state_ = State::kIdle;
  idle_since_ = Clock::now();
  request_ = {};
  header_read_ = message_read_ = payload_read_ = 0;
  skip_bytes_ = 0;
  const WireServerOptions& o = host_.options();
  // Hello has one deadline, from the connection on.
  SetDeadline(session_->greeted() ? o.idle_time : o.hello_time);
  AwaitBytes();
}

void Connection::AwaitBytes() {
  socket_.async_wait(Socket::wait_read, [self = shared_from_this()](const error_code& ec) {
    if (self->state_ != State::kIdle && self->state_ != State::kReading) return;
    if (ec) return self->Close();
    self->OnReadable();
  });
}

void Connection::OnReadable() {
  if (header_read_ < kHeaderBytes) {
    if (!ReadHeader()) return;
    if (header_read_ < kHeaderBytes) return AwaitBytes();
    if (!BeginBody()) return;
  }
  ReadBody();
}

size_t Connection::Receive(char* to, size_t size, bool with_memfd) {
  iovec part{.iov_base = to, .iov_len = size};
  // Room for one descriptor: the kernel closes further ones, and says so.
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (peer_.local && with_memfd) {
    message.msg_control = control;
    message.msg_controllen = CMSG_LEN(sizeof(int));
  }
  ssize_t n = 0;
  do {
    n = recvmsg(socket_.native_handle(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return 0;
  if (n <= 0) {
    Close();
    return 0;
  }
  size_t count = 0;
  std::optional<FileDescriptor> memfd = TakeDescriptor(&message, &count);
  if ((message.msg_flags & MSG_CTRUNC) != 0 || count > 1 ||
      (count == 1 && request_.memfd != nullptr)) {
    SendError(InvalidArgument("a frame comes with one descriptor at most, beside its header"),
              true);
    return 0;
  }
  if (memfd.has_value()) request_.memfd = std::make_unique<FileDescriptor>(std::move(*memfd));
  return static_cast<size_t>(n);
}

// Returns false when the connection has ended or answers an error.
bool Connection::ReadHeader() {
  const size_t n = Receive(&header_[header_read_], kHeaderBytes - header_read_, true);
  if (state_ != State::kIdle && state_ != State::kReading) return false;
  if (n == 0) return true;
  if (state_ == State::kIdle) {
    state_ = State::kReading;
    frame_end_ = Clock::now() + host_.options().frame_time;
    if (session_->greeted()) SetDeadline(host_.options().stall_time);
  }
  header_read_ += n;
  return true;
}

// Returns false when the connection answers an error.
bool Connection::BeginBody() {
  const Result<FrameHeader> header = DecodeHeader(header_);
  if (!header.ok()) {
    SendError(header.status(), true);
    return false;
  }
  request_.header = *header;
  Status admitted = session_->Admit(*header);
  if (admitted.ok() && header->flags == 0 && request_.memfd != nullptr)
    admitted = InvalidArgument("a descriptor came with a frame that says nothing of it");
  if (!admitted.ok()) {
    SendError(admitted, true);
    return false;
  }
  const bool inline_payload = (header->flags & kPayloadInMemfd) == 0;
  const uint64_t payload_bytes = inline_payload ? header->payload_bytes : 0;
  uint64_t wanted = payload_bytes;
  if (header->message_bytes > kSmallMessageBytes) wanted += header->message_bytes;
  Result<ByteShares::Taken> bytes = host_.service().bytes().Take(peer_.name, wanted);
  Status status = bytes.status();
  if (status.ok()) {
    request_.bytes = std::move(*bytes);
    Result<Payload> message = Payload::OfSize(header->message_bytes);
    Result<Payload> payload = Payload::OfSize(payload_bytes);
    status = message.ok() ? payload.status() : message.status();
    if (status.ok()) {
      request_.message = std::move(*message);
      request_.payload = std::move(*payload);
      return true;
    }
  }
  // The rest of the frame is read and dropped, so that the connection stays of use.
  skip_reason_ = status;
  skip_bytes_ = header->message_bytes + payload_bytes;
  return true;
}

void Connection::ReadBody() {
  size_t turn = 0;
  bool progress = false;
  const auto read = [&](char* to, size_t size, size_t* done) {
    while (*done < size && turn < kTurnBytes) {
      const size_t n = Receive(to + *done, std::min(size - *done, kTurnBytes), false);
      if (n == 0 || state_ != State::kReading) return;
      *done += n;
      turn += n;
      progress = true;
    }
  };
  if (skip_bytes_ > 0) {
    char scratch[kScratchBytes];
    while (skip_bytes_ > 0 && turn < kTurnBytes) {
      const size_t n = Receive(scratch, std::min<uint64_t>(skip_bytes_, sizeof scratch), false);
      if (n == 0 || state_ != State::kReading) break;
      turn += n;
      skip_bytes_ -= n;
      progress = true;
    }
    if (state_ != State::kReading) return;
    if (skip_bytes_ == 0) return SendError(skip_reason_, false);
  } else {
    read(request_.message.bytes().data(), request_.message.size(), &message_read_);
    if (state_ != State::kReading) return;
    if (message_read_ == request_.message.size())
      read(request_.payload.bytes().data(), request_.payload.size(), &payload_read_);
    if (state_ != State::kReading) return;
    if (message_read_ == request_.message.size() && payload_read_ == request_.payload.size())
      return FrameRead();
  }
  if (progress && session_->greeted()) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(frame_end_ - Clock::now());
    SetDeadline(std::clamp(left, std::chrono::milliseconds(0), host_.options().stall_time));
  }
  AwaitBytes();
}

void Connection::FrameRead() {
  StopDeadline();
  if (!session_->greeted()) return Send(session_->Greet(request_));
  if (const Status counted = session_->Count(request_.header.type); !counted.ok())
    return SendError(counted, false);
  state_ = State::kWorking;
  const uint64_t id = request_.header.request_id;
  const auto job = [self = shared_from_this(), session = session_,
                    request = std::make_shared<Request>(std::move(request_))]() mutable {
    auto reply = std::make_shared<Reply>(session->Handle(std::move(*request)));
    request.reset();
    net::post(self->socket_.get_executor(), [self, reply] {
      if (self->state_ == State::kWorking) self->Send(std::move(*reply));
    });
  };
  const Status taken = host_.jobs().Add(job, session_->tenant());
  if (!taken.ok()) Send(ErrorFrame(id, Unavailable("too many requests wait; retry later"), false));
}

// ------------------------------------------------------------------------------------------------
// writing

void Connection::SendError(const Status& status, bool close) {
  Send(ErrorFrame(request_.header.request_id, status, close));
}

void Connection::Send(Reply reply) {
  state_ = State::kWriting;
  request_ = {};
  reply_ = std::move(reply);
  frame_sent_ = payload_sent_ = 0;
  SetDeadline(host_.options().write_time);
  WriteSome();
}

void Connection::WriteSome() {
  for (size_t turn = 0; turn < kTurnBytes;) {
    const std::span<char> payload = reply_.payload.bytes();
    iovec parts[2] = {{.iov_base = reply_.frame.data() + frame_sent_,
                       .iov_len = reply_.frame.size() - frame_sent_},
                      {.iov_base = payload.data() + payload_sent_,
                       .iov_len = std::min(payload.size() - payload_sent_, kTurnBytes)}};
    if (parts[0].iov_len + parts[1].iov_len == 0) return Written();
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    if (reply_.memfd != nullptr && frame_sent_ == 0) {
      message.msg_control = control;
      message.msg_controllen = sizeof control;
      cmsghdr* c = CMSG_FIRSTHDR(&message);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(sizeof(int));
      const int fd = reply_.memfd->get();
      std::memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    ssize_t n = 0;
    do {
      n = sendmsg(socket_.native_handle(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return Close();
    if (n < 0) break;
    const size_t of_frame = std::min<size_t>(static_cast<size_t>(n), parts[0].iov_len);
    frame_sent_ += of_frame;
    payload_sent_ += static_cast<size_t>(n) - of_frame;
    turn += static_cast<size_t>(n);
    SetDeadline(host_.options().write_time);
  }
  socket_.async_wait(Socket::wait_write, [self = shared_from_this()](const error_code& ec) {
    if (self->state_ != State::kWriting) return;
    if (ec) return self->Close();
    self->WriteSome();
  });
}

void Connection::Written() {
  const bool close = std::exchange(reply_, {}).close;
  if (close) return Linger();
  AwaitFrame();
}

// Reads what the client still sends, for a short time: bytes that nobody reads would make the
// system drop the reply that was just sent.
void Connection::Linger() {
  state_ = State::kLingering;
  error_code ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
  SetDeadline(kLinger);
  Discard();
}

void Connection::Discard() {
  socket_.async_wait(Socket::wait_read, [self = shared_from_this()](const error_code& ec) {
    if (self->state_ != State::kLingering) return;
    if (ec) return self->Close();
    char scratch[kScratchBytes];
    const ssize_t n = recv(self->socket_.native_handle(), scratch, sizeof scratch, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return self->Close();
    self->Discard();
  });
}

}  // namespace longhold::wire
