#include "service/common/config.h"

#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
// toml++ 3.3.0 uses assertions for malformed input. For example "[{" as a table name aborts a debug
// build. In a release build the same input is undefined behaviour, because the assertion macro
// tells the compiler that the case cannot happen. This TOML_ASSERT evaluates nothing, so that such
// input reaches the error handling of the parser.
#pragma push_macro("NDEBUG")
#undef NDEBUG
#define TOML_ASSERT(expression) static_cast<void>(sizeof(!(expression)))
#include <toml++/toml.h>
#pragma pop_macro("NDEBUG")

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>

#include "model/model_catalog.h"
#include "service/common/text_input.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kThreadsMax = 256;
constexpr uint64_t kBudgetBytesMin = 64ull << 20, kBudgetBytesMax = 1ull << 40,
                   kBudgetBytesDefault = 1ull << 30;
constexpr uint64_t kFileBytesMax = 1 << 20;

struct Unit {
  std::string_view name;
  double bytes;
};
constexpr Unit kUnits[] = {{"", 1},
                           {"b", 1},
                           {"kb", 1e3},
                           {"mb", 1e6},
                           {"gb", 1e9},
                           {"tb", 1e12},
                           {"k", 1024},
                           {"kib", 1024},
                           {"m", 1048576.0},
                           {"mib", 1048576.0},
                           {"g", 1073741824.0},
                           {"gib", 1073741824.0},
                           {"t", 1099511627776.0},
                           {"tib", 1099511627776.0}};

// The keys of a config file. `shown` is the value in the sample: the default, or an example.
enum class KeyKind : uint8_t { kPath, kModel, kText, kInteger, kSize };
struct ConfigKey {
  std::string_view name;
  KeyKind kind;
  std::string_view shown;
  std::string_view about;
};
constexpr ConfigKey kKeys[] = {
    {"home", KeyKind::kPath, "\"~/.local/share/longhold\"",
     "Directory of the memories, the API keys and the recall profiles."},
    {"model", KeyKind::kModel, "\"qwen2.5-coder-1.5b\"",
     "A name from 'longhold model list', or the path of a GGUF file."},
    {"embedder", KeyKind::kModel, "\"minilm-l6\"",
     "The embedding model that finds passages by meaning, or \"none\"."},
    {"profile", KeyKind::kPath, "\"profile.json\"",
     "A recall profile that replaces the model's own."},
    {"threads", KeyKind::kInteger, "2", "Compute threads. Default: all processors."},
    {"memory_budget", KeyKind::kSize, "\"1GiB\"",
     "RAM limit, in addition to the model's weights and 64 MiB."},
    {"encryption_key", KeyKind::kPath, "\"memory.key\"",
     "A file with a key of 64 hexadecimal digits. New memories are encrypted with it."},
    {"listen", KeyKind::kText, "\"127.0.0.1:8420\"",
     "For 'serve': address and port. An address that is not loopback needs TLS and API keys."},
    {"tls_certificate", KeyKind::kPath, "\"server.pem\"",
     "For 'serve': the certificate chain, PEM. It is reloaded when the file changes."},
    {"tls_key", KeyKind::kPath, "\"server.key\"",
     "For 'serve': the private key of the certificate, PEM, without a password."},
    {"tls_client_ca", KeyKind::kPath, "\"clients.pem\"",
     "For 'serve': CA certificates, PEM. Clients need a certificate that one of them signed."},
    {"ingest_root", KeyKind::kPath, "\"texts\"",
     "For 'serve': the operator's clients may ingest files below this directory by path."},
    {"audit_log", KeyKind::kPath, "\"audit.log\"",
     "For 'serve': a log file of who did what to which memory."},
};

// The values of the file as text, with their lines. All sources of a setting go through the same
// parsers.
struct FileValue {
  std::string text;
  uint32_t line = 0;
};
using FileValues = std::map<std::string, FileValue>;  // by key

