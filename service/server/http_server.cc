#include "service/server/http_server.h"

#include <algorithm>
#include <boost/asio.hpp>
#include <set>
#include <utility>

#include "service/server/asio_http_server.h"
#include "service/server/http_connection.h"
#include "service/server/http_text.h"
#include "service/server/http_tls.h"
#include "service/server/listen.h"

namespace longhold {
namespace asio_http {
namespace {

// Connections beyond connections_max that get a 503 before they are closed.
constexpr size_t kRejectedMax = 16;
constexpr std::chrono::milliseconds kStopPoll{100};

}  // namespace

Server::Server(HttpServerOptions options, HttpAdmit admit)
    : options_(std::move(options)),
      admit_(std::move(admit)),
      bodies_(options_.bodies_bytes_max, PeerMax(options_.bodies_bytes_max)),
      replies_(options_.replies_bytes_max, PeerMax(options_.replies_bytes_max)),
      shares_(options_.connections_max, PeerMax(options_.connections_max)),
      acceptor_(context_),
      stop_timer_(context_) {
  const std::string own = LowerCase(options_.address);
  site_ = {.hosts = {"localhost", "127.0.0.1", "[::1]", own, "[" + own + "]"},
           .tls = !options_.tls.certificate.empty()};
  for (const std::string& host : options_.hosts) site_.hosts.push_back(LowerCase(host));
}

Server::~Server() {
  for (const auto& connection : std::set(connections_)) connection->Close();
  context_.restart();
  context_.poll();  // releases what pending operations hold
}

Status Server::Open() {
  LH_RETURN_IF_ERROR(
      ListenOnPort({"--listen", "127.0.0.1:8420"}, options_.address, options_.port, &acceptor_));
  if (options_.tls.certificate.empty()) return OkStatus();
  tls_stamp_ = StampOf(options_.tls);
  LH_ASSIGN_OR_RETURN(tls_, LoadTls(options_.tls));
  return OkStatus();
}

uint16_t Server::port() const {
  error_code ec;
  return acceptor_.local_endpoint(ec).port();
}

void Server::Run(const std::atomic<bool>* stop, std::chrono::milliseconds drain,
                 const std::function<void()>& on_stop) {
  stop_ = stop;
  drain_ = drain;
  on_stop_ = on_stop;
  Accept();
  PollStop();
  context_.run();
  // Closes the remaining connections. Work for them can stop, because their exchanges report
  // `gone`.
  for (const auto& connection : std::set(connections_)) connection->Close();
}

bool Server::ReserveReply(Connection* connection, uint64_t bytes) {
  for (;;) {
    const PeerShares::Answer answer = replies_.Take(connection->peer(), bytes);
    if (answer == PeerShares::Answer::kTaken) return true;
    Connection* slowest =
        LongestWriting(answer == PeerShares::Answer::kPeerFull ? &connection->peer() : nullptr);
    if (slowest == nullptr || bytes > PeerMax(options_.replies_bytes_max)) slowest = connection;
    const bool own = slowest == connection;
    slowest->Close();
    if (own) return false;
  }
}

void Server::AddWaiting(Connection* connection) {
  if (connection->waiting_at.has_value())
    return waiting_.splice(waiting_.end(), waiting_, *connection->waiting_at);
  connection->waiting_at = waiting_.insert(waiting_.end(), connection);
}

void Server::RemoveWaiting(Connection* connection) {
  if (!connection->waiting_at.has_value()) return;
  waiting_.erase(*connection->waiting_at);
  connection->waiting_at.reset();
}

void Server::Remove(const std::shared_ptr<Connection>& connection) {
  if (connection->has_share()) {
    shares_.Release(connection->peer(), 1);
  } else {
    --rejected_;
  }
  connections_.erase(connection);
  if (draining_ && connections_.empty()) context_.stop();
}

Connection* Server::LongestWaiting(const std::string* peer) const {
  const auto found = std::find_if(waiting_.begin(), waiting_.end(), [&](const Connection* c) {
    return c->has_share() && (peer == nullptr || c->peer() == *peer);
  });
  return found == waiting_.end() ? nullptr : *found;
}

Connection* Server::LongestWriting(const std::string* peer) const {
  Connection* longest = nullptr;
  for (const auto& connection : connections_) {
    if (!connection->writing() || (peer != nullptr && connection->peer() != *peer)) continue;
    if (longest == nullptr || connection->writing_since() < longest->writing_since())
      longest = connection.get();
  }
  return longest;
}

bool Server::ReserveConnection(const std::string& peer) {
  for (;;) {
    const PeerShares::Answer answer = shares_.Take(peer, 1);
    if (answer == PeerShares::Answer::kTaken) return true;
    Connection* const longest =
        LongestWaiting(answer == PeerShares::Answer::kPeerFull ? &peer : nullptr);
    if (longest == nullptr) return false;
    longest->Close();
  }
}

void Server::AddConnection(tcp::socket socket) {
  error_code ec;
  const tcp::endpoint remote = socket.remote_endpoint(ec);
  if (ec) return;  // the client has already gone
  socket.set_option(tcp::no_delay(true), ec);
  const auto connection =
      std::make_shared<Connection>(*this, std::move(socket), remote.address(), Tls());
  connections_.insert(connection);
  if (ReserveConnection(connection->peer())) return connection->Start();
  connection->RejectExcess(++rejected_ <= kRejectedMax);
}

// Waits for readiness before accept(2): without a free descriptor accept(2) fails even when no
// connection is pending.
void Server::Accept() {
  acceptor_.async_wait(tcp::acceptor::wait_read, [this](const error_code& ended) {
    if (ended || draining_) return;
    tcp::socket socket(context_);
    error_code ec;
    acceptor_.accept(socket, ec);
    if (!ec) {
      AddConnection(std::move(socket));
    } else if (ec != net::error::would_block && ec != net::error::connection_aborted) {
      // Out of descriptors: close a waiting connection. If none waits, try again later, when other
      // connections have closed.
      Connection* const longest =
          ec == net::error::no_descriptors ? LongestWaiting(nullptr) : nullptr;
      retry_accept_ = longest == nullptr;
      if (retry_accept_) return;
      longest->Close();
    }
    Accept();
  });
}

// The TLS context of a new connection; null for plain HTTP.
std::shared_ptr<ssl::context> Server::Tls() {
  if (tls_ == nullptr) return nullptr;
  TlsStamp stamp = StampOf(options_.tls);
  if (stamp == tls_stamp_) return tls_;
  tls_stamp_ = std::move(stamp);
  Result<std::shared_ptr<ssl::context>> fresh = LoadTls(options_.tls);
  if (fresh.ok()) tls_ = std::move(*fresh);
  if (options_.note)
    options_.note(fresh.ok() ? "the TLS certificate was reloaded"
                             : fresh.status().message() + "; the old certificate stays in use");
  return tls_;
}

void Server::PollStop() {
  stop_timer_.expires_after(kStopPoll);
  stop_timer_.async_wait([this](const error_code& ec) {
    if (ec) return;
    if (std::exchange(retry_accept_, false) && !draining_) Accept();
    if (!*stop_) return PollStop();
    if (!draining_) {
      draining_ = true;
      error_code ignored;
      acceptor_.close(ignored);
      if (on_stop_) on_stop_();
      for (const auto& connection : std::set(connections_)) {
        if (connection->idle()) connection->Close();
      }
      drain_end_ = std::chrono::steady_clock::now() + drain_;
    }
    if (connections_.empty() || std::chrono::steady_clock::now() >= drain_end_)
      return context_.stop();
    PollStop();
  });
}

}  // namespace asio_http

Result<std::unique_ptr<HttpServer>> HttpServer::Listen(const HttpServerOptions& options,
                                                       HttpAdmit admit) {
  auto server = std::make_unique<asio_http::Server>(options, std::move(admit));
  LH_RETURN_IF_ERROR(server->Open());
  return std::unique_ptr<HttpServer>(std::move(server));
}

bool IsLoopback(const std::string& address) {
  boost::system::error_code ec;
  const boost::asio::ip::address parsed = boost::asio::ip::make_address(address, ec);
  return !ec && parsed.is_loopback();
}

}  // namespace longhold
