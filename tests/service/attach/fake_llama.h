// A stand-in for llama.cpp's server: the routes that longhold uses, with a toy model's keys and
// values. It keeps a slot's tokens as the real one does, so that what is reused follows from what
// was restored.
#pragma once

#include <algorithm>
#include <atomic>
#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/joined_thread.h"
#include "memory/answer/recalled_prompt.h"
#include "service/attach/http_client.h"
#include "service/attach/slot_file.h"
#include "service/common/json_text.h"
#include "service/server/http_server.h"
#include "tests/store/temp_dir.h"
#include "tests/support/toy_model.h"

namespace longhold {

// As TestGeometry, but all layers are tapped.
inline ToyOptions AttachedToy() {
  ToyOptions options;
  options.geometry.layers = {0, 1, 2};
  return options;
}

// Value type.
struct FakeLlamaOptions {
  ToyOptions model = AttachedToy();
  SlotLayout layout{.version = 4, .packed_tokens = true};
  uint32_t slots = 1, context_tokens = 4096;
  bool saves_slots = true;  // it was started with --slot-save-path
  bool needs_key = false;   // it was started with --api-key
  bool saves_here = true;   // in the directory that longhold knows
  std::string answer = " It is 7350194.";
  // Another client takes the slot between restore and completion, so many times.
  uint32_t steals = 0;
  // A completion clears all other slots, as newer servers do with idle slots of a shared cache.
  bool clears_idle_slots = false;
};

// Owner: a test. Its HTTP thread answers; `mutex` guards what it recorded.
class FakeLlama {
 public:
  explicit FakeLlama(FakeLlamaOptions options)
      : options_(std::move(options)), model_(options_.model), slots_(options_.slots) {
    options_.layout.layers = model_.info().layer_count;
    options_.layout.kv_width = model_.info().geometry.kv_width();
    auto server = HttpServer::Listen({}, [this](const HttpRequest&) {
      HttpAdmission admission;
      admission.body_bytes_max = 1 << 20;
      admission.handle = [this](HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
        if (request.path != std::vector<std::string>{"flood"}) return Handle(request, *exchange);
        exchange->BeginBytes("text/event-stream");
        Flood(exchange, 0);
      };
      return admission;
    });
    LH_CHECK(server.ok());
    server_ = std::move(*server);
    thread_ = std::make_unique<JoinedThread>(
        [this] { server_->Run(&stop_, std::chrono::milliseconds(100), [] {}); });
  }
  ~FakeLlama() {
    stop_ = true;
    thread_.reset();
  }

