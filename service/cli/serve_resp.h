// The server for Redis clients as a part of `longhold serve`: its stores, keys and limits.
//
// Owner: the `serve` command. Thread use: *confined*, except Measure, which is safe to call
// concurrently.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "memory/engine.h"
#include "service/cli/commands.h"
#include "service/resp/resp_server.h"
#include "service/resp/resp_stores.h"
#include "service/server/api_keys.h"
#include "service/server/metrics.h"

namespace longhold {

class ServedResp {
 public:
  // Checks the options, opens the stores of all tenants and listens. Null without --resp. Errors:
  // those of the options, of the stores and of RespServer::Start.
  static Result<std::unique_ptr<ServedResp>> Start(
      const ServeCommand& command, const CommandContext& c,
      const std::function<void(std::string_view)>& note);

  // "redis://127.0.0.1:6379" or "unix:///run/longhold.sock".
  std::string Url() const;
  void Stop(std::chrono::milliseconds drain) { server_->Stop(drain); }
  void Measure(Metrics& metrics) const;

 private:
  ServedResp(RespStores::Options options, const std::string& home)
      : stores_(std::move(options)), keys_(home) {}

  MemoryReservation memory_;
  RespStores stores_;
  ApiKeys keys_;
  std::string unix_path_, address_;
  std::unique_ptr<RespServer> server_;
};

}  // namespace longhold
