#include "service/server/peer_shares.h"

#include <arpa/inet.h>

#include <algorithm>

#include "base/status.h"

namespace longhold {

std::string PeerOf(const std::string& address) {
  in6_addr v6{};
  if (inet_pton(AF_INET6, address.substr(0, address.find('%')).c_str(), &v6) != 1) return address;
  char text[INET6_ADDRSTRLEN];
  if (IN6_IS_ADDR_V4MAPPED(&v6)) return inet_ntop(AF_INET, v6.s6_addr + 12, text, sizeof text);
  std::fill(std::begin(v6.s6_addr) + 8, std::end(v6.s6_addr), 0);
  return std::string(inet_ntop(AF_INET6, &v6, text, sizeof text)) + "/64";
}

PeerShares::Answer PeerShares::Take(const std::string& peer, uint64_t amount) {
  if (amount == 0) return Answer::kTaken;
  const auto found = peers_.find(peer);
  const uint64_t own = found == peers_.end() ? 0 : found->second;
  if (amount > peer_max_ - own) return Answer::kPeerFull;
  if (amount > all_max_ - taken_) return Answer::kFull;
  taken_ += amount;
  if (found == peers_.end()) {
    peers_.emplace(peer, amount);
  } else {
    found->second += amount;
  }
  return Answer::kTaken;
}

void PeerShares::Release(const std::string& peer, uint64_t amount) {
  if (amount == 0) return;
  const auto found = peers_.find(peer);
  LH_CHECK(found != peers_.end() && found->second >= amount);
  taken_ -= amount;
  if ((found->second -= amount) == 0) peers_.erase(found);
}

}  // namespace longhold
