// Who may do what over HTTP: keys with a scope, of which only hashes are kept, in home/keys.json.
//
// While there is no such file, whoever reaches a server that only this machine reaches may do everything. From the first key on every route but
// /healthz needs a key with its scope, also after the last one was removed. Changes of the file hold from the next request on.
#pragma once

#include <cstdint>
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
  std::string sha256;       // of the key, in hexadecimal digits
  int64_t created = 0;      // seconds since 1970
  int64_t expires = 0;      // 0: never
};

// Value type.
struct Caller {
  Scope scope = Scope::kNone;
  std::string key;          // its name; empty: none
};

// The file of a home's keys. Thread use: safe to call concurrently; across processes the last Add or Remove wins.
class ApiKeys {
 public:
  explicit ApiKeys(const std::string& home) : path_(home + "/keys.json") {}

  // Errors: data_loss (the file is damaged), invalid_argument (it cannot be read).
  Result<std::vector<ApiKey>> List() const;
  // Makes a key and returns it; it is not kept and cannot be told again. Errors: as List's; already_exists; invalid_argument (the name).
  Result<std::string> Add(const std::string& name, Scope scope, int64_t now, int64_t expires);
  // Errors: as List's; not_found.
  Status Remove(const std::string& name);

  // Who sends this Authorization header, and their scope: kNone for a key that is missing, unknown or expired. Where there is no file of
  // keys it is `without_keys`, and nobody's name. Errors: as List's; a file that cannot be understood lets nobody in.
  Result<Caller> CallerOf(std::string_view authorization, int64_t now, Scope without_keys);

 private:
  Status Write(const std::vector<ApiKey>& keys) const;

  const std::string path_;
  std::mutex mutex_;
  std::string stamp_;               // of the file that keys_ were read from
  std::optional<Result<std::vector<ApiKey>>> keys_;
};

}  // namespace longhold
