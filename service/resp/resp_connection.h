// One connection of a Redis client: reads commands, starts their operations, and sends the replies
// in the order of the commands.
//
// Bounds: kRepliesMax replies in progress or unsent, kQueuedBytesMax of their bytes and
// kQueuedTextMax of those that are not values, kReadsMax reads from the disk. Beyond them nothing
// more is read from the client until it has received some. A client that sends on and on without
// receiving is closed after RespServerOptions::stall_time.
//
// Owner: the server, and operations in progress. Thread use: *confined* to the server's thread.
// Internal to the server.
#pragma once

#include <boost/asio.hpp>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "service/resp/asio_resp_server.h"
#include "service/resp/resp_parser.h"
#include "service/resp/resp_session.h"

namespace longhold::asio_resp {

// A reply in progress. Filled in by the connection or by a completed operation.
struct PendingReply {
  bool ready = false;
  std::string text;  // all of it, or what stands before `value`
  Value value;       // followed by a line end
  uint64_t reserved = 0;
  RespOperation::Kind kind = RespOperation::Kind::kReply;

  uint64_t bytes() const { return text.size() + (value == nullptr ? 0 : value->size() + 2); }
};

class Connection final : public std::enable_shared_from_this<Connection> {
 public:
  static constexpr size_t kRepliesMax = 1024;
  static constexpr uint64_t kQueuedBytesMax = 128ull << 20;
  static constexpr uint64_t kQueuedTextMax = 256ull << 10;
  static constexpr size_t kReadsMax = 16;
  // Of short arguments: so many of a command need no reservation, and further ones have one in
  // steps of as many.
  static constexpr uint64_t kShortFreeBytes = 64 << 10;

  Connection(Server* server, Socket socket, uint64_t id, Clock::time_point now);

  // Goes on with whatever can go on: parses, starts operations, sends, reads.
  void Advance();
  // Sends a line and closes.
  void Reject(std::string_view line);
  // The operation of `reply` is done. These fill it in.
  void Written(PendingReply& reply, const Status& status, const std::vector<ValueChange>& changes);
  void ReadDone(PendingReply& reply, const Result<Value>& value);
  // Closes if a deadline has passed.
  void CheckTime(Clock::time_point now);
  void Close();
  bool closed() const { return closed_; }

  bool idle() const { return pending_.empty() && todo_.empty() && !parser_.within_command(); }
  Clock::time_point progress_at() const { return progress_at_; }
  uint64_t reserved() const { return reserved_; }
  // Bytes a second that the client has sent or received since it was waited for. Nothing if it is
  // not waited for, or for less than a second.
  std::optional<double> ClientRate(Clock::time_point now) const;

 private:
  // Each returns whether it got anything done.
  bool Parse();
  bool StartOperation();
  void TakeCommand();
  bool StartGet(RespOperation& operation);
  void Answer(PendingReply& reply, const Result<Value>& value);
  void Fail(std::string_view error);
  void ReadMore();
  void Send();
  void Sent(size_t bytes);
  std::shared_ptr<PendingReply> AddReply(RespOperation::Kind kind, uint64_t reserved);
  void Done(PendingReply& reply);
  bool Reserve(uint64_t bytes);
  // Reserves what the short arguments of an incomplete command take. False: it must wait, or fails.
  bool ReserveShort();
  void Unreserve(uint64_t bytes);
  void Progress(size_t bytes);
  void WaitForClient();

  Server* const server_;
  Socket socket_;
  RespParser parser_;
  RespSession session_;
  std::vector<RespArgument> command_;  // parsed, not handled yet; empty: none
  std::deque<RespOperation> todo_;     // of the last command, not started yet
  std::deque<std::shared_ptr<PendingReply>> pending_;
  size_t sent_ = 0;                              // bytes of pending_.front() that have been sent
  uint64_t queued_bytes_ = 0, queued_text_ = 0;  // of replies that are ready
  // For the arguments of the command that is being read, or whose operations have not all begun.
  uint64_t command_reserved_ = 0;
  uint64_t short_reserved_ = 0;  // of it, for short arguments
  bool short_waits_ = false;     // for a reservation; nothing more is read
  uint64_t reserved_ = 0;
  size_t writes_ = 0, reads_ = 0;  // in progress
  bool failed_ = false;            // nothing more is parsed; closes once all is sent
  bool advancing_ = false, reading_ = false, sending_ = false, closed_ = false;

  const Clock::time_point begun_;
  Clock::time_point progress_at_;  // last byte sent or received
  Clock::time_point command_at_;   // when the command that is being read began
  Clock::time_point waited_at_;    // since when the client is waited for
  uint64_t waited_bytes_ = 0;
};

}  // namespace longhold::asio_resp
