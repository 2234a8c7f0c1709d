// A limited resource that the clients of a server share, such as connections or bytes of RAM.
// Counts the share of each client, so that none takes all of it.
//
// Owner: the HTTP server, one object for each resource. Thread use: *confined*.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace longhold {

// The identity of a client: its address, or the /64 network of an IPv6 address, which is what one
// client usually gets. An IPv4 address in IPv6 form gives the IPv4 address. All clients behind one
// proxy count as one.
std::string PeerOf(const std::string& address);

class PeerShares {
 public:
  enum class Answer : uint8_t {
    kTaken,
    kPeerFull,  // the client would exceed its own limit
    kFull,      // all clients together would exceed the limit
  };

  // `peer_max`: limit for one client.
  PeerShares(uint64_t all_max, uint64_t peer_max) : all_max_(all_max), peer_max_(peer_max) {}

  // Takes `amount` for the client; nothing unless the answer is kTaken.
  Answer Take(const std::string& peer, uint64_t amount);
  // Returns `amount`. Precondition: the client has taken that much.
  void Release(const std::string& peer, uint64_t amount);
  uint64_t taken() const { return taken_; }

 private:
  const uint64_t all_max_, peer_max_;
  uint64_t taken_ = 0;
  std::map<std::string, uint64_t> peers_;  // shares of clients that have one
};

}  // namespace longhold
