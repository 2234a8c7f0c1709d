// Where a user's files are, by the XDG Base Directory Specification.
//
// Thread use: free functions, safe to call concurrently unless somebody changes the environment.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace longhold {

// Looks up an environment variable. Empty variables count as unset. Tests pass a map.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;

// The process's own.
std::optional<std::string> GetEnvironment(const std::string& name);
// $HOME, else what the user database says; empty if neither knows one.
std::string HomeDirectory();
// Replaces a leading "~" with the home directory of the user.
std::string ExpandHome(const std::string& path, const std::string& home_dir);
// An XDG base directory: `variable`, or a directory below the user's home. The specification says
// that relative values are ignored. Nothing where there is no home directory.
std::optional<std::string> XdgDir(const Environment& environment, const char* variable,
                                  const std::string& home_dir, const char* below_home);
// The directory of memories where no setting names another: XDG_DATA_HOME/longhold.
std::optional<std::string> DefaultMemoryHome(const Environment& environment,
                                             const std::string& home_dir);

}  // namespace longhold
