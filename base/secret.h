// Bytes that are erased from memory when nobody needs them any more.
//
// OpenSSL appears in crypto.cc only.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace longhold {

// An immutable string of secret bytes, such as a key. Value type. Copies share the bytes;
// the last one to be destroyed overwrites them before it frees the memory. There is no
// conversion to std::string and no operator<<, so a secret is not copied or printed by
// accident. Thread use: *immutable*.
//
// Not erased: copies that others make of view(), registers, and pages that were
// swapped out earlier.
class Secret {
 public:
  Secret() = default;  // no bytes
  // Copies `bytes`. The caller must wipe its own copy. The memory
  // comes from std::pmr::get_default_resource().
  explicit Secret(std::string_view bytes);

  // Valid as long as any copy of this Secret exists.
  std::string_view view() const;
  bool empty() const { return bytes_ == nullptr; }

 private:
  class Bytes;
  std::shared_ptr<const Bytes> bytes_;  // shared by all copies; null if empty
};

// Overwrites the bytes in a way that the compiler cannot optimise away.
void Wipe(std::span<char> bytes);
// Wipes everything that `text` has allocated, and leaves it empty.
void Wipe(std::string* text);

}  // namespace longhold
