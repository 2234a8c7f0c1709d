#include "service/server/api_keys.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <utility>

#include "base/durable_file.h"
#include "base/hash.h"
#include "base/secret.h"
#include "base/text.h"
#include "memory/engine.h"
#include "service/common/json_text.h"
#include "service/common/text_input.h"
#include "store/memory_name.h"

namespace longhold {
namespace {

namespace json = boost::json;

constexpr size_t kKeyBytes = 32;
constexpr size_t kKeysMax = 10000;
constexpr size_t kNameMax = 64;
constexpr uint64_t kFileBytesMax = 16 << 20;

// A stamp that changes with every write of the file; empty when there is no file.
std::string StampOf(const std::string& path) {
  struct stat s {};
  if (stat(path.c_str(), &s) != 0) return "";
  return std::to_string(s.st_ino) + " " + std::to_string(s.st_size) + " " +
         std::to_string(s.st_mtim.tv_sec) + "." + std::to_string(s.st_mtim.tv_nsec);
}

// The members of the limits of a tenant, with their names in the file.
constexpr std::pair<const char*, uint64_t TenantLimits::*> kLimits[] = {
    {"requests_per_minute", &TenantLimits::requests_per_minute},
    {"tokens_per_day", &TenantLimits::tokens_per_day},
    {"documents", &TenantLimits::documents},
    {"disk_bytes", &TenantLimits::disk_bytes}};

Status CheckKeyName(const std::string& name) {
  if (name.empty() || name.size() > kNameMax ||
      !std::all_of(name.begin(), name.end(), IsNameByte)) {
    return InvalidArgument("key name \"" + name +
                           "\": use 1 to 64 letters, digits, dots, dashes or underscores");
  }
  return OkStatus();
}

// The name of a tenant is a part of the names of its memories, and a directory.
Status CheckTenant(const std::string& tenant) {
  const Status status =
      tenant.find('/') == std::string::npos ? CheckMemoryName(tenant) : InvalidArgument("");
  if (status.ok()) return status;
  return InvalidArgument("tenant \"" + tenant +
                         "\": use 1 to 64 letters, digits, dots, dashes or underscores, starting "
                         "with a letter or digit");
}

}  // namespace

std::string_view ScopeName(Scope scope) {
  switch (scope) {
    case Scope::kNone: return "none";
    case Scope::kRead: return "read";
    case Scope::kWrite: return "write";
    case Scope::kAdmin: break;
  }
  return "admin";
}

std::string ScopeRefusal(Scope needed, Scope has) {
  return "this needs a key of scope " + std::string(ScopeName(needed)) + "; this key has scope " +
         std::string(ScopeName(has));
}

Result<Scope> ParseScope(std::string_view text) {
  for (const Scope scope : {Scope::kRead, Scope::kWrite, Scope::kAdmin}) {
    if (text == ScopeName(scope)) return scope;
  }
  return InvalidArgument("scope '" + std::string(text) + "' is not read, write or admin");
}

// A file with tenants has version 2: a program that does not know tenants would treat their keys as
// keys of the operator.
Result<ApiKeys::File> ApiKeys::Parse(const std::string& text) {
  LH_ASSIGN_OR_RETURN(const json::object object, ParseJsonObject(text));
  LH_ASSIGN_OR_RETURN(const int64_t version, IntegerField(object, "version", 1, 2, 0));
  const json::value* list = FindField(object, "keys");
  if (version == 0 || list == nullptr || !list->is_array())
    return InvalidArgument("it has no list of keys of version 1 or 2");
  File file;
  for (const json::value& value : list->get_array()) {
    if (!value.is_object()) return InvalidArgument("a key is not an object");
    const json::object& from = value.get_object();
    ApiKey key;
    LH_ASSIGN_OR_RETURN(key.name, StringField(from, "name"));
    LH_ASSIGN_OR_RETURN(const std::string scope, StringField(from, "scope"));
    LH_ASSIGN_OR_RETURN(key.scope, ParseScope(scope));
    LH_ASSIGN_OR_RETURN(key.sha256, StringField(from, "sha256"));
    LH_ASSIGN_OR_RETURN(key.created, IntegerField(from, "created", 0, int64_t{1} << 40, 0));
    LH_ASSIGN_OR_RETURN(key.expires, IntegerField(from, "expires", 0, int64_t{1} << 40, 0));
    LH_ASSIGN_OR_RETURN(key.tenant, StringField(from, "tenant"));
    LH_RETURN_IF_ERROR(CheckKeyName(key.name));
    if (!key.tenant.empty()) LH_RETURN_IF_ERROR(CheckTenant(key.tenant));
    if (key.sha256.size() != 64) return InvalidArgument("key " + key.name + " has no hash");
    file.keys.push_back(std::move(key));
  }
  list = FindField(object, "tenants");
  if (list == nullptr) return file;
  if (!list->is_array()) return InvalidArgument("tenants is not a list");
  for (const json::value& value : list->get_array()) {
    if (!value.is_object()) return InvalidArgument("a tenant is not an object");
    const json::object& from = value.get_object();
    TenantLimits limits;
    LH_ASSIGN_OR_RETURN(limits.tenant, StringField(from, "tenant"));
    LH_RETURN_IF_ERROR(CheckTenant(limits.tenant));
    for (const auto& [name, member] : kLimits) {
      LH_ASSIGN_OR_RETURN(const int64_t number, IntegerField(from, name, 0, INT64_MAX, 0));
      limits.*member = static_cast<uint64_t>(number);
    }
    file.limits.push_back(std::move(limits));
  }
  return file;
}

Result<ApiKeys::File> ApiKeys::Read() const {
  std::error_code ec;
  if (!std::filesystem::exists(path_, ec) && !ec) return File{};
  const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return InvalidArgument("keys " + path_ + ": cannot be read (" + std::strerror(errno) +
                           "); check its permissions");
  const Result<std::string> text = ReadDescriptor(fd, "keys " + path_, kFileBytesMax);
  close(fd);
  if (!text.ok()) return text.status();
  Result<File> file = Parse(*text);
  if (!file.ok())
    return DataLoss("keys " + path_ + ": the file is damaged (" + file.status().message() +
                    "); restore it, or remove it and make new keys");
  return file;
}

Result<std::vector<ApiKey>> ApiKeys::List() const {
  LH_ASSIGN_OR_RETURN(File file, Read());
  return std::move(file.keys);
}

Result<std::vector<TenantLimits>> ApiKeys::Limits() const {
  LH_ASSIGN_OR_RETURN(File file, Read());
  return std::move(file.limits);
}

Status ApiKeys::Write(const File& file) const {
  json::array keys, tenants;
  bool of_tenants = !file.limits.empty();
  for (const ApiKey& key : file.keys) {
    json::object object{{"name", JsonString(key.name)},
                        {"scope", JsonString(ScopeName(key.scope))},
                        {"sha256", JsonString(key.sha256)},
                        {"created", key.created},
                        {"expires", key.expires}};
    if (!key.tenant.empty()) object["tenant"] = JsonString(key.tenant);
    of_tenants |= !key.tenant.empty();
    keys.push_back(std::move(object));
  }
  for (const TenantLimits& limits : file.limits) {
    json::object object{{"tenant", JsonString(limits.tenant)}};
    for (const auto& [name, member] : kLimits) object[name] = limits.*member;
    tenants.push_back(std::move(object));
  }
  json::object object{{"version", of_tenants ? 2 : 1}, {"keys", std::move(keys)}};
  if (!tenants.empty()) object["tenants"] = std::move(tenants);
  const std::string text = DumpJson(object) + "\n";
  std::error_code ec;
  std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), ec);
  return WriteFileDurably(path_, {text}, 0600, "keys");
}

