#include "service/resp/resp_session.h"

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>
#include <utility>

namespace longhold {
namespace {

constexpr std::chrono::seconds kCheckAgain{1};
// Of a client's own text that a reply repeats, such as an unknown command's name.
constexpr size_t kRepeatedBytesMax = 64;
constexpr std::string_view kServedAs = "7.0.0";  // version of Redis whose commands these are

std::string Upper(std::string_view text) {
  std::string upper(text);
  for (char& c : upper)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return upper;
}
std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

std::optional<int64_t> ParseWhole(std::string_view text) {
  int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end) return std::nullopt;
  return number;
}

std::vector<RespOperation> Reply(std::string text) {
  std::vector<RespOperation> operations;
  operations.push_back({.text = std::move(text), .changes = {}});
  return operations;
}
std::vector<RespOperation> SimpleReply(std::string_view text) {
  std::string out;
  AppendSimple(&out, text);
  return Reply(std::move(out));
}
std::vector<RespOperation> ErrorReply(std::string_view text) {
  std::string out;
  AppendError(&out, text);
  return Reply(std::move(out));
}
std::vector<RespOperation> IntegerReply(uint64_t number) {
  std::string out;
  AppendInteger(&out, static_cast<int64_t>(number));
  return Reply(std::move(out));
}
std::vector<RespOperation> BulkReply(std::string_view bytes) {
  std::string out;
  AppendBulk(&out, bytes);
  return Reply(std::move(out));
}

// The argument as a value, without a copy if it is long.
Value TakeValue(RespArgument& argument) {
  if (argument.bytes != nullptr) return std::move(argument.bytes);
  return MakeValue(argument.text);
}

std::vector<RespOperation> NoSuchSubcommand(const char* command, std::string_view name) {
  return ErrorReply("ERR unknown subcommand '" + std::string(name.substr(0, kRepeatedBytesMax)) +
                    "' of '" + command + "'");
}

}  // namespace

struct RespSession::Command {
  std::string_view name;  // upper case
  // Bounds of the number of arguments, with the name.
  size_t arguments_min, arguments_max;
  Scope scope;  // kNone: also before AUTH
  Operations (RespSession::*run)(Arguments&);
};

const std::vector<RespSession::Command>& RespSession::Table() {
  constexpr size_t kAny = RespParser::kArgumentsMax;
  using S = RespSession;
  static const std::vector<Command> table = {
      {"AUTH", 2, 3, Scope::kNone, &S::Auth},
      {"CLIENT", 2, kAny, Scope::kRead, &S::Client},
      {"COMMAND", 1, kAny, Scope::kRead, &S::ListCommands},
      {"CONFIG", 2, kAny, Scope::kRead, &S::ConfigGet},
      {"DBSIZE", 1, 1, Scope::kRead, &S::CountKeys},
      {"DEL", 2, kAny, Scope::kWrite, &S::Delete},
      {"ECHO", 2, 2, Scope::kRead, &S::Echo},
      {"EXISTS", 2, kAny, Scope::kRead, &S::Exists},
      {"GET", 2, 2, Scope::kRead, &S::Get},
      {"HELLO", 1, 8, Scope::kNone, &S::Hello},
      {"INFO", 1, kAny, Scope::kRead, &S::Info},
      {"MGET", 2, kAny, Scope::kRead, &S::GetMany},
      {"PING", 1, 2, Scope::kRead, &S::Ping},
      {"QUIT", 1, kAny, Scope::kNone, &S::Quit},
      {"SELECT", 2, 2, Scope::kRead, &S::Select},
      {"SET", 3, 8, Scope::kWrite, &S::Set},
      {"STRLEN", 2, 2, Scope::kRead, &S::Length},
      {"UNLINK", 2, kAny, Scope::kWrite, &S::Delete},
  };
  return table;
}

const RespSession::Command* RespSession::FindCommand(std::string_view name) {
  if (name.size() > 16) return nullptr;
  const std::string upper = Upper(name);
  for (const Command& command : Table())
    if (command.name == upper) return &command;
  return nullptr;
}

RespSession::~RespSession() { Wipe(&key_); }

bool RespSession::Changes(const std::vector<RespArgument>& command) {
  const Command* const found = FindCommand(command[0].view());
  return found != nullptr && found->scope == Scope::kWrite;
}

Status RespSession::Identify(std::string_view key) {
  const Result<Caller> caller =
      context_->keys->CallerOfKey(key, context_->now_ms() / 1000, context_->without_keys);
  scope_ = Scope::kNone;
  store_ = nullptr;
  if (!caller.ok()) return caller.status();
  if (caller->scope == Scope::kNone) return OkStatus();
  LH_ASSIGN_OR_RETURN(store_,
                      context_->stores->For(caller->limits.tenant, caller->limits.disk_bytes));
  scope_ = caller->scope;
  return OkStatus();
}

