#include "service/attach/llama_server.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include "base/file_descriptor.h"
#include "base/half.h"
#include "base/hash.h"
#include "memory/core/elapsed.h"
#include "service/common/json_text.h"
#include "service/common/text_input.h"

namespace longhold {
namespace {

namespace json = boost::json;
using Clock = std::chrono::steady_clock;

constexpr std::string_view kFilePrefix = "longhold-", kFileEnd = ".slot";
// Both programs read this, and then have the same keys and values, or not.
constexpr std::string_view kProbe =
    "Both programs read this sentence, so that they can compare the keys and values of 24 tokens.";
// Slots that share a cache get at least this much of it.
constexpr uint32_t kSharedContextMin = 2048;
constexpr size_t kEventBytesMax = 4 << 20;
// The largest slot file that is read: one of a probe.
constexpr uint64_t kProbeBytesMax = 256ull << 20;

// A number of an object, or of an object in it ("timings", "cache_n"); none if it is missing.
std::optional<double> NumberAt(const json::object& object, std::string_view name) {
  const json::value* value = FindField(object, name);
  if (value == nullptr || !value->is_number()) return std::nullopt;
  return value->to_number<double>();
}
std::optional<double> NumberAt(const json::object& object, std::string_view outer,
                               std::string_view name) {
  const json::value* value = FindField(object, outer);
  if (value == nullptr || !value->is_object()) return std::nullopt;
  return NumberAt(value->get_object(), name);
}

std::string TextAt(const json::object& object, std::string_view name) {
  const json::value* value = FindField(object, name);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : "";
}

bool FlagAt(const json::object& object, std::string_view name) {
  const json::value* value = FindField(object, name);
  return value != nullptr && value->is_bool() && value->get_bool();
}

// The message of an error reply: {"error": {"message": ...}}, or the body itself.
std::string MessageOf(const std::string& body) {
  boost::system::error_code failed;
  const json::value value = json::parse(body, failed);
  if (!failed && value.is_object()) {
    if (const json::value* error = FindField(value.get_object(), "error")) {
      if (error->is_object()) return TextAt(error->get_object(), "message");
      if (error->is_string()) return std::string(error->get_string());
    }
  }
  return body.substr(0, 200);
}

json::array TokenArray(std::span<const TokenId> tokens) {
  return json::array(tokens.begin(), tokens.end());
}

// Sums for a relative difference: |a - b|^2 and |b|^2.
struct Difference {
  double apart = 0, size = 0;
  void Add(std::span<const float> a, std::span<const uint16_t> b) {
    for (size_t i = 0; i < b.size(); ++i) {
      const double own = FromHalf(b[i]), d = a[i] - own;
      apart += d * d;
      size += own * own;
    }
  }
  double Relative() const { return size > 0 ? std::sqrt(apart / size) : 1; }
};

// Errors: not_found, failed_precondition (no permission), ReadDescriptor's.
Result<std::string> ReadProbe(const std::string& path) {
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0 && errno == ENOENT) return NotFound(path + ": is not there");
  if (file.get() < 0)
    return FailedPrecondition(path + ": cannot be read; run longhold as the user of the server");
  return ReadDescriptor(file.get(), path, kProbeBytesMax);
}

}  // namespace

// ------------------------------------------------------------------------------------------------
// slot files on the disk

SlotFile SlotFile::Name(const std::string& directory) {
  return {directory, std::string(kFilePrefix) + std::to_string(getpid()) + "-" + RandomHex(8) +
                         std::string(kFileEnd)};
}

Result<SlotFile> SlotFile::Write(const std::string& directory, std::string_view bytes) {
  SlotFile file = Name(directory);
  const FileDescriptor out(
      open(file.path().c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (out.get() < 0)
    return InvalidArgument("cannot write " + file.path() + ": " + std::strerror(errno));
  while (!bytes.empty()) {
    const ssize_t written = write(out.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0)
      return ResourceExhausted("cannot write " + file.path() + ": " + std::strerror(errno) +
                               "; free some space in the slot directory");
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return file;
}

SlotFile::SlotFile(SlotFile&& other) noexcept
    : directory_(std::move(other.directory_)), name_(std::exchange(other.name_, {})) {}

SlotFile::~SlotFile() {
  if (!name_.empty()) unlink(path().c_str());
}

uint32_t SlotFile::Sweep(const std::string& directory) {
  uint32_t removed = 0;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator(directory, failed)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kFilePrefix) || !name.ends_with(kFileEnd)) continue;
    pid_t owner = 0;
    std::from_chars(name.data() + kFilePrefix.size(), name.data() + name.size(), owner);
    if (owner <= 0 || kill(owner, 0) == 0 || errno != ESRCH) continue;
    removed += unlink(entry.path().c_str()) == 0 ? 1 : 0;
  }
  return removed;
}