Result<FileValues> ParseFile(const std::string& path, std::string_view text,
                             const std::string& home_dir) {
  const toml::parse_result parsed = toml::parse(text, path);
  if (!parsed) {
    return InvalidArgument("config " + path + ": line " +
                           std::to_string(parsed.error().source().begin.line) + ": " +
                           std::string(parsed.error().description()) + "; correct the file");
  }
  FileValues values;
  for (const auto& [key, node] : parsed.table()) {
    const uint32_t line = node.source().begin.line;
    const std::string at = "config " + path + ": line " + std::to_string(line) + ": ";
    std::string value;
    bool is_string = false;
    if (const auto* string = node.as_string()) {
      value = string->get();
      is_string = true;
    } else if (const auto* integer = node.as_integer()) {
      value = std::to_string(integer->get());
    } else {
      return InvalidArgument(at + "'" + std::string(key.str()) +
                             "' must be a string or an integer; correct the file");
    }
    // A relative path is relative to the directory of the file, not to the working directory.
    const auto as_path = [&](const std::string& p) {
      const std::string expanded = ExpandHome(p, home_dir);
      return expanded.starts_with('/') ? expanded
                                       : (fs::path(path).parent_path() / expanded).string();
    };
    const auto* const known =
        std::find_if(std::begin(kKeys), std::end(kKeys),
                     [name = key.str()](const ConfigKey& k) { return k.name == name; });
    if (known == std::end(kKeys)) {
      std::string all;
      for (const ConfigKey& k : kKeys) all += (all.empty() ? "" : ", ") + std::string(k.name);
      return InvalidArgument(at + "unknown key '" + std::string(key.str()) + "'; the keys are " +
                             all);
    }
    if (known->kind != KeyKind::kSize && is_string != (known->kind != KeyKind::kInteger)) {
      return InvalidArgument(at + "'" + std::string(key.str()) + "' must be " +
                             (is_string ? "an integer" : "a string") + "; correct the file");
    }
    const bool path_like =
        known->kind == KeyKind::kPath || (known->kind == KeyKind::kModel && IsModelPath(value));
    values[std::string(known->name)] = {path_like ? as_path(value) : value, line};
  }
  return values;
}

// The config file's values; `file` becomes the path that was read.
Result<FileValues> LoadFile(const ConfigFlags& flags, const Environment& environment,
                            const std::string& home_dir, std::string* file) {
  std::string path;
  if (flags.config_file) {
    path = *flags.config_file;
  } else {
    const auto dir = XdgDir(environment, "XDG_CONFIG_HOME", home_dir, ".config");
    std::error_code ec;
    if (!dir || !fs::exists(*dir + "/longhold/config.toml", ec)) return FileValues{};
    path = *dir + "/longhold/config.toml";
  }
  std::error_code ec;
  if (!fs::exists(path, ec)) return NotFound("config " + path + ": no such file; check --config");
  if (!fs::is_regular_file(path, ec) || fs::file_size(path, ec) > kFileBytesMax) {
    return InvalidArgument("config " + path + ": not a file of at most " +
                           FormatBytes(kFileBytesMax) + "; check --config");
  }
  LH_ASSIGN_OR_RETURN(const std::string absolute,
                      Result<std::string>(fs::absolute(path, ec).string()));
  std::string text;
  if (fs::file_size(path, ec) > 0) {  // an empty file is a valid config file
    const TextSource source{
        .name = "config " + path, .path = path, .bytes = 0, .text = std::nullopt};
    LH_ASSIGN_OR_RETURN(text, ReadText(source));
  }
  *file = absolute;
  return ParseFile(absolute, text, home_dir);
}

// Takes the first of flag, environment variable and file entry that is set, and parses it.
template <typename T, typename Parse>
Status Choose(Setting<T>* setting, const std::optional<std::string>& flag,
              const std::string& flag_name, const std::optional<std::string>& variable,
              const std::string& variable_name, const std::optional<FileValue>& file_value,
              const std::string& file, Parse parse) {
  std::string text;
  if (flag) {
    text = *flag;
    setting->origin = "flag " + flag_name;
  } else if (variable && !variable->empty()) {
    text = *variable;
    setting->origin = "environment " + variable_name;
  } else if (file_value) {
    text = file_value->text;
    setting->origin = "file " + file + " line " + std::to_string(file_value->line);
  } else {
    return OkStatus();
  }
  Result<T> value = parse(text);
  if (!value.ok())
    return InvalidArgument(setting->origin + ": " + value.status().message() + "; correct it");
  setting->value = *value;
  return OkStatus();
}

}  // namespace

