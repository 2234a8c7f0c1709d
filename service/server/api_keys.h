// Who may do what over HTTP: keys with a scope, of which only hashes are kept, in home/keys.json.
//
// While there is no such file, whoever reaches a server that only this machine reaches may do
// everything. From the first key on every route but /healthz needs a key with its scope, also after
// the last one was removed. Changes of the file hold from the next request on.
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

// Each may do what those before it may.
enum class Scope : uint8_t { kNone, kRead, kWrite, kAdmin };

std::string_view ScopeName(Scope scope);
// "read", "write", "admin". Errors: invalid_argument.
Result<Scope> ParseScope(std::string_view text);

// Value type.
struct ApiKey {
  std::string name;
  Scope scope = Scope::kRead;
  std::string sha256;   // of the key, in hexadecimal digits
  int64_t created = 0;  // seconds since 1970
  int64_t expires = 0;  // 0: never
  std::string tenant;   // whose memories it sees; empty: the operator's, who sees all
};

// What all keys of a tenant together may do and have; 0: no limit. Value type.
struct TenantLimits {
  std::string tenant;
  uint64_t requests_per_minute = 0;
  uint64_t tokens_per_day = 0;  // of questions, answers and texts
  uint64_t documents = 0;       // of all its memories
  uint64_t disk_bytes = 0;
};

// Value type.
struct Caller {
  Scope scope = Scope::kNone;
  std::string key;      // its name; empty: none
  TenantLimits limits;  // the tenant's, with its name, which is empty for the operator
};

// Names of keys. Value type.
struct KeyChanges {
  std::vector<std::string> added, removed, changed;
};

// The file of a home's keys. Thread use: safe to call concurrently; across processes the last Add
// or Remove wins.
class ApiKeys {
 public:
  // `on_change` (may be empty) is told by CallerOf what has changed since it last read the file.
  explicit ApiKeys(const std::string& home,
                   std::function<void(const KeyChanges&)> on_change = nullptr)
      : path_(home + "/keys.json"), on_change_(std::move(on_change)) {}

  // Errors: data_loss (the file is damaged), invalid_argument (it cannot be read).
  Result<std::vector<ApiKey>> List() const;
  // Makes a key and returns it; it is not kept and cannot be told again, and is the caller's to
  // wipe. Errors: as List's; already_exists; invalid_argument (a name).
  Result<std::string> Add(const std::string& name, Scope scope, int64_t now, int64_t expires,
                          const std::string& tenant = "");
  // Errors: as List's; not_found.
  Status Remove(const std::string& name);
  // Of all tenants that have some. Errors: as List's.
  Result<std::vector<TenantLimits>> Limits() const;
  // In place of those that the tenant had. Errors: as List's; invalid_argument (the name).
  Status SetLimits(const TenantLimits& limits);

  // Who sends this Authorization header, and their scope: kNone for a key that is missing, unknown
  // or expired. Where there is no file of keys it is `without_keys`, and nobody's name. Errors: as
  // List's; a file that cannot be understood lets nobody in.
  Result<Caller> CallerOf(std::string_view authorization, int64_t now, Scope without_keys);

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
  std::string stamp_;  // of the file that file_ was read from
  std::optional<Result<File>> file_;
};

}  // namespace longhold
