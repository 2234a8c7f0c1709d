#include "service/wire/wire_server.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio.hpp>
#include <set>
#include <utility>

#include "base/joined_thread.h"
#include "service/server/listen.h"
#include "service/server/peer_shares.h"
#include "service/wire/wire_connection.h"

namespace longhold::wire {
namespace {

using net::ip::tcp;
using Local = net::local::stream_protocol;

constexpr std::chrono::milliseconds kRetryAccept{100};
// Connections beyond connections_max that are told so before they are closed.
constexpr size_t kRejectedMax = 16;

Session::Peer PeerOfLocal(int socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  const bool known = getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0;
  return {.name = known ? "user " + std::to_string(peer.uid) : "user ?",
          .local = true,
          .same_user = known && peer.uid == geteuid()};
}

class AsioWireServer final : public WireServer, public Host {
 public:
  explicit AsioWireServer(WireServerOptions options)
      : options_(std::move(options)),
        service_(options_.service),
        jobs_(std::make_unique<JobPool>(options_.jobs)),
        shares_(options_.connections_max,
                std::max<uint64_t>(
                    1, static_cast<uint64_t>(options_.connections_max * options_.peer_share))),
        tcp_(context_),
        local_(context_),
        file_("--wire-socket", options_.socket_path, S_IRUSR | S_IWUSR),
        drain_timer_(context_) {}
  ~AsioWireServer() override {
    Stop();
    thread_.reset();
    for (const auto& connection : std::set(connections_)) connection->Close();
    jobs_.reset();  // ends sessions
    context_.restart();
    context_.poll();  // releases what pending operations hold
  }

  Status Open() {
    if (options_.tcp) {
      LH_RETURN_IF_ERROR(
          ListenOnPort({"--wire", "127.0.0.1:8421"}, options_.address, options_.port, &tcp_));
    }
    return options_.socket_path.empty() ? OkStatus() : file_.Listen(&local_);
  }

  uint16_t port() const override {
    error_code ec;
    return tcp_.is_open() ? tcp_.local_endpoint(ec).port() : uint16_t{0};
  }

  void Start() override {
    if (tcp_.is_open()) Accept(&tcp_);
    if (local_.is_open()) Accept(&local_);
    thread_ = std::make_unique<JoinedThread>([this] {
      const auto work = net::make_work_guard(context_);
      context_.run();
    });
  }

  void Stop() override {
    if (stopped_.exchange(true)) return;
    net::post(context_, [this] { Drain(); });
  }

  const WireServerOptions& options() const override { return options_; }
  Service& service() override { return service_; }
  JobPool& jobs() override { return *jobs_; }
  bool draining() const override { return draining_; }
  void Remove(const std::shared_ptr<Connection>& connection) override {
    if (connection->has_share) {
      shares_.Release(connection->peer(), 1);
    } else {
      --rejected_;
    }
    connections_.erase(connection);
    if (draining_ && connections_.empty()) context_.stop();
  }

 private:
  // Waits for readiness before accept(2): without a free descriptor accept(2) fails even when no
  // connection is pending.
  template <typename Acceptor>
  void Accept(Acceptor* acceptor) {
    acceptor->async_wait(Acceptor::wait_read, [this, acceptor](const error_code& ended) {
      if (ended || draining_) return;
      typename Acceptor::protocol_type::socket socket(context_);
      error_code ec;
      acceptor->accept(socket, ec);
      if (!ec) {
        AddConnection(std::move(socket));
      } else if (ec != net::error::would_block && ec != net::error::connection_aborted) {
        // Out of descriptors: try again when other connections have closed.
        auto timer = std::make_shared<net::steady_timer>(context_, kRetryAccept);
        return timer->async_wait([this, acceptor, timer](const error_code&) {
          if (!draining_) Accept(acceptor);
        });
      }
      Accept(acceptor);
    });
  }

  void AddConnection(tcp::socket socket) {
    error_code ec;
    const tcp::endpoint remote = socket.remote_endpoint(ec);
    if (ec) return;  // the client has already gone
    socket.set_option(tcp::no_delay(true), ec);
    Add(Socket(std::move(socket)), {.name = PeerOf(remote.address().to_string())});
  }
  void AddConnection(Local::socket socket) {
    Session::Peer peer = PeerOfLocal(socket.native_handle());
    Add(Socket(std::move(socket)), std::move(peer));
  }
  void Add(Socket socket, Session::Peer peer) {
    const auto connection = std::make_shared<Connection>(*this, std::move(socket), std::move(peer));
    connections_.insert(connection);
    connection->has_share = Reserve(connection->peer());
    if (connection->has_share) return connection->Start();
    ++rejected_;
    rejected_ <= kRejectedMax ? connection->RejectExcess() : connection->Close();
  }

  // Counts a new connection, and closes one that waits if necessary.
  bool Reserve(const std::string& peer) {
    for (;;) {
      const PeerShares::Answer answer = shares_.Take(peer, 1);
      if (answer == PeerShares::Answer::kTaken) return true;
      Connection* longest = nullptr;
      for (const auto& c : connections_) {
        if (!c->has_share || !c->idle() || !c->disposable()) continue;
        if (answer == PeerShares::Answer::kPeerFull && c->peer() != peer) continue;
        if (longest == nullptr || c->idle_since() < longest->idle_since()) longest = c.get();
      }
      if (longest == nullptr) return false;
      longest->Close();
    }
  }

  void Drain() {
    draining_ = true;
    error_code ignored;
    tcp_.close(ignored);
    local_.close(ignored);
    for (const auto& connection : std::set(connections_)) {
      if (connection->idle()) connection->Close();
    }
    if (connections_.empty()) return context_.stop();
    drain_timer_.expires_after(options_.drain_time);
    drain_timer_.async_wait([this](const error_code&) { context_.stop(); });
  }

  const WireServerOptions options_;
  Service service_;
  std::unique_ptr<JobPool> jobs_;
  PeerShares shares_;
  net::io_context context_{1};
  tcp::acceptor tcp_;
  Local::acceptor local_;
  SocketFile file_;
  net::steady_timer drain_timer_;
  std::set<std::shared_ptr<Connection>> connections_;
  size_t rejected_ = 0;  // of connections_
  bool draining_ = false;
  std::atomic<bool> stopped_{false};
  std::unique_ptr<JoinedThread> thread_;
};

}  // namespace

Result<std::unique_ptr<WireServer>> WireServer::Listen(WireServerOptions options) {
  auto server = std::make_unique<AsioWireServer>(std::move(options));
  LH_RETURN_IF_ERROR(server->Open());
  return std::unique_ptr<WireServer>(std::move(server));
}

}  // namespace longhold::wire
