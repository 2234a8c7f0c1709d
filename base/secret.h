// Bytes that are gone from memory once nobody needs them.
//
// OpenSSL stops at crypto.cc.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace longhold {

// An immutable string of secret bytes, as a key is. Copies share it; the last owner overwrites it
// before its memory is given back. There is no conversion to a string and no operator<<, so that it
// is copied or printed by nobody who does not mean to. Value type. Thread use: *immutable*.
//
// What it does not reach: copies that others make of view(), registers, and pages that were swapped
// out before.
class Secret {
 public:
  Secret() = default;  // no bytes
  // Copies `bytes`; whoever has them wipes them. The memory comes from
  // std::pmr::get_default_resource().
  explicit Secret(std::string_view bytes);

  // Valid as long as any copy of this.
  std::string_view view() const;
  bool empty() const { return bytes_ == nullptr; }

 private:
  class Bytes;
  std::shared_ptr<const Bytes> bytes_;  // shared by the copies; null: none
};

// Overwrites the bytes, in such a way that no compiler leaves it out.
void Wipe(std::span<char> bytes);
// The same for all that `text` has in memory, which is empty then.
void Wipe(std::string* text);

}  // namespace longhold