// ------------------------------------------------------------------------------------------------
// the server

Result<json::object> LlamaServer::Call(const std::string& method, const std::string& target,
                                       const std::string& body,
                                       const std::function<bool()>& stop) const {
  const std::string where = client_.address().Url() + target;
  LH_ASSIGN_OR_RETURN(const ClientReply reply,
                      client_.Send({.method = method, .target = target, .body = body},
                                   {.on_head = {}, .on_body = {}, .stop = stop}));
  if (reply.status == 401 || reply.status == 403) {
    return FailedPrecondition(where +
                              ": asks for an API key; start the server without --api-key, on an "
                              "address that only this machine reaches");
  }
  if (reply.status == 501 && target.starts_with("/slots"))
    return FailedPrecondition(where + ": " + MessageOf(reply.body) +
                              "; start the server with --slot-save-path DIR");
  if (reply.status == 503)
    return Unavailable(where + ": " + MessageOf(reply.body) + "; try again in a while");
  if (reply.status != 200)
    return FailedPrecondition(where + ": " + std::to_string(reply.status) + ", " +
                              MessageOf(reply.body));
  boost::system::error_code failed;
  json::value value = json::parse(reply.body, failed);
  if (failed) return Unimplemented(where + ": its reply is not JSON; is it llama.cpp's server?");
  // Some replies are lists of one object.
  if (value.is_array() && !value.get_array().empty()) value = value.get_array()[0];
  if (!value.is_object())
    return Unimplemented(where + ": its reply has another form; is it llama.cpp's server?");
  return std::move(value.get_object());
}

Result<std::unique_ptr<LlamaServer>> LlamaServer::Connect(const HttpAddress& address,
                                                          const std::string& slot_directory,
                                                          LanguageModel& model,
                                                          HttpClientOptions options) {
  LH_RETURN_IF_ERROR(CheckRecalledPrompts(model.info()));
  std::error_code failed;
  if (!std::filesystem::is_directory(slot_directory, failed)) {
    return InvalidArgument("--slot-dir " + slot_directory +
                           ": is not a directory; give the one of the server's --slot-save-path");
  }
  SlotFile::Sweep(slot_directory);
  std::unique_ptr<LlamaServer> server(new LlamaServer(address, slot_directory, options));
  LH_RETURN_IF_ERROR(server->ReadProperties(model.info()));
  LH_RETURN_IF_ERROR(server->Probe(model));
  return server;
}

Status LlamaServer::ReadProperties(const ModelInfo& model) {
  const std::string url = client_.address().Url();
  Result<json::object> properties = Call("GET", "/props", "");
  if (properties.status().code() == StatusCode::kUnavailable) {
    return Unavailable(properties.status().message() +
                       "; start it: llama-server -m MODEL.gguf --slot-save-path DIR");
  }
  if (!properties.ok()) return properties.status();
  slots_ = static_cast<uint32_t>(
      std::clamp(NumberAt(*properties, "total_slots").value_or(1), 1.0, double{kServerSlotsMax}));
  const std::optional<double> context =
      NumberAt(*properties, "default_generation_settings", "n_ctx");
  if (!context.has_value() || *context < 1)
    return Unimplemented(url +
                         "/props: names no context length (n_ctx); is it llama.cpp's server?");
  context_tokens_ = static_cast<uint32_t>(std::min(*context, 1e9));

  LH_ASSIGN_OR_RETURN(const json::object models, Call("GET", "/v1/models", ""));
  const json::value* data = FindField(models, "data");
  if (data == nullptr || !data->is_array() || data->get_array().empty() ||
      !data->get_array()[0].is_object())
    return OkStatus();  // the probe says whether it is the same model
  const std::optional<double> vocabulary =
      NumberAt(data->get_array()[0].get_object(), "meta", "n_vocab");
  if (!vocabulary.has_value() || *vocabulary == model.vocab_size) return OkStatus();
  return FailedPrecondition(
      url + " serves " + TextAt(*properties, "model_path") + ", whose vocabulary has " +
      std::to_string(static_cast<uint64_t>(*vocabulary)) + " tokens; that of " + model.name +
      " has " + std::to_string(model.vocab_size) +
      ". Start the server with the GGUF that the memory was read with: " + model.path);
}