Result<std::string> ApiKeys::Add(const std::string& name, Scope scope, int64_t now, int64_t expires,
                                 const std::string& tenant) {
  LH_RETURN_IF_ERROR(CheckKeyName(name));
  if (!tenant.empty()) LH_RETURN_IF_ERROR(CheckTenant(tenant));
  LH_ASSIGN_OR_RETURN(File file, Read());
  if (std::any_of(file.keys.begin(), file.keys.end(),
                  [&](const ApiKey& key) { return key.name == name; })) {
    return AlreadyExists("key " + name + ": it exists already; 'longhold key remove " + name +
                         "' removes it");
  }
  if (file.keys.size() >= kKeysMax)
    return ResourceExhausted("keys " + path_ + ": the file has " + std::to_string(kKeysMax) +
                             " keys, which is the limit; remove some");
  std::string digits = RandomHex(kKeyBytes), key = "lh-" + digits;
  Wipe(&digits);
  file.keys.push_back({.name = name,
                       .scope = scope,
                       .sha256 = Sha256Hex(key),
                       .created = now,
                       .expires = expires,
                       .tenant = tenant});
  LH_RETURN_IF_ERROR(Write(file));
  return key;
}

Status ApiKeys::Remove(const std::string& name) {
  LH_ASSIGN_OR_RETURN(File file, Read());
  if (std::erase_if(file.keys, [&](const ApiKey& key) { return key.name == name; }) == 0) {
    return NotFound("key " + name + ": there is no such key; 'longhold key list' shows all");
  }
  return Write(file);
}