void RespSession::Check(std::chrono::steady_clock::time_point now) {
  if (checked_ && now < checked_at_ + kCheckAgain) return;
  checked_ = true;
  checked_at_ = now;
  (void)Identify(key_);  // on an error the client is not admitted
}

std::vector<RespOperation> RespSession::Handle(std::vector<RespArgument> command,
                                               std::chrono::steady_clock::time_point now) {
  Check(now);
  const std::string_view name = command[0].view();
  const Command* const found = FindCommand(name);
  if (found == nullptr)
    return ErrorReply("ERR unknown command '" + std::string(name.substr(0, kRepeatedBytesMax)) +
                      "'");
  if (command.size() < found->arguments_min || command.size() > found->arguments_max)
    return ErrorReply("ERR wrong number of arguments for '" + Lower(found->name) + "' command");
  if (found->scope != Scope::kNone) {
    if (!admitted()) return ErrorReply("NOAUTH Authentication required.");
    if (scope_ < found->scope)
      return ErrorReply("NOPERM this key has the scope " + std::string(ScopeName(scope_)) +
                        ", and '" + Lower(found->name) + "' needs " +
                        std::string(ScopeName(found->scope)));
  }
  // Only SET takes a long argument; a key may have 64 KiB.
  for (size_t i = 1; i < command.size(); ++i) {
    const bool value = found->name == "SET" && i == 2;
    if (!value && command[i].view().size() > kValueKeyBytesMax)
      return ErrorReply("ERR an argument is longer than 64 KiB");
  }
  return (this->*found->run)(command);
}

// ------------------------------------------------------------------------------------------------
// the connection

// AUTH key, or AUTH user key. The user is ignored: the key tells who it is.
RespSession::Operations RespSession::Auth(Arguments& arguments) {
  Wipe(&key_);
  key_ = std::string(arguments.back().view());
  const Status status = Identify(key_);
  // The message names files of the server; `serve` and the HTTP server report the same.
  if (!status.ok()) return ErrorReply("ERR the server cannot check keys or open values now");
  if (!admitted())
    return ErrorReply("WRONGPASS invalid username-password pair or user is disabled.");
  return SimpleReply("OK");
}

RespSession::Operations RespSession::Hello(Arguments& arguments) {
  RespVersion version = version_;
  std::string name = name_;
  if (arguments.size() > 1) {
    const std::string_view wanted = arguments[1].view();
    if (wanted != "2" && wanted != "3") return ErrorReply("NOPROTO unsupported protocol version");
    version = wanted == "3" ? RespVersion::k3 : RespVersion::k2;
  }
  for (size_t i = 2; i < arguments.size();) {
    const std::string option = Upper(arguments[i].view());
    if (option == "AUTH" && i + 2 < arguments.size()) {
      Arguments given;
      given.push_back({.text = "AUTH", .bytes = {}});
      given.push_back(std::move(arguments[i + 2]));
      Operations reply = Auth(given);
      if (!admitted()) return reply;
      i += 3;
    } else if (option == "SETNAME" && i + 1 < arguments.size()) {
      name = std::string(arguments[i + 1].view().substr(0, kRepeatedBytesMax));
      i += 2;
    } else {
      return ErrorReply("ERR syntax error in HELLO");
    }
  }
  if (!admitted())
    return ErrorReply(
        "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO "
        "<proto> AUTH <user> <pass> option can be used to authenticate the client and select the "
        "RESP protocol version at the same time");
  version_ = version;
  name_ = name;
  std::string out;
  AppendMapHead(&out, 7, version_);
  const auto text = [&out](std::string_view key, std::string_view value) {
    AppendBulk(&out, key);
    AppendBulk(&out, value);
  };
  text("server", "longhold");
  text("version", kServedAs);
  AppendBulk(&out, "proto");
  AppendInteger(&out, static_cast<int>(version_));
  AppendBulk(&out, "id");
  AppendInteger(&out, static_cast<int64_t>(id_));
  text("mode", "standalone");
  text("role", "master");
  AppendBulk(&out, "modules");
  AppendArrayHead(&out, 0);
  return Reply(std::move(out));
}

RespSession::Operations RespSession::Ping(Arguments& arguments) {
  return arguments.size() == 1 ? SimpleReply("PONG") : Echo(arguments);
}

