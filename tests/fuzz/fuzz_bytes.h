// Shared by the fuzz harnesses: reads an input's bytes from the front.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

class FuzzBytes {
 public:
  FuzzBytes(const uint8_t* data, size_t size) : rest_(reinterpret_cast<const char*>(data), size) {}

  // Returns zeros where too few bytes are left.
  template <typename T>
  T Take() {
    T value{};
    const size_t count = rest_.size() < sizeof value ? rest_.size() : sizeof value;
    if (count > 0) std::memcpy(&value, rest_.data(), count);
    rest_.remove_prefix(count);
    return value;
  }
  std::string Take(size_t count) {
    std::string bytes(rest_.substr(0, count));
    rest_.remove_prefix(bytes.size());
    return bytes;
  }
  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

// A decoder must report hostile bytes with an error code of the caller or the disk, never with one
// that means a bug of ours.
template <typename T>
void ExpectRefusal(const Result<T>& result) {
  if (result.ok() || result.status().code() != StatusCode::kInternal) return;
  std::fprintf(stderr, "%s\n", result.status().ToString().c_str());
  LH_CHECK(false && "hostile bytes are no bug of ours");
}

}  // namespace longhold
