// Models that a user has named with `longhold model add NAME FILE`. The file stays where it is.
//
// Each name is one small record in the file DIR/NAME: the model file's absolute path, its size
// and its architecture. A record is written to a temporary file and renamed, so it is either
// complete or absent.
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
  uint64_t bytes = 0;        // size of the file when it was added
  std::string architecture;  // from the file's metadata
};

// The records in one directory. Thread use: *immutable*; safe to call concurrently.
class AddedModels {
 public:
  // The first Add creates `dir`.
  explicit AddedModels(std::string dir) : dir_(std::move(dir)) {}

  // A name has 1 to 64 of [A-Za-z0-9._-] and starts with a letter or digit. It must not end in
  // ".gguf", because that would be a path. Errors: invalid_argument.
  static Status CheckName(std::string_view name);

  // Names the GGUF file at `path`. If another file has the name, this one replaces it. Reads only
  // the file's header. Errors: invalid_argument (the name is invalid, or the file is not a GGUF
  // file or has invalid metadata), not_found (no such file), resource_exhausted.
  Result<AddedModel> Add(const std::string& name, const std::string& path) const;
  // Removes a name, not the file. Errors: not_found, invalid_argument (no permission).
  Status Remove(const std::string& name) const;
  // Empty if there is no such name, or if its record cannot be read.
  std::optional<AddedModel> Find(std::string_view name) const;
  std::vector<AddedModel> List() const;  // sorted by name

 private:
  std::string PathOf(std::string_view name) const { return dir_ + "/" + std::string(name); }
  std::string dir_;
};

}  // namespace longhold
