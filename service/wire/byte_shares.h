// Bytes of RAM that all connections share, for what does not fit their own small buffers. Each
// client has a bounded share.
//
// Owner: the wire server. Thread use: *synchronised*.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "base/status.h"
#include "service/server/peer_shares.h"

namespace longhold::wire {

class ByteShares {
 public:
  // A part of the bytes, given back when this object ends. Move-only.
  class Taken {
   public:
    Taken() = default;
    Taken(ByteShares* from, std::string peer, uint64_t bytes)
        : from_(from), peer_(std::move(peer)), bytes_(bytes) {}
    Taken(Taken&& other) noexcept { *this = std::move(other); }
    Taken& operator=(Taken&& other) noexcept {
      Release();
      from_ = std::exchange(other.from_, nullptr);
      peer_ = std::move(other.peer_);
      bytes_ = std::exchange(other.bytes_, 0);
      return *this;
    }
    ~Taken() { Release(); }
    void Release() {
      if (from_ != nullptr) std::exchange(from_, nullptr)->Return(peer_, bytes_);
    }

   private:
    ByteShares* from_ = nullptr;
    std::string peer_;
    uint64_t bytes_ = 0;
  };

  ByteShares(uint64_t all_max, uint64_t peer_max) : shares_(all_max, peer_max) {}

  // Errors: resource_exhausted.
  Result<Taken> Take(const std::string& peer, uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    if (shares_.Take(peer, bytes) == PeerShares::Answer::kTaken) return Taken(this, peer, bytes);
    return ResourceExhausted("the server has no memory left for " + std::to_string(bytes) +
                             " bytes of a frame; send smaller ones, or retry later");
  }

 private:
  void Return(const std::string& peer, uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    shares_.Release(peer, bytes);
  }

  std::mutex mutex_;
  PeerShares shares_;
};

}  // namespace longhold::wire
