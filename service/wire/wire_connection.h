// One connection of the wire server: reads frames and descriptors, hands requests to its session,
// sends replies.
//
// Internal to the wire server: only wire_server.cc and wire_connection.cc see it, and with it
// Boost.Asio. Owner: the server's set of connections, and the handlers of pending operations.
// Thread use: *confined* to the thread of the server; its session's jobs run elsewhere.
#pragma once

#include <array>
#include <boost/asio.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "service/server/job_pool.h"
#include "service/server/peer_shares.h"
#include "service/wire/wire_server.h"
#include "service/wire/wire_session.h"

namespace longhold::wire {

namespace net = boost::asio;
using boost::system::error_code;
using Socket = net::generic::stream_protocol::socket;

class Connection;

// What a connection needs of its server.
class Host {
 public:
  virtual const WireServerOptions& options() const = 0;
  virtual Service& service() = 0;
  virtual JobPool& jobs() = 0;
  virtual bool draining() const = 0;
  virtual void Remove(const std::shared_ptr<Connection>& connection) = 0;

 protected:
  ~Host() = default;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Clock = std::chrono::steady_clock;

  Connection(Host& host, Socket socket, Session::Peer peer);

  void Start();
  // Instead of Start, when no connection is free.
  void RejectExcess();
  void Close();
  // Between requests, so that closing it loses no reply.
  bool idle() const { return state_ == State::kIdle; }
  // Closing it loses nothing at all. Must hold: idle().
  bool disposable() const { return session_ == nullptr || !session_->has_writers(); }
  Clock::time_point idle_since() const { return idle_since_; }
  const std::string& peer() const { return peer_.name; }
  bool has_share = false;  // counts against connections_max; only the server uses it

 private:
  enum class State : uint8_t { kIdle, kReading, kWorking, kWriting, kLingering, kClosed };

  void SetDeadline(std::chrono::milliseconds time);
  void StopDeadline();
  void Expired();
  void AwaitFrame();
  void AwaitBytes();
  void OnReadable();
  // Returns how many bytes arrived: 0 for none now. Closes the connection at its end.
  size_t Receive(char* to, size_t size, bool with_memfd);
  bool ReadHeader();
  bool BeginBody();
  // Reads what is there of message and payload.
  void ReadBody();
  void FrameRead();
  void Send(Reply reply);
  void SendError(const Status& status, bool close);
  void WriteSome();
  void Written();
  void Linger();
  void Discard();

  Host& host_;
  Socket socket_;
  const Session::Peer peer_;
  // Destroyed on a thread of the pool: its writers may wait for their sidecar.
  std::shared_ptr<Session> session_;
  net::steady_timer deadline_;
  uint64_t deadline_serial_ = 0;  // ignores the handler of an earlier deadline
  State state_ = State::kIdle;
  Clock::time_point idle_since_;
  Clock::time_point frame_end_;  // deadline of the whole frame
  std::array<char, kHeaderBytes> header_{};
  size_t header_read_ = 0;
  Request request_;
  size_t message_read_ = 0, payload_read_ = 0;
  uint64_t skip_bytes_ = 0;  // of a frame for which there is no memory
  Status skip_reason_;
  Reply reply_;
  size_t frame_sent_ = 0, payload_sent_ = 0;
};

}  // namespace longhold::wire
