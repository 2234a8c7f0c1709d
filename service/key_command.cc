// `longhold key`: the keys of the server.
#include <boost/json.hpp>

#include "base/clock.h"
#include "service/api_keys.h"
#include "service/commands.h"
#include "service/conversation.h"
#include "service/json_text.h"

namespace longhold {
namespace {

namespace json = boost::json;

std::string When(int64_t time) { return time == 0 ? "never" : TimeText(time) + " UTC"; }

}  // namespace

Status RunKeyCommand(const KeyAddCommand& command, const CommandContext& c) {
  LH_ASSIGN_OR_RETURN(const Scope scope, ParseScope(command.scope));
  const int64_t now = UnixSeconds();
  const int64_t expires = command.days == 0 ? 0 : now + int64_t{command.days} * 86400;
  LH_ASSIGN_OR_RETURN(const std::string key, ApiKeys(c.config.home.value).Add(command.name, scope, now, expires));
  c.terminal.Out(c.json ? DumpJson(json::object{{"name", JsonString(command.name)}, {"scope", JsonString(command.scope)}, {"key", JsonString(key)}, {"expires", expires}}) + "\n"
                        : key + "\n");
  c.terminal.Note("scope " + command.scope + ", expires: " + When(expires) + "; it is not kept and cannot be shown again");
  return OkStatus();
}

Status RunKeyCommand(const KeyListCommand&, const CommandContext& c) {
  LH_ASSIGN_OR_RETURN(const std::vector<ApiKey> keys, ApiKeys(c.config.home.value).List());
  json::array list;
  std::string text;
  for (const ApiKey& key : keys) {
    list.push_back(json::object{{"name", JsonString(key.name)}, {"scope", JsonString(ScopeName(key.scope))}, {"created", key.created}, {"expires", key.expires}});
    text += key.name + "  " + std::string(ScopeName(key.scope)) + "  made " + When(key.created) + "  expires " + When(key.expires) + "\n";
  }
  c.terminal.Out(c.json ? DumpJson(list) + "\n" : text);
  if (keys.empty()) c.terminal.Note("no keys in " + c.config.home.value + "; 'longhold key add NAME' makes one");
  return OkStatus();
}

Status RunKeyCommand(const KeyRemoveCommand& command, const CommandContext& c) {
  LH_RETURN_IF_ERROR(ApiKeys(c.config.home.value).Remove(command.name));
  c.terminal.Out(c.json ? DumpJson(json::object{{"removed", JsonString(command.name)}}) + "\n" : "removed the key " + command.name + "\n");
  return OkStatus();
}

}  // namespace longhold
