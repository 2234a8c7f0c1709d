// `longhold key`: the API keys of the server.
#include <boost/json.hpp>

#include "base/clock.h"
#include "base/format.h"
#include "base/secret.h"
#include "service/cli/commands.h"
#include "service/common/json_text.h"
#include "service/server/api_keys.h"
#include "service/server/conversation.h"

namespace longhold {
namespace {

namespace json = boost::json;

std::string When(int64_t time) { return time == 0 ? "never" : TimeText(time) + " UTC"; }

}  // namespace

Status RunKeyCommand(const KeyAddCommand& command, const CommandContext& c) {
  LH_ASSIGN_OR_RETURN(const Scope scope, ParseScope(command.scope));
  const int64_t now = UnixSeconds();
  const int64_t expires = command.days == 0 ? 0 : now + int64_t{command.days} * 86400;
  LH_ASSIGN_OR_RETURN(
      std::string key,
      ApiKeys(c.config.home.value).Add(command.name, scope, now, expires, command.tenant));
  std::string shown = c.json ? DumpJson(json::object{{"name", JsonString(command.name)},
                                                     {"scope", JsonString(command.scope)},
                                                     {"key", JsonString(key)},
                                                     {"expires", expires}}) +
                                   "\n"
                             : key + "\n";
  c.terminal.Out(shown);
  Wipe(&shown);
  Wipe(&key);
  c.terminal.Note(
      "scope " + command.scope + (command.tenant.empty() ? "" : ", tenant " + command.tenant) +
      ", expires: " + When(expires) + "; the key itself is not stored and cannot be shown again");
  return OkStatus();
}

Status RunKeyCommand(const KeyLimitCommand& command, const CommandContext& c) {
  ApiKeys keys(c.config.home.value);
  TenantLimits limits{.tenant = command.tenant};
  LH_ASSIGN_OR_RETURN(const std::vector<TenantLimits> known, keys.Limits());
  for (const TenantLimits& one : known) {
    if (one.tenant == command.tenant) limits = one;
  }
  limits.requests_per_minute = command.requests_per_minute.value_or(limits.requests_per_minute);
  limits.tokens_per_day = command.tokens_per_day.value_or(limits.tokens_per_day);
  limits.documents = command.documents.value_or(limits.documents);
  if (command.disk.has_value()) {
    LH_ASSIGN_OR_RETURN(limits.disk_bytes, ParseBytes(*command.disk));
  }
  if (command.requests_per_minute.has_value() || command.tokens_per_day.has_value() ||
      command.documents.has_value() || command.disk.has_value()) {
    LH_RETURN_IF_ERROR(keys.SetLimits(limits));
  }
  const auto line = [](const std::string& what, uint64_t limit, const std::string& shown) {
    return what + ": " + (limit == 0 ? "no limit" : shown) + "\n";
  };
  c.terminal.Out(c.json ? DumpJson(json::object{{"tenant", JsonString(limits.tenant)},
                                                {"requests_per_minute", limits.requests_per_minute},
                                                {"tokens_per_day", limits.tokens_per_day},
                                                {"documents", limits.documents},
                                                {"disk_bytes", limits.disk_bytes}}) +
                              "\n"
                        : line("requests per minute", limits.requests_per_minute,
                               FormatCount(limits.requests_per_minute)) +
                              line("tokens per day", limits.tokens_per_day,
                                   FormatCount(limits.tokens_per_day)) +
                              line("documents", limits.documents, FormatCount(limits.documents)) +
                              line("disk", limits.disk_bytes, FormatBytes(limits.disk_bytes)));
  return OkStatus();
}

Status RunKeyCommand(const KeyListCommand&, const CommandContext& c) {
  LH_ASSIGN_OR_RETURN(const std::vector<ApiKey> keys, ApiKeys(c.config.home.value).List());
  json::array list;
  std::string text;
  for (const ApiKey& key : keys) {
    json::object object{{"name", JsonString(key.name)},
                        {"scope", JsonString(ScopeName(key.scope))},
                        {"created", key.created},
                        {"expires", key.expires}};
    if (!key.tenant.empty()) object["tenant"] = JsonString(key.tenant);
    list.push_back(std::move(object));
    text += key.name + "  " + std::string(ScopeName(key.scope)) +
            (key.tenant.empty() ? "" : "  tenant " + key.tenant) + "  created " +
            When(key.created) + "  expires " + When(key.expires) + "\n";
  }
  c.terminal.Out(c.json ? DumpJson(list) + "\n" : text);
  if (keys.empty())
    c.terminal.Note("no keys in " + c.config.home.value + "; 'longhold key add NAME' creates one");
  return OkStatus();
}

Status RunKeyCommand(const KeyRemoveCommand& command, const CommandContext& c) {
  LH_RETURN_IF_ERROR(ApiKeys(c.config.home.value).Remove(command.name));
  c.terminal.Out(c.json ? DumpJson(json::object{{"removed", JsonString(command.name)}}) + "\n"
                        : "removed the key " + command.name + "\n");
  return OkStatus();
}

}  // namespace longhold
