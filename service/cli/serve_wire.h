// The listener of the wire protocol that `longhold serve --wire` and `--wire-socket` start.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "memory/model/text_embedder.h"
#include "service/cli/commands.h"
#include "service/server/quotas.h"
#include "service/server/request_record.h"
#include "service/wire/wire_server.h"

namespace longhold {

// What the listener shares with the rest of the server. Borrowed: outlives the listener.
struct WireParts {
  Quotas* quotas = nullptr;
  RecordSinks sinks;
  std::function<void(std::string_view)> note;
};

// Owner: the `serve` command. Thread use: *external*.
class ServedWire {
 public:
  // Checks the command's options before anything slow happens. Errors: invalid_argument.
  static Status Check(const ServeCommand& command, const CommandContext& c);
  // Does nothing where the command asks for no such listener. Otherwise listens; clients that
  // connect wait until Start. Loads an embedder of its own: the engine's is confined. Errors:
  // invalid_argument.
  static Result<ServedWire> Listen(const ServeCommand& command, const CommandContext& c,
                                   const WireParts& parts);
  // Serves clients from now on, and notes where.
  void Start();
  // See WireServer::Stop.
  void Stop() {
    if (server_ != nullptr) server_->Stop();
  }

 private:
  std::vector<std::string> places_;  // where it listens, for notes
  std::function<void(std::string_view)> note_;
  std::unique_ptr<TextEmbedder> embedder_;    // null: none
  std::unique_ptr<wire::WireServer> server_;  // null: nobody asked for it
};

}  // namespace longhold
