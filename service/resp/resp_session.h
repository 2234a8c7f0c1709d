// The commands of one client: what each means and who may give it. It turns a command into
// operations; a connection carries them out and sends the replies in their order.
//
// Owner: a connection. Thread use: *confined*. It never waits for the disk, except that AUTH and
// the check of a key read the file of keys if that has changed.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/secret.h"
#include "service/resp/resp_parser.h"
#include "service/resp/resp_reply.h"
#include "service/resp/resp_stores.h"
#include "service/server/api_keys.h"

namespace longhold {

// What sessions share. The server owns it.
struct RespContext {
  RespStores* stores = nullptr;
  ApiKeys* keys = nullptr;
  Scope without_keys = Scope::kNone;  // of every client while there is no file of keys
  std::string version;                // of longhold
  std::function<int64_t()> now_ms;    // milliseconds since 1970
  // For INFO.
  std::function<uint64_t()> connections, commands;
};

// One step of a command. Value type; move-only use.
struct RespOperation {
  enum class Kind : uint8_t {
    kReply,   // `text` is the reply or a part of it
    kGet,     // replies with the value of `text`, or null
    kSet,     // makes the one change; replies OK, or null if it was not applied
    kDelete,  // makes the changes; replies how many were applied
  } kind = Kind::kReply;
  std::string text;
  std::vector<ValueChange> changes;
};

class RespSession {
 public:
  RespSession(const RespContext* context, uint64_t id) : context_(context), id_(id) {}
  ~RespSession();
  RespSession(const RespSession&) = delete;
  RespSession& operator=(const RespSession&) = delete;

  // Checks the client's key again if the last check was a second ago. Handle does it, too.
  void Check(std::chrono::steady_clock::time_point now);

  // Whether the command changes values. Others must not be handled before earlier changes of the
  // client have been made, because they see the store.
  static bool Changes(const std::vector<RespArgument>& command);

  // Carries out a command as far as it needs no disk, and returns the rest. `now` is for the check
  // of the key: a key that was removed is refused after a second.
  std::vector<RespOperation> Handle(std::vector<RespArgument> command,
                                    std::chrono::steady_clock::time_point now);

  // For the operations of the last command. Null before AUTH, where there are keys.
  ValueStore* store() const { return store_; }
  RespVersion version() const { return version_; }
  // After QUIT: the connection closes once all replies are sent.
  bool quitting() const { return quitting_; }
  bool admitted() const { return scope_ != Scope::kNone; }

 private:
  using Arguments = std::vector<RespArgument>;
  using Operations = std::vector<RespOperation>;
  struct Command;
  static const std::vector<Command>& Table();
  static const Command* FindCommand(std::string_view name);

  // Identifies the client by its key. Errors: for the client.
  Status Identify(std::string_view key);

  Operations Auth(Arguments& arguments);
  Operations Hello(Arguments& arguments);
  Operations Ping(Arguments& arguments);
  Operations Echo(Arguments& arguments);
  Operations Select(Arguments& arguments);
  Operations Quit(Arguments& arguments);
  Operations Client(Arguments& arguments);
  Operations ListCommands(Arguments& arguments);
  Operations ConfigGet(Arguments& arguments);
  Operations Info(Arguments& arguments);
  Operations CountKeys(Arguments& arguments);
  Operations Get(Arguments& arguments);
  Operations GetMany(Arguments& arguments);
  Operations Exists(Arguments& arguments);
  Operations Length(Arguments& arguments);
  Operations Set(Arguments& arguments);
  Operations Delete(Arguments& arguments);

  const RespContext* const context_;
  const uint64_t id_;
  std::string name_;
  std::string key_;  // that the client gave; wiped at the end
  Scope scope_ = Scope::kNone;
  ValueStore* store_ = nullptr;
  RespVersion version_ = RespVersion::k2;
  bool quitting_ = false, checked_ = false;
  std::chrono::steady_clock::time_point checked_at_;
};

}  // namespace longhold
