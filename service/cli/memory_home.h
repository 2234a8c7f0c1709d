// A home directory for memories that a command creates for its own use while it runs.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>

#include "base/status.h"

namespace longhold {

// A home directory that a command creates. The destructor deletes it and all its contents unless
// Keep was called. Move-only.
class MemoryHome {
 public:
  // DIRECTORY/home. Errors: invalid_argument (cannot be created).
  static Result<MemoryHome> In(const std::string& directory) {
    MemoryHome home;
    home.path_ = std::filesystem::path(directory) / "home";
    std::error_code ec;
    std::filesystem::create_directories(home.path_, ec);
    if (ec)
      return InvalidArgument(home.path_.string() + ": cannot be created (" + ec.message() +
                             "); name another directory");
    return home;
  }
  // A new directory under TMPDIR. Errors: invalid_argument (cannot be created).
  static Result<MemoryHome> Temporary() {
    std::error_code ec;
    std::string pattern = (std::filesystem::temp_directory_path(ec) / "longhold-XXXXXX").string();
    if (ec || mkdtemp(pattern.data()) == nullptr)
      return InvalidArgument(
          "temporary directory: cannot be created; set TMPDIR to a writable directory");
    MemoryHome home;
    home.path_ = pattern;
    return home;
  }
  MemoryHome(MemoryHome&& other) noexcept : path_(std::move(other.path_)), keep_(other.keep_) {
    other.path_.clear();
  }
  MemoryHome& operator=(MemoryHome&&) = delete;
  ~MemoryHome() {
    std::error_code ec;
    if (!path_.empty() && !keep_) std::filesystem::remove_all(path_, ec);
  }
  void Keep() { keep_ = true; }
  std::string path() const { return path_.string(); }

 private:
  MemoryHome() = default;
  std::filesystem::path path_;
  bool keep_ = false;
};

}  // namespace longhold
