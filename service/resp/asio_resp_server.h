// The server for Redis clients on Boost.Asio: accepts connections, shares out the bytes in flight,
// and hands changes and reads to the threads that may wait for the disk.
//
// Internal to the server: only resp_server.cc and resp_connection.cc see it. Thread use: *confined*
// to the thread of the server, except where a function says otherwise.
#pragma once

#include <atomic>
#include <boost/asio.hpp>
#include <chrono>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/joined_thread.h"
#include "service/resp/resp_server.h"
#include "service/resp/resp_session.h"
#include "service/server/job_pool.h"
#include "service/server/listen.h"

namespace longhold::asio_resp {

namespace net = boost::asio;
using Socket = net::generic::stream_protocol::socket;
using Clock = std::chrono::steady_clock;

class Connection;
struct PendingReply;

// A change that waits for a thread. Move-only use.
struct QueuedWrite {
  std::shared_ptr<Connection> connection;
  std::shared_ptr<PendingReply> reply;
  std::vector<ValueChange> changes;
};

class Server final : public RespServer {
 public:
  Server(RespServerOptions options, RespStores* stores, ApiKeys* keys);
  ~Server() override;
  Status Open();

  uint16_t port() const override;
  void Stop(std::chrono::milliseconds drain) override;
  RespCounts Counts() const override;  // safe to call concurrently

  const RespServerOptions& options() const { return options_; }
  const RespContext& context() const { return context_of_sessions_; }
  bool draining() const { return draining_; }
  void CountCommand() { commands_.fetch_add(1, std::memory_order_relaxed); }

  // Reserves bytes in flight. If it returns false, the connection is told when to try again
  // (Connection::Advance). `begun`: for a command that holds some already.
  bool Reserve(const std::shared_ptr<Connection>& connection, uint64_t bytes, bool begun);
  void Release(uint64_t bytes);
  // Hands changes to the thread that writes to `store`.
  void Write(ValueStore* store, QueuedWrite write);
  // Reads a value on another thread. False: too many reads wait.
  bool Read(ValueStore* store, const std::string& key, std::shared_ptr<Connection> connection,
            std::shared_ptr<PendingReply> reply);
  void Remove(const std::shared_ptr<Connection>& connection);

 private:
  using TcpAcceptor = net::ip::tcp::acceptor;
  using UnixAcceptor = net::local::stream_protocol::acceptor;

  template <typename Acceptor>
  void Accept(Acceptor& acceptor);
  void AddConnection(Socket socket);
  void Tick();
  // Closes the slowest connection that holds bytes in flight, if others have waited for a second.
  void Shed(Clock::time_point now);
  void WakeWaiting();
  void StartWrites();
  // Reports that a store failed, at most every ten seconds. Safe to call concurrently.
  void NoteFailure(const Status& status);
  // On a thread of writers_: writes what waits for `store` until nothing does.
  void WriteQueued(ValueStore* store);

  const RespServerOptions options_;
  RespContext context_of_sessions_;
  net::io_context context_{1};
  std::optional<TcpAcceptor> tcp_;
  std::optional<UnixAcceptor> unix_;
  SocketFile file_;
  net::steady_timer tick_timer_;
  std::set<std::shared_ptr<Connection>> connections_;
  std::atomic<uint64_t> connection_count_{0}, commands_{0};
  uint64_t next_id_ = 1;
  // With the next tick.
  bool retry_accept_tcp_ = false, retry_accept_unix_ = false;
  bool draining_ = false;
  Clock::time_point drain_end_;
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> drain_ms_{0};

  uint64_t in_flight_bytes_ = 0;
  const Connection* exceeding_ = nullptr;         // may exceed in_flight_bytes_max; null: none does
  std::list<std::weak_ptr<Connection>> waiting_;  // for bytes in flight
  Clock::time_point waiting_since_;
  bool waking_ = false;

  struct WriteQueue {
    std::vector<QueuedWrite> writes;
    bool running = false;  // a thread of writers_ takes them
  };
  std::mutex writes_mutex_;
  // Guarded by writes_mutex_.
  std::map<ValueStore*, WriteQueue> writes_;
  bool starting_writes_ = false;

  std::mutex notes_mutex_;
  std::optional<Clock::time_point> noted_at_;  // guarded by notes_mutex_

  // Jobs post to context_, so these end before it. The thread ends before these.
  JobPool writers_, readers_;
  std::optional<JoinedThread> thread_;
};

}  // namespace longhold::asio_resp