Status LlamaServer::Probe(LanguageModel& model) {
  LH_ASSIGN_OR_RETURN(std::vector<TokenId> tokens, model.Tokenize(kProbe, false));
  if (model.Bos() >= 0) tokens.insert(tokens.begin(), model.Bos());
  LH_RETURN_IF_ERROR(Call("POST", "/completion",
                          DumpJson(json::object{{"prompt", TokenArray(tokens)},
                                                {"n_predict", 0},
                                                {"id_slot", 0},
                                                {"cache_prompt", false}}))
                         .status());
  const SlotFile file = SlotFile::Name(slot_directory_);
  LH_RETURN_IF_ERROR(
      Call("POST", "/slots/0?action=save", DumpJson(json::object{{"filename", file.name()}}))
          .status());
  const Result<std::string> bytes = ReadProbe(file.path());
  if (bytes.status().code() == StatusCode::kNotFound) {
    return FailedPrecondition("the server saved " + file.name() + ", and it is not in " +
                              slot_directory_ +
                              "; give --slot-dir the directory of the server's --slot-save-path");
  }
  if (!bytes.ok()) return bytes.status();
  Result<SlotState> saved = ParseSlotFile(*bytes);
  if (!saved.ok())
    return {saved.status().code(), client_.address().Url() + ": " + saved.status().message()};
  layout_ = saved->layout;
  shares_cache_ = slots_ > 1 && layout_.streams == 1;
  if (shares_cache_) {
    slots_ = std::min(slots_, std::max(1u, context_tokens_ / kSharedContextMin));
    context_tokens_ /= slots_;
    EraseIdleSlots({});  // the saved file has the probe's slot
  }
  if (saved->tokens.size() < tokens.size() || saved->positions.size() < tokens.size() ||
      !std::equal(tokens.begin(), tokens.end(), saved->tokens.begin())) {
    return FailedPrecondition(client_.address().Url() +
                              ": slot 0 did not keep the tokens that it had read; somebody else "
                              "used it meanwhile. Try again");
  }
  saved->tokens.resize(tokens.size());
  return Compare(model, *saved);
}

Status LlamaServer::Compare(LanguageModel& model, const SlotState& saved) {
  const ModelInfo& info = model.info();
  const std::string other =
      ". Start the server with the GGUF that the memory was read with: " + info.path;
  if (layout_.layers != info.layer_count || layout_.kv_width != info.geometry.kv_width()) {
    return FailedPrecondition(
        client_.address().Url() + " has another model: " + std::to_string(layout_.layers) +
        " layers with " + std::to_string(layout_.kv_width) + " elements a key, and " + info.name +
        " has " + std::to_string(info.layer_count) + " with " +
        std::to_string(info.geometry.kv_width()) + other);
  }
  LH_ASSIGN_OR_RETURN(const TokenKeyValues own, ReadKeyValues(model, saved.tokens));
  Difference keys, values;
  for (size_t layer = 0; layer < layout_.layers; ++layer) {
    keys.Add(saved.keys[layer], own.keys[layer]);
    values.Add(saved.values[layer], own.values[layer]);
  }
  difference_ = std::max(keys.Relative(), values.Relative());
  if (difference_ <= kDifferenceMax) return OkStatus();
  return FailedPrecondition(
      client_.address().Url() + " has other keys and values for the same text than " + info.name +
      " (they differ by " + std::to_string(std::lround(difference_ * 100)) +
      "%), so it has other weights, another RoPE setting or an adapter" + other);
}

