// Commands of hostile Redis clients. The first byte is the seed of the lengths in which the rest
// reaches the parser. The commands must be the same as when it arrives at once; a command is then
// handled by a session of an admitted client, over a store in RAM.
#include <cstdint>
#include <memory>

#include "service/resp/resp_session.h"
#include "tests/fuzz/fuzz_bytes.h"
#include "tests/store/temp_dir.h"
#include "tests/support/map_value_store.h"
#include "tests/support/resp_feed.h"

namespace longhold {
namespace {

// The owner's bound for one argument here: libFuzzer's inputs are shorter.
constexpr uint64_t kLongMax = 1 << 20;

class AdmittedClient {
 public:
  AdmittedClient()
      : keys_(dir_ / "home"),
        stores_({.open = [](const std::string&, uint64_t,
                            uint64_t) -> Result<std::unique_ptr<ValueStore>> {
          return std::unique_ptr<ValueStore>(std::make_unique<MapValueStore>());
        }}) {
    context_ = {.stores = &stores_,
                .keys = &keys_,
                .without_keys = Scope::kAdmin,
                .version = "0",
                .now_ms = [] { return int64_t{1000}; },
                .connections = [] { return uint64_t{1}; },
                .commands = [] { return uint64_t{1}; }};
  }

  void Handle(const std::vector<std::string>& command) {
    std::vector<RespArgument> arguments;
    for (const std::string& text : command) {
      arguments.push_back({.text = text, .bytes = {}});
      if (text.size() <= RespParser::kShortBytesMax) continue;
      arguments.back().text.clear();
      arguments.back().bytes = std::make_shared<ValueBytes>(text.size());
      std::memcpy(arguments.back().bytes->data(), text.data(), text.size());
    }
    RespSession session(&context_, 1);
    std::vector<RespOperation> operations =
        session.Handle(std::move(arguments), std::chrono::steady_clock::time_point());
    LH_CHECK(!operations.empty() && operations.size() <= RespParser::kArgumentsMax);
    for (RespOperation& operation : operations) {
      if (operation.kind == RespOperation::Kind::kReply) LH_CHECK(operation.text.ends_with("\r\n"));
      if (operation.changes.empty()) continue;
      LH_CHECK(RespSession::Changes({RespArgument{.text = command[0], .bytes = {}}}));
      (void)session.store()->Write(operation.changes);
    }
  }

 private:
  TempDir dir_;
  ApiKeys keys_;
  RespStores stores_;
  RespContext context_;
};

}  // namespace
}  // namespace longhold

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longhold;
  if (size == 0) return 0;
  FuzzBytes input(data, size);
  uint32_t random = input.Take<uint8_t>();
  const std::string_view bytes = input.rest();
  const RespParsed whole = FeedResp(
      bytes, [&] { return bytes.size(); }, kLongMax);
  const RespParsed pieces = FeedResp(
      bytes,
      [&] {
        random = random * 1664525 + 1013904223;
        return 1 + (random >> 16) % 5000;
      },
      kLongMax);
  LH_CHECK(whole == pieces);
  static AdmittedClient client;
  for (const std::vector<std::string>& command : whole.commands) client.Handle(command);
  return 0;
}