RespSession::Operations RespSession::Echo(Arguments& arguments) {
  if (arguments[1].bytes != nullptr) return ErrorReply("ERR the text is longer than 4 KiB");
  return BulkReply(arguments[1].text);
}

RespSession::Operations RespSession::Select(Arguments& arguments) {
  if (arguments[1].view() == "0") return SimpleReply("OK");
  return ErrorReply("ERR DB index is out of range; there is only 0");
}

RespSession::Operations RespSession::Quit(Arguments&) {
  quitting_ = true;
  return SimpleReply("OK");
}

RespSession::Operations RespSession::Client(Arguments& arguments) {
  const std::string name = Upper(arguments[1].view().substr(0, kRepeatedBytesMax));
  if (name == "ID") return IntegerReply(id_);
  if (name == "SETINFO" && arguments.size() == 4) return SimpleReply("OK");
  if (name == "GETNAME") return BulkReply(name_);
  if (name == "SETNAME" && arguments.size() == 3) {
    name_ = std::string(arguments[2].view().substr(0, kRepeatedBytesMax));
    return SimpleReply("OK");
  }
  return NoSuchSubcommand("client", name);
}

RespSession::Operations RespSession::ListCommands(Arguments& arguments) {
  if (arguments.size() == 1) {
    std::string out;
    AppendArrayHead(&out, 0);
    return Reply(std::move(out));
  }
  const std::string name = Upper(arguments[1].view().substr(0, kRepeatedBytesMax));
  if (name == "COUNT") return IntegerReply(Table().size());
  if (name != "DOCS" && name != "INFO") return NoSuchSubcommand("command", name);
  std::string out;
  if (name == "DOCS")
    AppendMapHead(&out, 0, version_);
  else
    AppendArrayHead(&out, 0);
  return Reply(std::move(out));
}

RespSession::Operations RespSession::ConfigGet(Arguments& arguments) {
  const std::string name = Upper(arguments[1].view().substr(0, kRepeatedBytesMax));
  if (name != "GET" || arguments.size() < 3) return NoSuchSubcommand("config", name);
  const ValueStats stats = store_->Stats();
  const std::vector<std::pair<std::string, std::string>> settings = {
      {"appendfsync", "everysec"},
      {"appendonly", "yes"},
      {"databases", "1"},
      {"maxmemory", std::to_string(stats.disk_bytes_max)},
      {"maxmemory-policy", "allkeys-lru"},
      {"proto-max-bulk-len", std::to_string(kValueBytesMax)},
      {"save", ""},
  };
  std::string found;
  size_t count = 0;
  for (const auto& [key, value] : settings) {
    for (size_t i = 2; i < arguments.size(); ++i) {
      if (arguments[i].view() != "*" && Lower(arguments[i].view()) != key) continue;
      AppendBulk(&found, key);
      AppendBulk(&found, value);
      ++count;
      break;
    }
  }
  std::string out;
  AppendMapHead(&out, count, version_);
  return Reply(out + found);
}

// ------------------------------------------------------------------------------------------------
// the store

RespSession::Operations RespSession::Info(Arguments& arguments) {
  const ValueStats stats = store_->Stats();
  const auto wanted = [&](std::string_view section) {
    if (arguments.size() == 1) return true;
    return std::any_of(arguments.begin() + 1, arguments.end(), [&](const RespArgument& argument) {
      const std::string name = Lower(argument.view().substr(0, kRepeatedBytesMax));
      return name == section || name == "all" || name == "default" || name == "everything";
    });
  };
  std::string text;
  const auto section = [&](const char* title,
                           std::vector<std::pair<std::string, std::string>> lines) {
    if (!wanted(Lower(title))) return;
    if (!text.empty()) text += "\r\n";
    text += std::string("# ") + title + "\r\n";
    for (const auto& [key, value] : lines) text += key + ":" + value + "\r\n";
  };
  const auto number = [](uint64_t value) { return std::to_string(value); };
  section("Server", {{"redis_version", std::string(kServedAs)},
                     {"redis_mode", "standalone"},
                     {"longhold_version", context_->version}});
  section("Clients", {{"connected_clients", number(context_->connections())}});
  section("Memory", {{"used_memory", number(stats.ram_bytes)},
                     {"maxmemory", number(stats.disk_bytes_max)},
                     {"maxmemory_policy", "allkeys-lru"},
                     {"longhold_ram_bytes_max", number(stats.ram_bytes_max)}});
  section("Persistence", {{"loading", "0"},
                          {"aof_enabled", "1"},
                          {"longhold_disk_bytes", number(stats.disk_bytes)},
                          {"longhold_disk_bytes_max", number(stats.disk_bytes_max)},
                          {"longhold_value_bytes", number(stats.value_bytes)},
                          {"longhold_syncs", number(stats.syncs)}});
  section("Stats", {{"total_commands_processed", number(context_->commands())},
                    {"keyspace_hits", number(stats.hits_ram + stats.hits_disk)},
                    {"keyspace_misses", number(stats.misses)},
                    {"evicted_keys", number(stats.evicted)},
                    {"expired_keys", number(stats.expired)},
                    {"longhold_hits_ram", number(stats.hits_ram)},
                    {"longhold_hits_disk", number(stats.hits_disk)},
                    {"longhold_damaged_values", number(stats.damaged)},
                    {"longhold_written_bytes", number(stats.written_bytes)}});
  if (stats.keys > 0) {
    section("Keyspace", {{"db0", "keys=" + number(stats.keys) +
                                     ",expires=" + number(stats.keys_expiring) + ",avg_ttl=0"}});
  } else {
    section("Keyspace", {});
  }
  return BulkReply(text);
}

