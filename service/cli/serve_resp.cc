#include "service/cli/serve_resp.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "service/cli/reach.h"
#include "service/resp/resp_address.h"
#include "store/value_log.h"

namespace longhold {
namespace {

constexpr uint64_t kRamBytesDefault = 256ull << 20;
// Without --resp-memory the RAM tier takes at most this share of the memory budget.
constexpr uint64_t kRamOfBudget = 8;

Result<uint64_t> BytesOf(const std::string& option, const std::string& text, uint64_t bytes_min,
                         uint64_t otherwise) {
  if (text.empty()) return otherwise;
  const Result<uint64_t> bytes = ParseBytes(text);
  if (!bytes.ok()) return InvalidArgument(option + " " + text + ": " + bytes.status().message());
  if (*bytes < bytes_min)
    return InvalidArgument(option + " " + text + ": is less than " + FormatBytes(bytes_min));
  return bytes;
}

std::string PathOf(const std::string& home, const std::string& tenant) {
  return home + (tenant.empty() ? "" : "/tenants/" + tenant) + "/values";
}

// Those with values, and those with keys.
Result<std::vector<std::string>> TenantsOf(const CommandContext& c, ApiKeys& keys) {
  std::set<std::string> tenants;
  LH_ASSIGN_OR_RETURN(const std::vector<ApiKey> known, keys.List());
  for (const ApiKey& key : known) tenants.insert(key.tenant);
  std::error_code ec;
  for (const std::string& tenant : c.stores.Tenants()) {
    if (std::filesystem::exists(PathOf(c.config.home.value, tenant), ec)) tenants.insert(tenant);
  }
  if (known.empty() || std::filesystem::exists(PathOf(c.config.home.value, ""), ec))
    tenants.insert("");
  return std::vector<std::string>(tenants.begin(), tenants.end());
}

}  // namespace

Result<std::unique_ptr<ServedResp>> ServedResp::Start(
    const ServeCommand& command, const CommandContext& c,
    const std::function<void(std::string_view)>& note) {
  if (command.resp.empty()) return std::unique_ptr<ServedResp>();
  LH_ASSIGN_OR_RETURN(const RespAddress listen, ParseRespAddress(command.resp));
  const uint64_t budget = c.engine.budget().limit_bytes();
  LH_ASSIGN_OR_RETURN(const uint64_t disk,
                      BytesOf("--resp-disk", command.resp_disk, kValueDiskBytesMin,
                              RespStores::Options().disk_bytes_max));
  LH_ASSIGN_OR_RETURN(const uint64_t ram,
                      BytesOf("--resp-memory", command.resp_memory, 1 << 20,
                              std::min(kRamBytesDefault, budget / kRamOfBudget)));
  const std::string home = c.config.home.value;
  const auto open = [home, note, master = c.encryption_key](const std::string& tenant,
                                                            uint64_t disk_max, uint64_t ram_max) {
    return OpenValueLog({.path = PathOf(home, tenant),
                         .disk_bytes_max = disk_max,
                         .ram_bytes_max = ram_max,
                         .master = master,
                         .owner = tenant,
                         .now_ms = UnixMilliseconds,
                         .note = note});
  };
  std::unique_ptr<ServedResp> served(
      new ServedResp({.disk_bytes_max = disk, .ram_bytes_max = ram, .open = open}, home));
  const Reach reach{.option = "--resp",
                    .address = listen.address,
                    .insecure = command.insecure,
                    .instead = "it has no TLS: listen on 127.0.0.1 or on a socket file"};
  LH_RETURN_IF_ERROR(CheckReach(reach, served->keys_));
  LH_ASSIGN_OR_RETURN(served->memory_,
                      c.engine.budget().Reserve(ram, "values of Redis clients (--resp-memory)"));
  LH_ASSIGN_OR_RETURN(const std::vector<std::string> tenants, TenantsOf(c, served->keys_));
  LH_RETURN_IF_ERROR(served->stores_.Open(tenants));
  LH_ASSIGN_OR_RETURN(served->server_, RespServer::Start({.address = listen.address,
                                                          .port = listen.port,
                                                          .unix_path = listen.unix_path,
                                                          .version = LONGHOLD_VERSION,
                                                          .without_keys = ScopeWithoutKeys(reach),
                                                          .note = note},
                                                         &served->stores_, &served->keys_));
  served->unix_path_ = listen.unix_path;
  served->address_ = listen.address;
  return served;
}

std::string ServedResp::Url() const {
  if (!unix_path_.empty()) return "unix://" + unix_path_;
  return "redis://" + Authority(address_, server_->port());
}

void ServedResp::Measure(Metrics& metrics) const {
  const RespCounts counts = server_->Counts();
  metrics.Values(stores_.Total(), counts.connections, counts.commands);
}

}  // namespace longhold
