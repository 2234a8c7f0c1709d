#include "service/api_keys.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/durable_file.h"
#include "base/hash.h"
#include "base/text.h"
#include "service/json_text.h"
#include "service/text_input.h"

namespace longhold {
namespace {

namespace json = boost::json;

constexpr size_t kKeyBytes = 32;
constexpr size_t kKeysMax = 10000;
constexpr size_t kNameMax = 64;
constexpr uint64_t kFileBytesMax = 16 << 20;

// Changes with every write of the file; empty where there is none.
std::string StampOf(const std::string& path) {
  struct stat s{};
  if (stat(path.c_str(), &s) != 0) return "";
  return std::to_string(s.st_ino) + " " + std::to_string(s.st_size) + " " + std::to_string(s.st_mtim.tv_sec) + "." + std::to_string(s.st_mtim.tv_nsec);
}

Status CheckKeyName(const std::string& name) {
  if (name.empty() || name.size() > kNameMax || !std::all_of(name.begin(), name.end(), IsNameByte)) {
    return InvalidArgument("key name \"" + name + "\": use 1 to 64 letters, digits, dots, dashes or underscores");
  }
  return OkStatus();
}

Result<std::vector<ApiKey>> Parse(const std::string& text) {
  LH_ASSIGN_OR_RETURN(const json::object file, ParseJsonObject(text));
  LH_ASSIGN_OR_RETURN(const int64_t version, IntegerField(file, "version", 1, 1, 0));
  const json::value* list = FindField(file, "keys");
  if (version != 1 || list == nullptr || !list->is_array()) return InvalidArgument("no list of keys of version 1");
  std::vector<ApiKey> keys;
  for (const json::value& value : list->get_array()) {
    if (!value.is_object()) return InvalidArgument("a key is no object");
    const json::object& object = value.get_object();
    ApiKey key;
    LH_ASSIGN_OR_RETURN(key.name, StringField(object, "name"));
    LH_ASSIGN_OR_RETURN(const std::string scope, StringField(object, "scope"));
    LH_ASSIGN_OR_RETURN(key.scope, ParseScope(scope));
    LH_ASSIGN_OR_RETURN(key.sha256, StringField(object, "sha256"));
    LH_ASSIGN_OR_RETURN(key.created, IntegerField(object, "created", 0, int64_t{1} << 40, 0));
    LH_ASSIGN_OR_RETURN(key.expires, IntegerField(object, "expires", 0, int64_t{1} << 40, 0));
    LH_RETURN_IF_ERROR(CheckKeyName(key.name));
    if (key.sha256.size() != 64) return InvalidArgument("key " + key.name + " has no hash");
    keys.push_back(std::move(key));
  }
  return keys;
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

Result<Scope> ParseScope(std::string_view text) {
  for (const Scope scope : {Scope::kRead, Scope::kWrite, Scope::kAdmin}) {
    if (text == ScopeName(scope)) return scope;
  }
  return InvalidArgument("scope '" + std::string(text) + "' is none of read, write, admin");
}

Result<std::vector<ApiKey>> ApiKeys::List() const {
  std::error_code ec;
  if (!std::filesystem::exists(path_, ec) && !ec) return std::vector<ApiKey>{};
  const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return InvalidArgument("keys " + path_ + ": cannot be read (" + std::strerror(errno) + "); check its permissions");
  const Result<std::string> text = ReadDescriptor(fd, "keys " + path_, kFileBytesMax);
  close(fd);
  if (!text.ok()) return text.status();
  Result<std::vector<ApiKey>> keys = Parse(*text);
  if (!keys.ok()) return DataLoss("keys " + path_ + ": is damaged (" + keys.status().message() + "); restore it, or remove it and make new keys");
  return keys;
}

Status ApiKeys::Write(const std::vector<ApiKey>& keys) const {
  json::array list;
  for (const ApiKey& key : keys) {
    list.push_back(json::object{{"name", JsonString(key.name)}, {"scope", JsonString(ScopeName(key.scope))}, {"sha256", JsonString(key.sha256)},
                                {"created", key.created}, {"expires", key.expires}});
  }
  const std::string text = DumpJson(json::object{{"version", 1}, {"keys", std::move(list)}}) + "\n";
  std::error_code ec;
  std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), ec);
  return WriteFileDurably(path_, {text}, 0600, "keys");
}

Result<std::string> ApiKeys::Add(const std::string& name, Scope scope, int64_t now, int64_t expires) {
  LH_RETURN_IF_ERROR(CheckKeyName(name));
  LH_ASSIGN_OR_RETURN(std::vector<ApiKey> keys, List());
  if (std::any_of(keys.begin(), keys.end(), [&](const ApiKey& key) { return key.name == name; })) {
    return AlreadyExists("key " + name + ": there is one already; 'longhold key remove " + name + "' takes it away");
  }
  if (keys.size() >= kKeysMax) return ResourceExhausted("keys " + path_ + ": there are " + std::to_string(kKeysMax) + "; remove some");
  const std::string key = "lh-" + RandomHex(kKeyBytes);
  keys.push_back({.name = name, .scope = scope, .sha256 = Sha256Hex(key), .created = now, .expires = expires});
  LH_RETURN_IF_ERROR(Write(keys));
  return key;
}

Status ApiKeys::Remove(const std::string& name) {
  LH_ASSIGN_OR_RETURN(std::vector<ApiKey> keys, List());
  if (std::erase_if(keys, [&](const ApiKey& key) { return key.name == name; }) == 0) {
    return NotFound("key " + name + ": there is none; 'longhold key list' shows them");
  }
  return Write(keys);
}

Result<Caller> ApiKeys::CallerOf(std::string_view authorization, int64_t now, Scope without_keys) {
  const std::lock_guard lock(mutex_);
  // The stamp is taken before the file is read: what is written meanwhile is seen next time.
  const std::string stamp = StampOf(path_);
  if (!keys_.has_value() || stamp != stamp_) {
    keys_ = List();
    stamp_ = stamp;
  }
  if (!keys_->ok()) return keys_->status();
  Caller caller;
  if (stamp.empty()) return Caller{.scope = without_keys, .key = {}};
  constexpr std::string_view kBearer = "Bearer ";
  if (!authorization.starts_with(kBearer)) return caller;
  const std::string presented = Sha256Hex(authorization.substr(kBearer.size()));
  // All are looked at, whichever fits.
  for (const ApiKey& key : **keys_) {
    if (EqualInConstantTime(key.sha256, presented) && (key.expires == 0 || now < key.expires)) caller = {.scope = key.scope, .key = key.name};
  }
  return caller;
}

}  // namespace longhold
