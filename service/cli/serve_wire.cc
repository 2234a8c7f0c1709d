#include "service/cli/serve_wire.h"

#include <algorithm>
#include <string>

#include "service/cli/model_choice.h"
#include "service/cli/reach.h"
#include "service/server/api_keys.h"

namespace longhold {
namespace {

// Memory budget of a sidecar: a share of the server's. Sidecars keep it while they are open, so all
// of them together may have half: the rest is the engine's.
constexpr uint64_t kSidecarShare = 8, kSidecarBytesMin = 64ull << 20, kSidecarBytesMax = 1ull << 30,
                   kSidecarsMax = 8;

Reach ReachOf(const ServeCommand& command, const std::string& address) {
  return {.option = "--wire",
          .address = address,
          .insecure = command.insecure,
          .instead = "it has no TLS: listen on 127.0.0.1 behind a tunnel"};
}

}  // namespace

Status ServedWire::Check(const ServeCommand& command, const CommandContext& c) {
  if (command.wire.empty()) return OkStatus();
  LH_ASSIGN_OR_RETURN(const ListenAddress listen, ParsePortOrListen(command.wire));
  return CheckReach(ReachOf(command, listen.address), ApiKeys(c.config.home.value));
}

Result<ServedWire> ServedWire::Listen(const ServeCommand& command, const CommandContext& c,
                                      const WireParts& parts) {
  ServedWire served;
  if (command.wire.empty() && command.wire_socket.empty()) return served;
  wire::WireServerOptions options;
  options.socket_path = command.wire_socket;
  options.service.home = c.config.home.value;
  if (!command.wire.empty()) {
    LH_ASSIGN_OR_RETURN(const ListenAddress listen, ParsePortOrListen(command.wire));
    options.tcp = true;
    options.address = listen.address;
    options.port = listen.port;
    options.service.without_keys = ScopeWithoutKeys(ReachOf(command, listen.address));
  }
  LH_ASSIGN_OR_RETURN(served.embedder_, LoadChosenEmbedder(c.config, c.catalog));
  options.service.quotas = parts.quotas;
  options.service.note = parts.note;
  options.service.sinks = parts.sinks;
  options.service.version = LONGHOLD_VERSION;
  const uint64_t budget = c.engine.budget().limit_bytes();
  wire::SidecarsOptions& sidecars = options.service.sidecars;
  sidecars.stores = &c.stores;
  sidecars.embedder = served.embedder_.get();
  sidecars.encryption_key = c.encryption_key;
  sidecars.budget = &c.engine.budget();
  sidecars.sidecar_bytes = std::clamp(budget / kSidecarShare, kSidecarBytesMin, kSidecarBytesMax);
  sidecars.sidecars_max =
      std::clamp<uint64_t>(budget / 2 / sidecars.sidecar_bytes, 1, kSidecarsMax);
  sidecars.tenant_sidecars_max = (sidecars.sidecars_max + 1) / 2;
  LH_ASSIGN_OR_RETURN(served.server_, wire::WireServer::Listen(std::move(options)));
  served.note_ = parts.note;
  if (!command.wire.empty())
    served.places_.push_back("port " + std::to_string(served.server_->port()));
  if (!command.wire_socket.empty()) served.places_.push_back("the socket " + command.wire_socket);
  return served;
}

void ServedWire::Start() {
  if (server_ == nullptr) return;
  for (const std::string& place : places_) note_("the wire protocol is on " + place);
  server_->Start();
}

}  // namespace longhold