  HttpAddress address() const { return {.host = "127.0.0.1", .port = server_->port()}; }
  std::string directory() const { return directory_ / ""; }
  size_t files() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(directory()),
                                             std::filesystem::directory_iterator()));
  }
  std::vector<SlotState> restored() {
    const std::lock_guard lock(mutex_);
    return restored_;
  }
  boost::json::object asked() {  // the body of the last completion
    const std::lock_guard lock(mutex_);
    return asked_;
  }

 private:
  static void Reply(HttpExchange& exchange, const boost::json::value& value,
                    unsigned status = 200) {
    exchange.Respond({.status = status, .body = DumpJson(value), .headers = {}});
  }
  static void Refuse(HttpExchange& exchange, unsigned status, const char* message) {
    Reply(exchange, {{"error", {{"message", message}}}}, status);
  }

  void Handle(const HttpRequest& request, HttpExchange& exchange) {
    const std::lock_guard lock(mutex_);
    const std::string first = request.path.empty() ? "" : request.path[0];
    if (options_.needs_key) return Refuse(exchange, 401, "Invalid API Key");
    if (first == "props") {
      return Reply(exchange,
                   {{"total_slots", options_.slots},
                    {"model_path", "other.gguf"},
                    {"default_generation_settings", {{"n_ctx", options_.context_tokens}}}});
    }
    if (request.path == std::vector<std::string>{"v1", "models"}) {
      return Reply(exchange, {{"data", {{{"meta", {{"n_vocab", model_.info().vocab_size}}}}}}});
    }
    if (first == "completion") return Complete(request, exchange);
    if (first == "slots" && request.path.size() == 1) return Slots(exchange);
    if (first == "slots" && request.path.size() == 2) return Slot(request, exchange);
    Reply(exchange, {{"path", "/" + first}, {"body", request.body}}, first == "teapot" ? 418 : 200);
  }

  // Requests are handled one by one, so that all slots are idle in between.
  void Slots(HttpExchange& exchange) {
    boost::json::array list;
    for (size_t slot = 0; slot < slots_.size(); ++slot)
      list.push_back(boost::json::object{{"id", slot}, {"is_processing", false}});
    Reply(exchange, list);
  }

  // What all slots but one keep in the shared cache.
  size_t KeptBeside(size_t slot) const {
    size_t kept = 0;
    for (size_t other = 0; other < slots_.size(); ++other)
      kept += other != slot && options_.layout.streams == 1 ? slots_[other].size() : 0;
    return kept;
  }

  void Slot(const HttpRequest& request, HttpExchange& exchange) {
    if (!options_.saves_slots)
      return Refuse(exchange, 501, "This server does not support slots action.");
    const size_t slot = std::stoul(request.path[1]);
    const std::string action = request.query.at("action");
    if (action == "erase") {
      slots_[slot].clear();
      return Reply(exchange, {{"n_erased", 0}});
    }
    const std::string name(boost::json::parse(request.body).at("filename").get_string());
    const std::string path = (options_.saves_here ? directory_ : elsewhere_) / name;
    if (action == "save") {
      const TokenKeyValues own = *ReadKeyValues(model_, slots_[slot]);
      const std::string bytes = ComposeSlotFile(
          options_.layout, static_cast<uint32_t>(slot),
          {.tokens = slots_[slot], .copy = [&](uint32_t layer, uint16_t* keys, uint16_t* values) {
             std::copy(own.keys[layer].begin(), own.keys[layer].end(), keys);
             std::copy(own.values[layer].begin(), own.values[layer].end(), values);
           }});
      std::ofstream(path, std::ios::binary) << bytes;
      return Reply(exchange, {{"n_saved", slots_[slot].size()}});
    }
    const Result<SlotState> state = ParseSlotFile(ReadWholeFile(path));
    if (!state.ok() || state->layout != options_.layout)
      return Refuse(exchange, 400, "Unable to restore slot");
    if (KeptBeside(slot) + state->tokens.size() > options_.context_tokens)
      return Refuse(exchange, 400, "Unable to restore slot, no available space in KV cache");
    slots_[slot] = state->tokens;
    restored_.push_back(*state);
    Reply(exchange, {{"n_restored", state->tokens.size()}});
  }

  // A stream of 12 MiB: more than sockets hold.
  static void Flood(const std::shared_ptr<HttpExchange>& exchange, int piece) {
    for (; piece < 192; ++piece) {
      const std::string data(65528, static_cast<char>('a' + piece % 26));
      if (!exchange->WriteBytes("data: " + data + "\n\n",
                                [exchange, piece] { Flood(exchange, piece); }))
        return;
    }
    exchange->EndStream();
  }

  void Complete(const HttpRequest& request, HttpExchange& exchange) {
    asked_ = boost::json::parse(request.body).get_object();
    std::vector<TokenId> prompt;
    for (const auto& token : asked_.at("prompt").get_array())
      prompt.push_back(static_cast<TokenId>(token.to_number<int64_t>()));
    const auto slot = asked_.at("id_slot").to_number<size_t>();
    for (size_t other = 0; other < slots_.size() && options_.clears_idle_slots; ++other) {
      if (other != slot) slots_[other].clear();
    }
    std::vector<TokenId>& held = slots_[slot];
    if (asked_.at("n_predict").to_number<int64_t>() > 0 && options_.steals > 0) {
      --options_.steals;
      held.clear();
    }
    const auto reused = static_cast<size_t>(
        std::mismatch(held.begin(), held.end(), prompt.begin(), prompt.end()).first - held.begin());
    held = prompt;
    const boost::json::object timings{{"cache_n", reused},
                                      {"prompt_n", prompt.size() - reused},
                                      {"prompt_ms", 2.5},
                                      {"predicted_ms", 5}};
    if (!asked_.contains("stream")) return Reply(exchange, {{"content", ""}, {"stop", true}});
    exchange.BeginStream();
    const auto event = [&](const boost::json::value& value) {
      exchange.Write("data: " + DumpJson(value) + "\n\n");
    };
    event({{"content", ""},
           {"stop", false},
           {"prompt_progress", {{"total", prompt.size()}, {"cache", reused}}}});
    for (const char c : options_.answer)
      event({{"content", std::string(1, c)}, {"stop", false}, {"timings", timings}});
    event({{"content", ""},
           {"stop", true},
           {"stop_type", "eos"},
           {"tokens_predicted", options_.answer.size()},
           {"timings", timings}});
    exchange.EndStream();
  }

  FakeLlamaOptions options_;
  const TempDir directory_, elsewhere_;
  std::mutex mutex_;
  ToyModel model_;
  std::vector<std::vector<TokenId>> slots_;  // what each one holds
  std::vector<SlotState> restored_;
  boost::json::object asked_;
  std::atomic<bool> stop_{false};
  std::unique_ptr<HttpServer> server_;
  std::unique_ptr<JoinedThread> thread_;
};

}  // namespace longhold