Status ApiKeys::SetLimits(const TenantLimits& limits) {
  LH_RETURN_IF_ERROR(CheckTenant(limits.tenant));
  LH_ASSIGN_OR_RETURN(File file, Read());
  std::erase_if(file.limits,
                [&](const TenantLimits& known) { return known.tenant == limits.tenant; });
  // A tenant without limits is not stored.
  if (std::any_of(std::begin(kLimits), std::end(kLimits),
                  [&](const auto& limit) { return limits.*limit.second != 0; }))
    file.limits.push_back(limits);
  if (file.limits.size() > kKeysMax)
    return ResourceExhausted("keys " + path_ + ": the file has limits for " +
                             std::to_string(kKeysMax) + " tenants, which is the limit");
  return Write(file);
}

KeyChanges ApiKeys::ChangesOf(const File& before, const File& after) {
  KeyChanges changes;
  const auto find = [](const File& file, const std::string& name) {
    return std::find_if(file.keys.begin(), file.keys.end(),
                        [&](const ApiKey& key) { return key.name == name; });
  };
  for (const ApiKey& key : before.keys) {
    if (find(after, key.name) == after.keys.end()) changes.removed.push_back(key.name);
  }
  for (const ApiKey& key : after.keys) {
    const auto was = find(before, key.name);
    if (was == before.keys.end()) {
      changes.added.push_back(key.name);
    } else if (was->sha256 != key.sha256 || was->scope != key.scope ||
               was->expires != key.expires || was->tenant != key.tenant) {
      changes.changed.push_back(key.name);
    }
  }
  return changes;
}

Result<Caller> ApiKeys::CallerOf(std::string_view authorization, int64_t now, Scope without_keys) {
  constexpr std::string_view kBearer = "Bearer ";
  const bool has_key = authorization.starts_with(kBearer);
  return CallerOfKey(has_key ? authorization.substr(kBearer.size()) : "", now, without_keys);
}

Result<Caller> ApiKeys::CallerOfKey(std::string_view key, int64_t now, Scope without_keys) {
  const std::lock_guard lock(mutex_);
  // The stamp is taken before the file is read: a write in between is noticed at the next request.
  const std::string stamp = StampOf(path_);
  if (!file_.has_value() || stamp != stamp_) {
    Result<File> read = Read();
    if (on_change_ && file_.has_value() && file_->ok() && read.ok()) {
      const KeyChanges changes = ChangesOf(**file_, *read);
      if (!changes.added.empty() || !changes.removed.empty() || !changes.changed.empty())
        on_change_(changes);
    }
    file_ = std::move(read);
    stamp_ = stamp;
  }
  if (!file_->ok()) return file_->status();
  Caller caller;
  if (stamp.empty()) {
    caller.scope = without_keys;
    return caller;
  }
  if (key.empty()) return caller;
  const std::string presented = Sha256Hex(key);
  // Compares with all keys, even after a match, so that the time does not depend on the key.
  for (const ApiKey& known : (*file_)->keys) {
    if (!EqualInConstantTime(known.sha256, presented) ||
        (known.expires != 0 && now >= known.expires))
      continue;
    caller = {.scope = known.scope, .key = known.name, .limits = {.tenant = known.tenant}};
  }
  for (const TenantLimits& limits : (*file_)->limits) {
    if (!caller.limits.tenant.empty() && limits.tenant == caller.limits.tenant)
      caller.limits = limits;
  }
  return caller;
}

}  // namespace longhold
