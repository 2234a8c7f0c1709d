// The HTTP server on Boost.Asio: accepts connections, keeps the set of them, and shares the budgets
// for bodies, replies and connections between clients.
//
// Internal to the HTTP server: only http_server.cc and http_connection*.cc see it. Other code uses
// HttpServer. Thread use: *confined* to the thread of HttpServer::Run.
#pragma once

#include <algorithm>
#include <atomic>
#include <boost/asio.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <set>
#include <string>

#include "base/status.h"
#include "service/server/http_connection.h"
#include "service/server/http_server.h"
#include "service/server/http_text.h"
#include "service/server/http_tls.h"
#include "service/server/peer_shares.h"

namespace longhold::asio_http {

class Server final : public HttpServer {
 public:
  Server(HttpServerOptions options, HttpAdmit admit);
  ~Server() override;

  // Opens the port and loads the TLS files. Call it once, before Run.
  Status Open();

  uint16_t port() const override;

  void Run(const std::atomic<bool>* stop, std::chrono::milliseconds drain,
           const std::function<void()>& on_stop) override;

  const HttpServerOptions& options() const { return options_; }
  const HttpAdmit& admit() const { return admit_; }
  bool draining() const { return draining_; }

  bool ReserveBody(const std::string& peer, uint64_t bytes) {
    return bodies_.Take(peer, bytes) == PeerShares::Answer::kTaken;
  }
  void ReleaseBody(const std::string& peer, uint64_t bytes) { bodies_.Release(peer, bytes); }
  // Reserves `bytes` for a reply of `connection`. If necessary it closes the slowest receivers, or
  // `connection` itself. Returns false in the latter case.
  bool ReserveReply(Connection* connection, uint64_t bytes);
  void ReleaseReply(const std::string& peer, uint64_t bytes) { replies_.Release(peer, bytes); }

  // Puts `connection` at the end of the list of waiting connections. The first of the list is the
  // first that is closed to make room.
  void AddWaiting(Connection* connection);
  void RemoveWaiting(Connection* connection);
  void Remove(const std::shared_ptr<Connection>& connection);

  const HttpSite& site() const { return site_; }
  void Refused(const HttpRequest& head, unsigned status) const {
    if (options_.refused) options_.refused(head, status);
  }

 private:
  uint64_t PeerMax(uint64_t all_max) const {
    return std::max<uint64_t>(
        1, static_cast<uint64_t>(static_cast<double>(all_max) * options_.peer_share));
  }
  void Accept();
  void AddConnection(tcp::socket socket);
  // Counts a new connection of `peer`, and closes a waiting one if necessary. Returns false when
  // none waits.
  bool ReserveConnection(const std::string& peer);
  // The connection that has waited longest, of `peer` or of all (null). null: none waits.
  Connection* LongestWaiting(const std::string* peer) const;
  // Likewise the connection whose client has received nothing of its reply for the longest time.
  Connection* LongestWriting(const std::string* peer) const;
  std::shared_ptr<ssl::context> Tls();
  void PollStop();

  HttpServerOptions options_;
  HttpAdmit admit_;
  HttpSite site_;
  PeerShares bodies_, replies_, shares_;  // bytes, bytes, connections
  net::io_context context_{1};
  tcp::acceptor acceptor_;
  net::steady_timer stop_timer_;
  std::shared_ptr<ssl::context> tls_;
  TlsStamp tls_stamp_;
  std::set<std::shared_ptr<Connection>> connections_;
  std::list<Connection*> waiting_;
  size_t rejected_ = 0;  // of connections_
  const std::atomic<bool>* stop_ = nullptr;
  std::chrono::milliseconds drain_{};
  std::chrono::steady_clock::time_point drain_end_;
  std::function<void()> on_stop_;
  bool retry_accept_ = false, draining_ = false;
};

}  // namespace longhold::asio_http
