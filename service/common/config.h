// The settings every command needs, and where each came from. Precedence: flag, environment, config
// file, default.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace longhold {

inline constexpr std::string_view kDefaultOrigin = "default";

// A setting with its origin: "flag --home", "environment LONGHOLD_HOME", "file /etc/x.toml line 3",
// "default".
template <typename T>
struct Setting {
  T value{};
  std::string origin = std::string(kDefaultOrigin);
};

struct Config {
  Setting<std::string> home;              // directory of the memories
  Setting<std::string> model;             // a catalog name or the path of a GGUF file
  Setting<std::string> profile;           // a recall profile's file; empty: the model's own
  Setting<uint32_t> threads;              // 1..256
  Setting<uint64_t> memory_budget_bytes;  // 64 MiB..1 TiB
  Setting<std::string> listen;            // of `serve`: ADDRESS:PORT
  // Paths; empty: none.
  Setting<std::string> encryption_key;   // base/seal.h
  Setting<std::string> tls_certificate;  // of `serve`: PEM files (service/server/http_server.h)
  Setting<std::string> tls_key;
  Setting<std::string> tls_client_ca;
  // of `serve`: the directory beneath which the operator's clients may name texts
  Setting<std::string> ingest_root;
  Setting<std::string> audit_log;  // of `serve` (service/server/audit_log.h)
  std::string file;                // the config file that was read; empty when there is none
  // LONGHOLD_CACHE, else XDG's cache directory / longhold, then models
  std::string models_dir;
};

// What the command line said; unset where it said nothing.
struct ConfigFlags {
  std::optional<std::string> home, model, profile, threads, memory_budget, listen, config_file;
  std::optional<std::string> encryption_key, tls_certificate, tls_key, tls_client_ca, ingest_root,
      audit_log;
};

// A path that may be given as --NAME, LONGHOLD_NAME and in the file, and has no default.
struct PathSetting {
  std::string_view name;  // in the file
  Setting<std::string> Config::*setting;
  std::optional<std::string> ConfigFlags::*flag;
};
std::span<const PathSetting> PathSettings();

// A variable's value, nullopt when it is unset. Empty values count as unset.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;

// Keys of the file: home, model, profile, listen and those of PathSettings (strings; a relative
// path counts from the file's directory), threads (integer), memory_budget (integer of bytes, or a
// string such as "512MiB"). `home_dir` is the user's home directory, empty when unknown; `cpus` the
// processors that this process may use. Errors: not_found (a file named by --config),
// invalid_argument (file: with its line; unknown keys; values out of range).
Result<Config> LoadConfig(const ConfigFlags& flags, const Environment& environment,
                          const std::string& home_dir, uint32_t cpus);

// A config file with every key, each commented out at its default and explained.
std::string ConfigSample();

// "1048576", "512MiB", "1GiB", "1.5 GB", "2g": bytes, with KiB = 1024 and kB = 1000; a bare k, m,
// g, t is binary. Errors: invalid_argument.
Result<uint64_t> ParseBytes(std::string_view text);

// The two numeric settings, with their bounds. Errors: invalid_argument.
Result<uint32_t> ParseThreads(std::string_view text);
Result<uint64_t> ParseBudget(std::string_view text);

// Where `serve` listens: "127.0.0.1:8420", "[::1]:8420"; port 0 is any that is free. Value type.
struct ListenAddress {
  std::string address;
  uint16_t port = 0;
};
// Errors: invalid_argument.
Result<ListenAddress> ParseListen(std::string_view text);

// "1.2 GiB": at most three significant digits.
std::string FormatBytes(uint64_t bytes);

}  // namespace longhold
