// Access over HTTP: API keys with a scope. The file home/keys.json stores only their hashes.
//
// Without this file, every client of a server on a loopback address has all rights. Once a key has
// been made, every route except /healthz needs a key of its scope, even after the last key was
// removed. Changes of the file apply from the next request on.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace longhold {

// Each scope includes the ones before it.
enum class Scope : uint8_t { kNone, kRead, kWrite, kAdmin };

std::string_view ScopeName(Scope scope);
// Parses "read", "write" or "admin". Errors: invalid_argument.
Result<Scope> ParseScope(std::string_view text);
// What a client is told whose key has a smaller scope than a request needs.
std::string ScopeRefusal(Scope needed, Scope has);

// One key, as the file stores it. Value type.
struct ApiKey {
  std::string name;
  Scope scope = Scope::kRead;
  std::string sha256;   // SHA-256 of the key, in hexadecimal digits
  int64_t created = 0;  // seconds since 1970
  int64_t expires = 0;  // 0: never
  std::string
      tenant;  // whose memories it can access; empty: a key of the operator, which can access all
};

// Limits for all keys of a tenant together; 0: no limit. Value type.
struct TenantLimits {
  std::string tenant;
  uint64_t requests_per_minute = 0;
  uint64_t tokens_per_day = 0;  // tokens of questions, answers and texts
  uint64_t documents = 0;       // in all its memories
  uint64_t disk_bytes = 0;
};

// The client behind an Authorization header. Value type.
struct Caller {
  Scope scope = Scope::kNone;
  std::string key;      // name of the key; empty: none
  TenantLimits limits;  // of the tenant; its name is empty for the operator
};

// Changes of the file of keys, as names of keys. Value type.
struct KeyChanges {
  std::vector<std::string> added, removed, changed;
};

// The file of the keys of a home. Thread use: *synchronised*. When several processes write it, the
// last Add or Remove wins.
class ApiKeys {
 public:
  // `on_change` (may be empty): CallerOf calls it with the changes since it last read the file.
  explicit ApiKeys(const std::string& home,
                   std::function<void(const KeyChanges&)> on_change = nullptr)
      : path_(home + "/keys.json"), on_change_(std::move(on_change)) {}

  // Returns all keys. Errors: data_loss (the file is damaged), invalid_argument (it cannot be
  // read).
  Result<std::vector<ApiKey>> List() const;
  // Makes a key and returns it. The key itself is not stored, so this is the only time it is
  // visible; the caller must wipe it. Errors: as List; already_exists; invalid_argument (a
  // malformed name).
  Result<std::string> Add(const std::string& name, Scope scope, int64_t now, int64_t expires,
                          const std::string& tenant = "");
  // Removes a key. Errors: as List; not_found.
  Status Remove(const std::string& name);
  // Returns the limits of all tenants that have some. Errors: as List.
  Result<std::vector<TenantLimits>> Limits() const;
  // Replaces the limits of a tenant. Errors: as List; invalid_argument (a malformed name).
  Status SetLimits(const TenantLimits& limits);

  // Identifies the client of an Authorization header. A missing, unknown or expired key gives scope
  // kNone. Without a file of keys the scope is `without_keys` and the name is empty. Errors: as
  // List. If the file cannot be parsed, no client is admitted.
  Result<Caller> CallerOf(std::string_view authorization, int64_t now, Scope without_keys);
  // The same for the key itself, as protocols without headers send it; empty: it is missing.
  Result<Caller> CallerOfKey(std::string_view key, int64_t now, Scope without_keys);

 private:
  struct File {
    std::vector<ApiKey> keys;
    std::vector<TenantLimits> limits;
  };
  static Result<File> Parse(const std::string& text);
  Result<File> Read() const;
  Status Write(const File& file) const;
  static KeyChanges ChangesOf(const File& before, const File& after);

  const std::string path_;
  const std::function<void(const KeyChanges&)> on_change_;
  std::mutex mutex_;
  std::string stamp_;  // stamp of the file when file_ was read
  std::optional<Result<File>> file_;
};

}  // namespace longhold