std::span<const PathSetting> PathSettings() {
  static constexpr PathSetting kPaths[] = {
      {"encryption_key", &Config::encryption_key, &ConfigFlags::encryption_key},
      {"tls_certificate", &Config::tls_certificate, &ConfigFlags::tls_certificate},
      {"tls_key", &Config::tls_key, &ConfigFlags::tls_key},
      {"tls_client_ca", &Config::tls_client_ca, &ConfigFlags::tls_client_ca},
      {"ingest_root", &Config::ingest_root, &ConfigFlags::ingest_root},
      {"audit_log", &Config::audit_log, &ConfigFlags::audit_log},
  };
  return kPaths;
}

Result<uint32_t> ParseThreads(std::string_view text) {
  uint32_t value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc() || end != text.data() + text.size() || value < 1 || value > kThreadsMax) {
    return InvalidArgument("threads '" + std::string(text) + "' is not a number from 1 to " +
                           std::to_string(kThreadsMax));
  }
  return value;
}

Result<ListenAddress> ParseListen(std::string_view text) {
  const size_t colon = text.rfind(':');
  ListenAddress out;
  if (colon != std::string_view::npos) {
    std::string_view address = text.substr(0, colon), port = text.substr(colon + 1);
    if (address.starts_with('[') && address.ends_with(']'))
      address = address.substr(1, address.size() - 2);
    const auto [end, ec] = std::from_chars(port.data(), port.data() + port.size(), out.port);
    if (!address.empty() && !port.empty() && ec == std::errc() &&
        end == port.data() + port.size()) {
      out.address = address;
      return out;
    }
  }
  return InvalidArgument("'" + std::string(text) +
                         "' is not an address with a port, such as 127.0.0.1:8420 or [::1]:8420");
}

Result<ListenAddress> ParsePortOrListen(std::string_view text) {
  const bool port_only =
      !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
  return ParseListen(port_only ? "127.0.0.1:" + std::string(text) : std::string(text));
}

std::string Authority(const std::string& address, uint16_t port) {
  const bool v6 = address.find(':') != std::string::npos;
  return (v6 ? "[" + address + "]" : address) + ":" + std::to_string(port);
}

Result<uint64_t> ParseBudget(std::string_view text) {
  LH_ASSIGN_OR_RETURN(const uint64_t bytes, ParseBytes(text));
  if (bytes < kBudgetBytesMin || bytes > kBudgetBytesMax) {
    return InvalidArgument("memory budget '" + std::string(text) + "' is not between " +
                           FormatBytes(kBudgetBytesMin) + " and " + FormatBytes(kBudgetBytesMax));
  }
  return bytes;
}

Result<uint64_t> ParseBytes(std::string_view text) {
  const std::string original(text);
  const auto trim = [&] {
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  };
  trim();
  const auto bad = [&] {
    return InvalidArgument("size '" + original +
                           "' is not a number of bytes such as 1073741824, 512MiB or 1GiB");
  };
  double number = 0;
  if (text.empty() || !std::isdigit(static_cast<unsigned char>(text[0]))) return bad();
  const auto [end, ec] =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (ec != std::errc()) return bad();
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  trim();
  std::string unit;
  for (const char c : text) unit += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const Unit& u : kUnits) {
    if (u.name != unit) continue;
    const double bytes = number * u.bytes;
    if (bytes >= 9.2e18) return bad();
    return static_cast<uint64_t>(bytes);
  }
  return bad();
}

std::string FormatBytes(uint64_t bytes) {
  constexpr const char* kNames[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 999.5 && unit < 6) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  const bool fraction = unit > 0 && value < 9.95 && std::fabs(value - std::round(value)) > 0.04;
  std::snprintf(text, sizeof(text), fraction ? "%.1f %s" : "%.0f %s", value, kNames[unit]);
  return text;
}

std::string ConfigSample() {
  std::string out =
      "# Settings of longhold: ~/.config/longhold/config.toml, or the file that --config names.\n"
      "# Flags and environment variables (LONGHOLD_HOME and so on) take precedence.\n"
      "# Relative paths are relative to the directory of this file.\n";
  for (const ConfigKey& key : kKeys)
    out += "\n# " + std::string(key.about) + "\n#" + std::string(key.name) + " = " +
           std::string(key.shown) + "\n";
  return out;
}

