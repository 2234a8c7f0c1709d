#include "base/user_directories.h"

#include <pwd.h>
#include <unistd.h>

#include <cstdlib>

namespace longhold {

std::optional<std::string> GetEnvironment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr || *value == '\0' ? std::nullopt : std::optional<std::string>(value);
}

std::string HomeDirectory() {
  if (const auto home = GetEnvironment("HOME")) return *home;
  const passwd* user = getpwuid(getuid());
  return user == nullptr || user->pw_dir == nullptr ? "" : user->pw_dir;
}

std::string ExpandHome(const std::string& path, const std::string& home_dir) {
  if (!home_dir.empty() && (path == "~" || path.starts_with("~/")))
    return home_dir + path.substr(1);
  return path;
}

std::optional<std::string> XdgDir(const Environment& environment, const char* variable,
                                  const std::string& home_dir, const char* below_home) {
  const std::optional<std::string> value = environment(variable);
  if (value && value->starts_with('/')) return value;
  if (home_dir.empty()) return std::nullopt;
  return home_dir + "/" + below_home;
}

std::optional<std::string> DefaultMemoryHome(const Environment& environment,
                                             const std::string& home_dir) {
  std::optional<std::string> data = XdgDir(environment, "XDG_DATA_HOME", home_dir, ".local/share");
  if (data) *data += "/longhold";
  return data;
}

}  // namespace longhold
