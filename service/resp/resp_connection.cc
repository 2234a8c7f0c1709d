#include "service/resp/resp_connection.h"

#include <algorithm>
#include <array>
#include <utility>

namespace longhold::asio_resp {
namespace {

using error_code = boost::system::error_code;

constexpr std::string_view kLineEnd = "\r\n";
// Parts of one send: as many as Asio passes on in one call.
constexpr size_t kPartsMax = 60;
// What a command takes besides its arguments.
constexpr uint64_t kCommandBytes = 256;

}  // namespace

Connection::Connection(Server* server, Socket socket, uint64_t id, Clock::time_point now)
    : server_(server),
      socket_(std::move(socket)),
      session_(&server->context(), id),
      begun_(now),
      progress_at_(now),
      command_at_(now),
      waited_at_(now) {
  session_.Check(now);
}

// ------------------------------------------------------------------------------------------------
// commands

void Connection::Advance() {
  if (closed_ || advancing_) return;
  advancing_ = true;  // completions of operations call it again
  bool some = true;
  while (some && !closed_) some = StartOperation() || Parse();
  advancing_ = false;
  if (closed_) return;
  Send();
  ReadMore();
}

bool Connection::Parse() {
  if (failed_ || session_.quitting() || server_->draining() || !todo_.empty()) return false;
  if (!command_.empty()) {
    // Others than changes see the store, so they wait for the changes before them.
    if (writes_ > 0 && !RespSession::Changes(command_)) return false;
    if (pending_.size() >= kRepliesMax) return false;
    TakeCommand();
    return true;
  }
  switch (parser_.Next()) {
    case RespParser::Event::kNeedMore: short_waits_ = !ReserveShort(); return false;
    case RespParser::Event::kLongArgument:
      // Before AUTH nobody has a reason to send one.
      if (!session_.admitted()) {
        Fail("NOAUTH Authentication required.");
        return false;
      }
      if (!Reserve(parser_.long_bytes())) return false;
      command_reserved_ += parser_.long_bytes();
      parser_.AllowLong();
      WaitForClient();
      return true;
    case RespParser::Event::kCommand:
      command_ = parser_.TakeCommand();
      short_reserved_ = 0;
      return true;
    case RespParser::Event::kError: Fail("ERR " + parser_.error()); return false;
  }
  return false;
}

void Connection::TakeCommand() {
  server_->CountCommand();
  std::vector<RespOperation> operations =
      session_.Handle(std::exchange(command_, {}), Clock::now());
  for (RespOperation& operation : operations) todo_.push_back(std::move(operation));
}

bool Connection::ReserveShort() {
  const uint64_t bytes = parser_.short_bytes();
  if (bytes <= short_reserved_ + kShortFreeBytes) return true;
  if (!session_.admitted()) {
    Fail("NOAUTH Authentication required.");
    return false;
  }
  if (!Reserve(bytes - short_reserved_)) return false;
  if (short_waits_) WaitForClient();
  command_reserved_ += bytes - short_reserved_;
  short_reserved_ = bytes;
  return true;
}

void Connection::Fail(std::string_view error) {
  failed_ = true;
  const std::shared_ptr<PendingReply> reply = AddReply(RespOperation::Kind::kReply, 0);
  AppendError(&reply->text, error);
  Done(*reply);
}

void Connection::Reject(std::string_view line) {
  Fail(line);
  Send();
}

bool Connection::StartOperation() {
  if (todo_.empty() || queued_bytes_ >= kQueuedBytesMax || queued_text_ >= kQueuedTextMax ||
      pending_.size() >= 2 * kRepliesMax + RespParser::kArgumentsMax)
    return false;
  RespOperation& operation = todo_.front();
  switch (operation.kind) {
    case RespOperation::Kind::kReply: {
      const std::shared_ptr<PendingReply> reply = AddReply(operation.kind, 0);
      reply->text = std::move(operation.text);
      Done(*reply);
      break;
    }
    case RespOperation::Kind::kGet:
      if (!StartGet(operation)) return false;
      break;
    case RespOperation::Kind::kSet:
    case RespOperation::Kind::kDelete: {
      // A read in progress must not see what comes after it.
      if (reads_ > 0) return false;
      uint64_t bytes = kCommandBytes;
      for (const ValueChange& change : operation.changes)
        bytes += kCommandBytes + change.key.size() +
                 (change.value == nullptr ? 0 : change.value->size());
      if (bytes > command_reserved_ && !Reserve(bytes - command_reserved_)) return false;
      const uint64_t reserved = std::max(bytes, std::exchange(command_reserved_, 0));
      ++writes_;
      std::shared_ptr<PendingReply> reply = AddReply(operation.kind, reserved);
      server_->Write(session_.store(), {.connection = shared_from_this(),
                                        .reply = std::move(reply),
                                        .changes = std::move(operation.changes)});
      break;
    }
  }
  todo_.pop_front();
  // Operations hold the arguments. Those of a change are its own.
  if (todo_.empty()) Unreserve(std::exchange(command_reserved_, 0));
  return true;
}

bool Connection::StartGet(RespOperation& operation) {
  if (reads_ >= kReadsMax) return false;
  // The size is known from the index, and reserved before anything is counted or read.
  const ValuePlace size = session_.store()->Look(operation.text);
  if (!Reserve(kCommandBytes + size.bytes)) return false;
  const ValuePlace place = session_.store()->Find(operation.text);
  const std::shared_ptr<PendingReply> reply = AddReply(operation.kind, kCommandBytes + size.bytes);
  switch (place.where) {
    case ValuePlace::Where::kNowhere: Answer(*reply, NotFound("")); return true;
    case ValuePlace::Where::kRam: Answer(*reply, place.value); return true;
    case ValuePlace::Where::kDisk: break;
  }
  ++reads_;
  if (!server_->Read(session_.store(), operation.text, shared_from_this(), reply)) {
    --reads_;
    Answer(*reply, Unavailable(""));
  }
  return true;
}

// ------------------------------------------------------------------------------------------------
// replies

std::shared_ptr<PendingReply> Connection::AddReply(RespOperation::Kind kind, uint64_t reserved) {
  auto reply = std::make_shared<PendingReply>();
  reply->kind = kind;
  reply->reserved = reserved;
  pending_.push_back(reply);
  return reply;
}

void Connection::Done(PendingReply& reply) {
  reply.ready = true;
  if (queued_bytes_ == 0) WaitForClient();
  queued_bytes_ += reply.bytes();
  queued_text_ += reply.text.size();
}

void Connection::Written(PendingReply& reply, const Status& status,
                         const std::vector<ValueChange>& changes) {
  --writes_;
  // The bytes are in the store now. The reply is short.
  Unreserve(std::exchange(reply.reserved, 0));
  if (!status.ok()) {
    AppendError(&reply.text, status.code() == StatusCode::kResourceExhausted
                                 ? "OOM the disk is full"
                                 : "ERR the values could not be written");
  } else if (reply.kind == RespOperation::Kind::kDelete) {
    AppendInteger(&reply.text,
                  std::count_if(changes.begin(), changes.end(),
                                [](const ValueChange& change) { return change.applied; }));
  } else if (changes[0].applied) {
    AppendSimple(&reply.text, "OK");
  } else {
    AppendNull(&reply.text, session_.version());
  }
  Done(reply);
}

void Connection::ReadDone(PendingReply& reply, const Result<Value>& value) {
  --reads_;
  Answer(reply, value);
  Advance();
}

void Connection::Answer(PendingReply& reply, const Result<Value>& value) {
  if (value.ok()) {
    reply.value = *value;
    AppendBulkHead(&reply.text, (*value)->size());
  } else if (value.status().code() == StatusCode::kNotFound) {
    AppendNull(&reply.text, session_.version());
  } else {
    AppendError(&reply.text, value.status().code() == StatusCode::kUnavailable
                                 ? "ERR too many reads wait; try again"
                                 : "ERR the value could not be read");
  }
  Done(reply);
}

void Connection::Send() {
  if (sending_ || closed_) return;
  std::vector<net::const_buffer> parts;
  size_t skip = sent_;
  const auto add = [&](const char* data, size_t bytes) {
    const size_t skipped = std::min(skip, bytes);
    skip -= skipped;
    if (bytes > skipped) parts.emplace_back(data + skipped, bytes - skipped);
  };
  for (const std::shared_ptr<PendingReply>& reply : pending_) {
    if (!reply->ready || parts.size() >= kPartsMax) break;
    add(reply->text.data(), reply->text.size());
    if (reply->value == nullptr) continue;
    add(reply->value->data(), reply->value->size());
    add(kLineEnd.data(), kLineEnd.size());
  }
  if (parts.empty()) {
    if ((failed_ || session_.quitting() || server_->draining()) && pending_.empty() &&
        todo_.empty() && writes_ == 0 && reads_ == 0)
      Close();
    return;
  }
  sending_ = true;
  socket_.async_write_some(parts, [self = shared_from_this()](const error_code& ec, size_t bytes) {
    self->sending_ = false;
    if (self->closed_) return;
    if (ec) return self->Close();
    self->Sent(bytes);
    self->Advance();
  });
}

void Connection::Sent(size_t bytes) {
  Progress(bytes);
  sent_ += bytes;
  while (!pending_.empty() && pending_.front()->ready && sent_ >= pending_.front()->bytes()) {
    const PendingReply& reply = *pending_.front();
    sent_ -= reply.bytes();
    queued_bytes_ -= reply.bytes();
    queued_text_ -= reply.text.size();
    const uint64_t reserved = reply.reserved;
    pending_.pop_front();
    Unreserve(reserved);
  }
}

// ------------------------------------------------------------------------------------------------
// the socket

void Connection::ReadMore() {
  if (reading_ || closed_ || failed_ || session_.quitting() || server_->draining()) return;
  // What has been read goes first.
  if (!command_.empty() || !todo_.empty() || parser_.waits() || short_waits_) return;
  const std::array<std::span<char>, 2> space = parser_.Space();
  const std::array<net::mutable_buffer, 2> buffers = {
      net::buffer(space[0].data(), space[0].size()), net::buffer(space[1].data(), space[1].size())};
  reading_ = true;
  socket_.async_read_some(buffers, [self = shared_from_this()](const error_code& ec, size_t bytes) {
    self->reading_ = false;
    if (self->closed_) return;
    if (ec) return self->Close();
    if (!self->parser_.within_command()) self->command_at_ = Clock::now();
    self->Progress(bytes);
    self->parser_.Added(bytes);
    self->Advance();
  });
}

void Connection::Close() {
  if (closed_) return;
  closed_ = true;
  error_code ignored;
  socket_.shutdown(Socket::shutdown_both, ignored);
  socket_.close(ignored);
  // Operations in progress end by themselves; their replies are dropped.
  Unreserve(reserved_);
  server_->Remove(shared_from_this());
}

bool Connection::Reserve(uint64_t bytes) {
  if (!server_->Reserve(shared_from_this(), bytes, command_reserved_ > 0)) return false;
  reserved_ += bytes;
  return true;
}

void Connection::Unreserve(uint64_t bytes) {
  // After Close there is nothing left to return.
  bytes = std::min(bytes, reserved_);
  if (bytes == 0) return;
  reserved_ -= bytes;
  server_->Release(bytes);
}

void Connection::Progress(size_t bytes) {
  progress_at_ = Clock::now();
  waited_bytes_ += bytes;
}

void Connection::WaitForClient() {
  waited_at_ = Clock::now();
  waited_bytes_ = 0;
}

std::optional<double> Connection::ClientRate(Clock::time_point now) const {
  const double seconds = std::chrono::duration<double>(now - waited_at_).count();
  if (!(reading_ && parser_.within_command()) && !sending_) return std::nullopt;
  if (seconds < 1) return std::nullopt;
  return static_cast<double>(waited_bytes_) / seconds;
}

void Connection::CheckTime(Clock::time_point now) {
  const RespServerOptions& options = server_->options();
  const bool stalled = now - progress_at_ > options.stall_time;
  if (sending_ && stalled) return Close();
  if (!session_.admitted() && now - begun_ > options.auth_time) return Close();
  if (!reading_) return;  // it waits for us
  if (parser_.within_command()) {
    if (stalled || now - command_at_ > options.command_time) return Close();
  } else if (idle() && now - progress_at_ > options.idle_time) {
    Close();
  }
}

}  // namespace longhold::asio_resp