Result<Config> LoadConfig(const ConfigFlags& flags, const Environment& environment,
                          const std::string& home_dir, uint32_t cpus) {
  Config config;
  LH_ASSIGN_OR_RETURN(const FileValues file, LoadFile(flags, environment, home_dir, &config.file));
  const auto in_file = [&](const std::string& key) -> std::optional<FileValue> {
    const auto at = file.find(key);
    return at == file.end() ? std::nullopt : std::optional(at->second);
  };
  const auto path = [&](const std::string& text) -> Result<std::string> {
    if (text.empty()) return InvalidArgument("is empty");
    return ExpandHome(text, home_dir);
  };
  config.home.value = DefaultMemoryHome(environment, home_dir).value_or("");
  config.model.value = std::string(kDefaultModel);
  config.embedder.value = std::string(kDefaultEmbedder);
  config.threads.value = std::clamp<uint32_t>(cpus, 1, kThreadsMax);
  config.memory_budget_bytes.value = kBudgetBytesDefault;
  config.listen.value = "127.0.0.1:8420";
  LH_RETURN_IF_ERROR(Choose(&config.home, flags.home, "--home", environment("LONGHOLD_HOME"),
                            "LONGHOLD_HOME", in_file("home"), config.file, path));
  LH_RETURN_IF_ERROR(Choose(&config.model, flags.model, "--model", environment("LONGHOLD_MODEL"),
                            "LONGHOLD_MODEL", in_file("model"), config.file, path));
  LH_RETURN_IF_ERROR(Choose(&config.embedder, flags.embedder, "--embedder",
                            environment("LONGHOLD_EMBEDDER"), "LONGHOLD_EMBEDDER",
                            in_file("embedder"), config.file, path));
  LH_RETURN_IF_ERROR(Choose(&config.profile, flags.profile, "--profile",
                            environment("LONGHOLD_PROFILE"), "LONGHOLD_PROFILE", in_file("profile"),
                            config.file, path));
  LH_RETURN_IF_ERROR(Choose(&config.threads, flags.threads, "--threads",
                            environment("LONGHOLD_THREADS"), "LONGHOLD_THREADS", in_file("threads"),
                            config.file, ParseThreads));
  LH_RETURN_IF_ERROR(Choose(&config.memory_budget_bytes, flags.memory_budget, "--memory-budget",
                            environment("LONGHOLD_MEMORY_BUDGET"), "LONGHOLD_MEMORY_BUDGET",
                            in_file("memory_budget"), config.file, ParseBudget));
  const auto listen = [](const std::string& text) -> Result<std::string> {
    LH_RETURN_IF_ERROR(ParseListen(text).status());
    return text;
  };
  LH_RETURN_IF_ERROR(Choose(&config.listen, flags.listen, "--listen",
                            environment("LONGHOLD_LISTEN"), "LONGHOLD_LISTEN", in_file("listen"),
                            config.file, listen));
  for (const PathSetting& setting : PathSettings()) {
    std::string flag = "--" + std::string(setting.name),
                variable = "LONGHOLD_" + std::string(setting.name);
    std::replace(flag.begin(), flag.end(), '_', '-');
    std::transform(variable.begin(), variable.end(), variable.begin(), [](char c) {
      return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    });
    LH_RETURN_IF_ERROR(Choose(&(config.*setting.setting), flags.*setting.flag, flag,
                              environment(variable), variable, in_file(std::string(setting.name)),
                              config.file, path));
  }
  if (config.home.value.empty())
    return FailedPrecondition(
        "home: this user has no home directory; set one with --home DIR or LONGHOLD_HOME");

  std::optional<std::string> cache = environment("LONGHOLD_CACHE");
  if (!cache || cache->empty()) {
    cache = XdgDir(environment, "XDG_CACHE_HOME", home_dir, ".cache");
    cache = cache ? *cache + "/longhold" : config.home.value + "/cache";
  }
  config.models_dir = *cache + "/models";
  return config;
}

}  // namespace longhold