RespSession::Operations RespSession::CountKeys(Arguments&) {
  return IntegerReply(store_->Stats().keys);
}

RespSession::Operations RespSession::Get(Arguments& arguments) {
  Operations operations;
  operations.push_back(
      {.kind = RespOperation::Kind::kGet, .text = std::string(arguments[1].view()), .changes = {}});
  return operations;
}

RespSession::Operations RespSession::GetMany(Arguments& arguments) {
  std::string head;
  AppendArrayHead(&head, arguments.size() - 1);
  Operations operations = Reply(std::move(head));
  for (size_t i = 1; i < arguments.size(); ++i)
    operations.push_back({.kind = RespOperation::Kind::kGet,
                          .text = std::string(arguments[i].view()),
                          .changes = {}});
  return operations;
}

RespSession::Operations RespSession::Exists(Arguments& arguments) {
  uint64_t count = 0;
  for (size_t i = 1; i < arguments.size(); ++i)
    count += store_->Look(arguments[i].view()).where != ValuePlace::Where::kNowhere ? 1 : 0;
  return IntegerReply(count);
}

RespSession::Operations RespSession::Length(Arguments& arguments) {
  return IntegerReply(store_->Look(arguments[1].view()).bytes);
}

RespSession::Operations RespSession::Set(Arguments& arguments) {
  ValueChange change;
  bool has_condition = false, has_time = false;
  for (size_t i = 3; i < arguments.size(); ++i) {
    const std::string option = Upper(arguments[i].view().substr(0, kRepeatedBytesMax));
    if ((option == "NX" || option == "XX") && !has_condition) {
      has_condition = true;
      change.when = option == "NX" ? ValueChange::When::kIfAbsent : ValueChange::When::kIfPresent;
    } else if ((option == "EX" || option == "PX") && !has_time && i + 1 < arguments.size()) {
      has_time = true;
      const std::optional<int64_t> time = ParseWhole(arguments[++i].view());
      const int64_t unit = option == "EX" ? 1000 : 1;
      if (!time.has_value() || *time <= 0 || *time > (int64_t{1} << 52) / unit)
        return ErrorReply("ERR invalid expire time in 'set' command");
      change.expires_ms = context_->now_ms() + *time * unit;
    } else if (option == "GET" || option == "KEEPTTL" || option == "EXAT" || option == "PXAT") {
      return ErrorReply("ERR the option " + option + " of 'set' is not supported");
    } else {
      return ErrorReply("ERR syntax error");
    }
  }
  if (const uint64_t bytes_max = store_->ValueBytesMax(); arguments[2].view().size() > bytes_max)
    return ErrorReply("ERR the value is longer than " + std::to_string(bytes_max) +
                      " bytes, the most that this store takes; raise --resp-disk");
  change.key = std::string(arguments[1].view());
  change.value = TakeValue(arguments[2]);
  RespOperation operation{.kind = RespOperation::Kind::kSet, .text = "", .changes = {}};
  operation.changes.push_back(std::move(change));
  Operations operations;
  operations.push_back(std::move(operation));
  return operations;
}

RespSession::Operations RespSession::Delete(Arguments& arguments) {
  RespOperation operation{.kind = RespOperation::Kind::kDelete, .text = "", .changes = {}};
  for (size_t i = 1; i < arguments.size(); ++i)
    operation.changes.push_back({.key = std::string(arguments[i].view()), .value = nullptr});
  Operations operations;
  operations.push_back(std::move(operation));
  return operations;
}

}  // namespace longhold