void LlamaServer::EraseIdleSlots(const std::function<bool()>& stop) const {
  const Result<ClientReply> reply =
      client_.Send({.target = "/slots"}, {.on_head = {}, .on_body = {}, .stop = stop});
  if (!reply.ok() || reply->status != 200) return;  // it was started with --no-slots
  boost::system::error_code failed;
  const json::value list = json::parse(reply->body, failed);
  if (failed || !list.is_array()) return;
  for (const json::value& value : list.get_array()) {
    if (!value.is_object()) continue;
    const std::optional<double> id = NumberAt(value.get_object(), "id");
    if (!id.has_value() || FlagAt(value.get_object(), "is_processing")) continue;
    // What cannot be removed leaves no room, and that is said when the slot is restored.
    (void)Call("POST", "/slots/" + std::to_string(static_cast<int64_t>(*id)) + "?action=erase",
               "{}", stop)
        .ok();
  }
}

Status LlamaServer::Restore(const ServerPrompt& prompt, const SlotPrefix& prefix,
                            const std::function<bool()>& stop, double* ms) const {
  const Clock::time_point start = Clock::now();
  LH_ASSIGN_OR_RETURN(
      const SlotFile file,
      SlotFile::Write(slot_directory_, ComposeSlotFile(layout_, prompt.slot, prefix)));
  const std::string slot = std::to_string(prompt.slot);
  const auto restore = [&] {
    return Call("POST", "/slots/" + slot + "?action=restore",
                DumpJson(json::object{{"filename", file.name()}}), stop);
  };
  Result<json::object> reply = restore();
  // Longhold's slots together fit the cache, but other clients may have filled it.
  if (shares_cache_ && reply.status().code() == StatusCode::kFailedPrecondition) {
    EraseIdleSlots(stop);
    reply = restore();
  }
  *ms = Milliseconds(start, Clock::now());
  if (!reply.ok()) {
    if (reply.status().code() != StatusCode::kFailedPrecondition) return reply.status();
    return FailedPrecondition(reply.status().message() + "; the server must be able to read " +
                              slot_directory_ + ", and its cache must have room for " +
                              std::to_string(prompt.prefix_tokens) + " tokens");
  }
  const double restored = NumberAt(*reply, "n_restored").value_or(0);
  if (restored == prompt.prefix_tokens) return OkStatus();
  return FailedPrecondition(client_.address().Url() + ": slot " + slot + " took " +
                            std::to_string(static_cast<int64_t>(restored)) + " of " +
                            std::to_string(prompt.prefix_tokens) + " tokens");
}

namespace {

// One reply of /completion, event by event.
class CompletionEvents {
 public:
  CompletionEvents(const ServerPrompt& prompt, const std::function<void(std::string_view)>& on_text,
                   Clock::time_point start)
      : prompt_(prompt), on_text_(on_text), start_(start) {}

  void Take(std::string_view data) {
    if (!status_.ok() || ended_) return;
    boost::system::error_code failed;
    const json::value value = json::parse(data, failed);
    if (failed || !value.is_object()) {
      status_ = Unavailable("an event of its reply is not a JSON object");
      return;
    }
    const json::object& event = value.get_object();
    if (FindField(event, "error") != nullptr) {
      status_ = FailedPrecondition(MessageOf(std::string(data)));
      return;
    }
    ReadReused(event);
    held_ += TextAt(event, "content");
    if (FlagAt(event, "stop")) ReadEnd(event);
    if (status_.ok() && reused_.has_value()) Pass();
  }
  const Status& status() const { return status_; }
  bool started() const { return reused_.has_value(); }  // the server works on the slot
  bool ended() const { return ended_; }
  ServerAnswer& answer() { return answer_; }

