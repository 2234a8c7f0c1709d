// Something limited that the clients of a server share, such as connections or bytes in RAM: how
// much each has, so that none takes what all need.
//
// Owner: the HTTP server, one for each such thing. Thread use: *confined*.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace longhold {

// By what clients are told apart: their address, or the /64 network of an IPv6 address, which is
// what one client is usually given. An IPv4 address in IPv6's form is itself. Clients behind one
// proxy are one.
std::string PeerOf(const std::string& address);

class PeerShares {
 public:
  enum class Answer : uint8_t {
    kTaken,
    kPeerFull,  // the client has its share
    kFull,      // all together have what there is
  };

  // `own_max`: of one client.
  PeerShares(uint64_t all_max, uint64_t own_max) : all_max_(all_max), own_max_(own_max) {}

  // Nothing is taken unless the answer is kTaken.
  Answer Take(const std::string& peer, uint64_t amount);
  // Must hold: the client has so much.
  void Give(const std::string& peer, uint64_t amount);
  uint64_t taken() const { return taken_; }

 private:
  const uint64_t all_max_, own_max_;
  uint64_t taken_ = 0;
  std::map<std::string, uint64_t> own_;  // of clients that have something
};

}  // namespace longhold
