// `longhold attach-server`: builds the parts of the proxy and runs it.
#include <algorithm>

#include "base/format.h"
#include "service/attach/attach_proxy.h"
#include "service/attach/llama_server.h"
#include "service/cli/commands.h"
#include "service/cli/served_name.h"
#include "service/server/descriptors.h"
#include "service/server/http_server.h"

namespace longhold {
namespace {

// After a signal, answers in progress have this much time to finish.
constexpr std::chrono::seconds kDrain{30};

}  // namespace

Status RunAttachCommand(const AttachCommand& command, const CommandContext& c) {
  LH_ASSIGN_OR_RETURN(const HttpAddress address, ParseHttpUrl(command.url));
  LH_ASSIGN_OR_RETURN(const ListenAddress listen, ParseListen(c.config.listen.value));
  if (!IsLoopback(listen.address)) {
    return InvalidArgument(
        "--listen " + listen.address +
        ": other machines can reach this address, and the proxy asks for no key; listen on "
        "127.0.0.1, behind a proxy of your own");
  }
  if (!command.memory.empty()) LH_RETURN_IF_ERROR(c.engine.Exists(command.memory));
  const auto note = [&c](std::string_view text) { c.terminal.Note(text); };
  std::unique_ptr<AttachProxy> proxy;  // set before the server runs
  LH_ASSIGN_OR_RETURN(
      const std::unique_ptr<HttpServer> front,
      HttpServer::Listen(
          {.address = listen.address, .port = listen.port, .hosts = {}, .note = note},
          [&proxy](const HttpRequest& head) { return proxy->Admit(head); }));
  const std::atomic<bool>* const stop = c.catch_signals();
  LH_ASSIGN_OR_RETURN(SharedModel* const model, c.load_model());
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<LlamaServer> server,
                      LlamaServer::Connect(address, command.slot_dir, *model));
  const std::string name = ServedName(c.config.model.value);
  proxy = std::make_unique<AttachProxy>(
      &c.engine, server.get(),
      AttachOptions{.model = name, .memory = command.memory, .note = note});
  c.terminal.Out(ServedUrl(false, listen.address, front->port()) + "\n");
  note("answering with the server at " + address.Url() + ": " + name + ", " +
       FormatCount(server->slots()) + (server->slots() == 1 ? " slot" : " slots") + " of " +
       FormatCount(server->context_tokens()) + " tokens, slot files of version " +
       std::to_string(server->layout().version) + ", keys and values within " +
       Format("%.1f", server->difference() * 100) + "%; Ctrl-C stops");
  front->Run(stop, kDrain, [&] { proxy->Stop(); });
  return OkStatus();
}

}  // namespace longhold
