// Models that a user has named: `longhold model add NAME FILE`. The file stays where it is.
//
// A name is one small record, DIR/NAME, with the file's absolute path, its size and its
// architecture. Records appear by rename, whole or not at all.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace longhold {

// Value type.
struct AddedModel {
  std::string name;
  std::string path;          // absolute
  uint64_t bytes = 0;        // the file's, when it was added
  std::string architecture;  // as its metadata has it
};

// Thread use: *immutable*; safe to call concurrently.
class AddedModels {
 public:
  // `dir` is made by the first Add.
  explicit AddedModels(std::string dir) : dir_(std::move(dir)) {}

  // 1 to 64 of [A-Za-z0-9._-], starting with a letter or digit, not ending in ".gguf": that is a
  // path. Errors: invalid_argument.
  static Status CheckName(std::string_view name);

  // Gives the GGUF file at `path` the name, also when another file has it. Of the file only the
  // header is read. Errors: invalid_argument (the name; no GGUF, or one whose metadata is refused),
  // not_found (no such file), resource_exhausted.
  Result<AddedModel> Add(const std::string& name, const std::string& path) const;
  // Takes the name away. Errors: not_found, invalid_argument (no permission).
  Status Remove(const std::string& name) const;
  // None where there is no such name, or its record cannot be read.
  std::optional<AddedModel> Find(std::string_view name) const;
  std::vector<AddedModel> List() const;  // by name

 private:
  std::string PathOf(std::string_view name) const { return dir_ + "/" + std::string(name); }
  std::string dir_;
};

}  // namespace longhold