 private:
  void ReadReused(const json::object& event) {
    if (reused_.has_value()) return;
    reused_ = NumberAt(event, "prompt_progress", "cache");
    if (!reused_.has_value()) reused_ = NumberAt(event, "timings", "cache_n");
    if (!reused_.has_value() && FlagAt(event, "stop")) {
      // older servers say only how many they read
      const auto all = NumberAt(event, "tokens_evaluated"),
                 read = NumberAt(event, "timings", "prompt_n");
      reused_ = all.has_value() && read.has_value() ? *all - *read : 0;
    }
    if (!reused_.has_value()) return;
    answer_.reused_tokens = static_cast<uint32_t>(std::max(0.0, *reused_));
    if (answer_.reused_tokens >= prompt_.prefix_tokens) return;
    status_ = FailedPrecondition(
        "slot " + std::to_string(prompt_.slot) + " reused " +
        std::to_string(answer_.reused_tokens) + " of the " + std::to_string(prompt_.prefix_tokens) +
        " recalled tokens and read the others itself, so the answer would not rest on the memory; "
        "does another client use this slot? Give longhold a server of its own");
  }
  void ReadEnd(const json::object& event) {
    ended_ = true;
    const std::string type = TextAt(event, "stop_type");
    answer_.cut = type == "limit";
    answer_.stopped = type == "word";
    answer_.tokens =
        static_cast<uint32_t>(std::max(0.0, NumberAt(event, "tokens_predicted").value_or(0)));
    answer_.prompt_ms = NumberAt(event, "timings", "prompt_ms").value_or(0);
    answer_.decode_ms = NumberAt(event, "timings", "predicted_ms").value_or(0);
  }
  void Pass() {
    if (held_.empty()) return;
    if (answer_.text.empty()) answer_.first_token_ms = Milliseconds(start_, Clock::now());
    answer_.text += held_;
    if (on_text_) on_text_(held_);
    held_.clear();
  }

  const ServerPrompt& prompt_;
  const std::function<void(std::string_view)>& on_text_;
  const Clock::time_point start_;
  Status status_;
  ServerAnswer answer_;
  std::optional<double> reused_;
  std::string held_;  // until it is known what was reused
  bool ended_ = false;
};

}  // namespace

Result<ServerAnswer> LlamaServer::Answer(const ServerPrompt& prompt, const SlotPrefix& prefix,
                                         const std::function<void(std::string_view)>& on_text,
                                         const std::function<bool()>& stop) const {
  const Clock::time_point start = Clock::now();
  double restore_ms = 0;
  std::unique_lock<std::mutex> starting(start_mutex_, std::defer_lock);
  if (shares_cache_) starting.lock();
  LH_RETURN_IF_ERROR(Restore(prompt, prefix, stop, &restore_ms));
  LH_ASSIGN_OR_RETURN(json::object body,
                      ParseJsonObject(prompt.sampling.empty() ? "{}" : prompt.sampling));
  body["prompt"] = TokenArray(prompt.tokens);
  body["n_predict"] = prompt.answer_tokens_max;
  body["id_slot"] = prompt.slot;
  body["cache_prompt"] = true;
  body["stream"] = true;
  body["return_progress"] = true;
  body["timings_per_token"] = true;
  CompletionEvents completion(prompt, on_text, start);
  EventReader events([&](std::string_view data) {
    completion.Take(data);
    if (completion.started() && starting.owns_lock()) starting.unlock();
  });
  const Result<ClientReply> reply =
      client_.Send({.method = "POST", .target = "/completion", .body = DumpJson(body)},
                   {.on_head = [](unsigned status, const std::string&) { return status == 200; },
                    .on_body = [&](std::string_view piece) { events.Feed(piece); },
                    .stop = [&] { return !completion.status().ok() || (stop && stop()); }});
  const std::string url = client_.address().Url();
  if (!completion.status().ok())
    return Status(completion.status().code(), url + ": " + completion.status().message());
  if (!reply.ok()) return reply.status();
  if (reply->status != 200)
    return FailedPrecondition(url + "/completion: " + std::to_string(reply->status) + ", " +
                              MessageOf(reply->body));
  if (!completion.ended())
    return Unavailable(url + ": ended its reply in the middle of an answer; look at its log");
  completion.answer().restore_ms = restore_ms;
  return std::move(completion.answer());
}

void EventReader::Feed(std::string_view piece) {
  held_ += piece;
  size_t begin = 0;
  for (size_t end; (end = held_.find('\n', begin)) != std::string::npos; begin = end + 1) {
    std::string_view line(held_.data() + begin, end - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    constexpr std::string_view kData = "data:";
    if (!line.starts_with(kData)) continue;  // a comment, or the end of an event
    line.remove_prefix(kData.size());
    if (line.starts_with(' ')) line.remove_prefix(1);
    if (line != "[DONE]") on_data_(line);
  }
  held_.erase(0, begin);
  if (held_.size() > kEventBytesMax) held_ = "data: too long";  // which is then no JSON
}

}  // namespace longhold
