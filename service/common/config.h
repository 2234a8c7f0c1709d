// The settings of every command, and where each value came from. Precedence: flag, environment
// variable, config file, default.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/user_directories.h"

namespace longhold {

inline constexpr std::string_view kDefaultOrigin = "default";
// Value of Config::embedder: passages are not embedded.
inline constexpr std::string_view kNoEmbedder = "none";

// A setting with its origin. Examples of an origin: "flag --home", "environment LONGHOLD_HOME",
// "file /etc/x.toml line 3", "default".
template <typename T>
struct Setting {
  T value{};
  std::string origin = std::string(kDefaultOrigin);
};

struct Config {
  Setting<std::string> home;   // directory that holds the memories
  Setting<std::string> model;  // a catalog name or the path of a GGUF file
  // An embedding model's catalog name or file, or kNoEmbedder.
  Setting<std::string> embedder;
  Setting<std::string> profile;           // file of a recall profile; empty: the model's own
  Setting<uint32_t> threads;              // 1..256
  Setting<uint64_t> memory_budget_bytes;  // 64 MiB..1 TiB
  Setting<std::string> listen;            // for `serve`: ADDRESS:PORT
  // Paths. An empty path means: not set.
  Setting<std::string> encryption_key;   // base/seal.h
  Setting<std::string> tls_certificate;  // for `serve`: PEM files (service/server/http_server.h)
  Setting<std::string> tls_key;
  Setting<std::string> tls_client_ca;
  // for `serve`: clients of the operator may ingest files below this directory by path
  Setting<std::string> ingest_root;
  Setting<std::string> audit_log;  // for `serve` (service/server/audit_log.h)
  std::string file;                // the config file that was read; empty: there is none
  // $LONGHOLD_CACHE/models; without that variable "longhold/models" in the XDG cache directory
  std::string models_dir;
};

// The flags of the command line. A flag that was not given is unset.
struct ConfigFlags {
  std::optional<std::string> home, model, embedder, profile, threads, memory_budget, listen,
      config_file;
  std::optional<std::string> encryption_key, tls_certificate, tls_key, tls_client_ca, ingest_root,
      audit_log;
};

// A path without a default. It may be given as flag --NAME, as variable LONGHOLD_NAME and in the
// config file.
struct PathSetting {
  std::string_view name;  // in the config file
  Setting<std::string> Config::*setting;
  std::optional<std::string> ConfigFlags::*flag;
};
std::span<const PathSetting> PathSettings();

// Loads the settings. `home_dir` is the user's home directory, empty when unknown. `cpus` is the
// number of processors that this process may use.
// Keys of the config file:
// - home, model, embedder, profile, listen and those of PathSettings: strings. A relative path is
// relative to
//   the directory of the file.
// - threads: an integer.
// - memory_budget: an integer of bytes, or a string such as "512MiB".
// Errors: not_found (the file that --config names does not exist), invalid_argument (a malformed
// file, an unknown key or a value out of range; the message names file and line).
Result<Config> LoadConfig(const ConfigFlags& flags, const Environment& environment,
                          const std::string& home_dir, uint32_t cpus);

// Returns a config file with every key. Each key is explained and commented out, with its default
// or an example as value.
std::string ConfigSample();

// Parses a size in bytes: "1048576", "512MiB", "1GiB", "1.5 GB", "2g". KiB is 1024, kB is 1000; a
// bare k, m, g or t is binary. Errors: invalid_argument.
Result<uint64_t> ParseBytes(std::string_view text);

// Parse the two numeric settings and check their bounds. Errors: invalid_argument.
Result<uint32_t> ParseThreads(std::string_view text);
Result<uint64_t> ParseBudget(std::string_view text);

// The address on which `serve` listens: "127.0.0.1:8420", "[::1]:8420". Port 0 selects any free
// port. Value type.
struct ListenAddress {
  std::string address;
  uint16_t port = 0;
};
// Errors: invalid_argument.
Result<ListenAddress> ParseListen(std::string_view text);
// As ParseListen, where a port alone is one of 127.0.0.1: "8421".
Result<ListenAddress> ParsePortOrListen(std::string_view text);
// The opposite of ParseListen: "127.0.0.1:8420", "[::1]:8420".
std::string Authority(const std::string& address, uint16_t port);

// Formats a size with at most three significant digits: "1.2 GiB".
std::string FormatBytes(uint64_t bytes);

}  // namespace longhold
