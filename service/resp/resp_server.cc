#include "service/resp/resp_server.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "service/resp/asio_resp_server.h"
#include "service/resp/resp_connection.h"

namespace longhold {
namespace asio_resp {
namespace {

using error_code = boost::system::error_code;

constexpr std::chrono::milliseconds kTick{100};
constexpr std::chrono::seconds kWaitBeforeShedding{1}, kNoteAgain{10};
constexpr double kRateMin = 1 << 20;  // bytes a second
// Of one batch of changes.
constexpr size_t kBatchChangesMax = 1024;
constexpr uint64_t kBatchBytesMax = 16ull << 20;
constexpr size_t kWriters = 2, kReaders = 2;
// Connections beyond connections_max that get an error before they are closed.
constexpr uint64_t kRejectedMax = 16;

// Jobs of reads that wait: all connections together may have more, but not usefully.
JobPoolOptions ReaderOptions() {
  return {.threads = kReaders,
          .tenant_threads = kReaders,
          .operator_threads = kReaders,
          .tenant_waiting_max = 4096,
          .waiting_max = 4096};
}
// One job for each store at most.
JobPoolOptions WriterOptions() {
  return {.threads = kWriters,
          .tenant_threads = kWriters,
          .operator_threads = kWriters,
          .tenant_waiting_max = RespStores::kStoresMax,
          .waiting_max = RespStores::kStoresMax};
}

}  // namespace

Server::Server(RespServerOptions options, RespStores* stores, ApiKeys* keys)
    : options_(std::move(options)),
      file_("--resp", options_.unix_path, S_IRWXU),
      tick_timer_(context_),
      writers_(WriterOptions()),
      readers_(ReaderOptions()) {
  context_of_sessions_ = {.stores = stores,
                          .keys = keys,
                          .without_keys = options_.without_keys,
                          .version = options_.version,
                          .now_ms = UnixMilliseconds,
                          .connections = [this] { return connection_count_.load(); },
                          .commands = [this] { return commands_.load(); }};
}

Server::~Server() {
  Stop(std::chrono::milliseconds(0));
  thread_.reset();
  for (const auto& connection : std::set(connections_)) connection->Close();
}

Status Server::Open() {
  if (!options_.address.empty()) {
    tcp_.emplace(context_);
    LH_RETURN_IF_ERROR(
        ListenOnPort({"--resp", "127.0.0.1:6379"}, options_.address, options_.port, &*tcp_));
  }
  if (!options_.unix_path.empty()) {
    unix_.emplace(context_);
    LH_RETURN_IF_ERROR(file_.Listen(&*unix_));
  }
  if (tcp_.has_value()) Accept(*tcp_);
  if (unix_.has_value()) Accept(*unix_);
  Tick();
  thread_.emplace([this] { context_.run(); });
  return OkStatus();
}

uint16_t Server::port() const {
  error_code ec;
  return tcp_.has_value() ? tcp_->local_endpoint(ec).port() : 0;
}

RespCounts Server::Counts() const {
  return {.connections = connection_count_, .commands = commands_};
}

void Server::Stop(std::chrono::milliseconds drain) {
  drain_ms_ = drain.count();
  stop_ = true;
}

// ------------------------------------------------------------------------------------------------
// connections

// Waits for readiness before accept(2): without a free descriptor accept(2) fails even when no
// connection is pending.
template <typename Acceptor>
void Server::Accept(Acceptor& acceptor) {
  acceptor.async_wait(Acceptor::wait_read, [this, &acceptor](const error_code& ended) {
    if (ended || draining_) return;
    typename Acceptor::protocol_type::socket socket(context_);
    error_code ec;
    acceptor.accept(socket, ec);
    if (!ec) {
      if constexpr (std::is_same_v<Acceptor, TcpAcceptor>) {
        socket.set_option(net::ip::tcp::no_delay(true), ec);
        socket.set_option(net::socket_base::keep_alive(true), ec);
      }
      AddConnection(Socket(std::move(socket)));
    } else if (ec != net::error::would_block && ec != net::error::connection_aborted) {
      // Out of descriptors or memory. The connection stays pending, so a new wait would end at
      // once.
      (std::is_same_v<Acceptor, TcpAcceptor> ? retry_accept_tcp_ : retry_accept_unix_) = true;
      return;
    }
    Accept(acceptor);
  });
}

void Server::AddConnection(Socket socket) {
  const auto connection =
      std::make_shared<Connection>(this, std::move(socket), next_id_++, Clock::now());
  if (connections_.size() >= options_.connections_max) {
    Connection* longest = nullptr;
    for (const auto& other : connections_) {
      if (other->idle() && (longest == nullptr || other->progress_at() < longest->progress_at()))
        longest = other.get();
    }
    if (longest != nullptr) longest->Close();
  }
  const uint64_t excess_max = options_.connections_max + kRejectedMax;
  if (connections_.size() >= excess_max) return;  // closes the socket
  connections_.insert(connection);
  connection_count_ = connections_.size();
  if (connections_.size() > options_.connections_max)
    return connection->Reject("ERR max number of clients reached");
  connection->Advance();
}

void Server::Remove(const std::shared_ptr<Connection>& connection) {
  connections_.erase(connection);
  connection_count_ = connections_.size();
}

void Server::Tick() {
  tick_timer_.expires_after(kTick);
  tick_timer_.async_wait([this](const error_code& ec) {
    if (ec) return;
    const Clock::time_point now = Clock::now();
    if (stop_ && !draining_) {
      draining_ = true;
      drain_end_ = now + std::chrono::milliseconds(drain_ms_);
      error_code ignored;
      if (tcp_.has_value()) tcp_->close(ignored);
      if (unix_.has_value()) unix_->close(ignored);
      for (const auto& connection : std::set(connections_)) connection->Advance();
    }
    if (draining_ && (connections_.empty() || now >= drain_end_)) return context_.stop();
    if (std::exchange(retry_accept_tcp_, false) && !draining_) Accept(*tcp_);
    if (std::exchange(retry_accept_unix_, false) && !draining_) Accept(*unix_);
    for (const auto& connection : std::set(connections_)) connection->CheckTime(now);
    Shed(now);
    Tick();
  });
}

// ------------------------------------------------------------------------------------------------
// bytes in flight

bool Server::Reserve(const std::shared_ptr<Connection>& connection, uint64_t bytes, bool begun) {
  // More than all at once is granted when nothing else is in flight.
  if (in_flight_bytes_ > 0 && in_flight_bytes_ + bytes > options_.in_flight_bytes_max) {
    if (!begun || (exceeding_ != nullptr && exceeding_ != connection.get())) {
      if (waiting_.empty()) waiting_since_ = Clock::now();
      waiting_.push_back(connection);
      return false;
    }
    exceeding_ = connection.get();
  }
  in_flight_bytes_ += bytes;
  return true;
}

void Server::Release(uint64_t bytes) {
  in_flight_bytes_ -= bytes;
  if (in_flight_bytes_ <= options_.in_flight_bytes_max) exceeding_ = nullptr;
  if (waiting_.empty() || waking_) return;
  waking_ = true;
  net::post(context_, [this] { WakeWaiting(); });
}

void Server::WakeWaiting() {
  waking_ = false;
  // Those that must wait again go to the end of the list, and the time runs on.
  const Clock::time_point since = waiting_since_;
  for (const auto& waiting : std::exchange(waiting_, {})) {
    if (const std::shared_ptr<Connection> connection = waiting.lock()) connection->Advance();
  }
  if (!waiting_.empty()) waiting_since_ = since;
}

void Server::Shed(Clock::time_point now) {
  if (waiting_.empty() || now - waiting_since_ < kWaitBeforeShedding) return;
  Connection* slowest = nullptr;
  double slowest_rate = kRateMin;
  for (const auto& connection : connections_) {
    const std::optional<double> rate = connection->ClientRate(now);
    if (connection->reserved() == 0 || !rate.has_value() || *rate >= slowest_rate) continue;
    slowest = connection.get();
    slowest_rate = *rate;
  }
  if (slowest != nullptr) {
    if (options_.note)
      options_.note("a Redis client was closed: others waited for memory, and it was the slowest");
    slowest->Close();
  }
  WakeWaiting();
}

// ------------------------------------------------------------------------------------------------
// threads that wait for the disk

void Server::Write(ValueStore* store, QueuedWrite write) {
  {
    const std::lock_guard lock(writes_mutex_);
    WriteQueue& queue = writes_[store];
    queue.writes.push_back(std::move(write));
    if (queue.running || std::exchange(starting_writes_, true)) return;
  }
  // After the other connections that are ready now: their changes join, and wake no thread again.
  net::post(context_, [this] { StartWrites(); });
}

void Server::StartWrites() {
  const std::lock_guard lock(writes_mutex_);
  starting_writes_ = false;
  for (auto& [store, queue] : writes_) {
    if (queue.writes.empty() || std::exchange(queue.running, true)) continue;
    // Never refused: each store has one job at most, and the pool is not stopped before the thread
    // of the server has ended.
    LH_CHECK(writers_.Add([this, store = store] { WriteQueued(store); }, "").ok());
  }
}

void Server::WriteQueued(ValueStore* store) {
  for (;;) {
    auto batch = std::make_shared<std::vector<QueuedWrite>>();
    std::vector<ValueChange> changes;
    {
      const std::lock_guard lock(writes_mutex_);
      WriteQueue& queue = writes_[store];
      uint64_t bytes = 0;
      size_t count = 0;
      while (count < queue.writes.size() && changes.size() < kBatchChangesMax &&
             bytes < kBatchBytesMax) {
        for (ValueChange& change : queue.writes[count].changes) {
          bytes += change.value == nullptr ? 0 : change.value->size();
          changes.push_back(std::move(change));
        }
        batch->push_back(std::move(queue.writes[count++]));
      }
      queue.writes.erase(queue.writes.begin(),
                         queue.writes.begin() + static_cast<std::ptrdiff_t>(count));
      if (batch->empty()) {
        queue.running = false;
        return;
      }
    }
    const Status status = store->Write(changes);
    NoteFailure(status);
    size_t next = 0;
    for (QueuedWrite& write : *batch) {
      for (ValueChange& change : write.changes) change = std::move(changes[next++]);
    }
    net::post(context_, [batch, status] {
      for (const QueuedWrite& write : *batch)
        write.connection->Written(*write.reply, status, write.changes);
      for (const QueuedWrite& write : *batch) write.connection->Advance();
    });
  }
}

// Clients are not told, because messages name files of the server.
void Server::NoteFailure(const Status& status) {
  if (status.ok() || !options_.note) return;
  const std::lock_guard lock(notes_mutex_);
  const Clock::time_point now = Clock::now();
  if (noted_at_.has_value() && now - *noted_at_ < kNoteAgain) return;
  noted_at_ = now;
  options_.note("values of Redis clients: " + status.message());
}

bool Server::Read(ValueStore* store, const std::string& key, std::shared_ptr<Connection> connection,
                  std::shared_ptr<PendingReply> reply) {
  return readers_
      .Add(
          [this, store, key, connection = std::move(connection), reply = std::move(reply)] {
            Result<Value> value = store->Get(key);
            if (!value.ok() && value.status().code() != StatusCode::kNotFound)
              NoteFailure(value.status());
            net::post(context_, [connection, reply, value = std::move(value)] {
              connection->ReadDone(*reply, value);
            });
          },
          "")
      .ok();
}

}  // namespace asio_resp

Result<std::unique_ptr<RespServer>> RespServer::Start(const RespServerOptions& options,
                                                      RespStores* stores, ApiKeys* keys) {
  auto server = std::make_unique<asio_resp::Server>(options, stores, keys);
  LH_RETURN_IF_ERROR(server->Open());
  return std::unique_ptr<RespServer>(std::move(server));
}

}  // namespace longhold
