// JSON, TOML and other text formats from hostile sources. The first byte selects the kind of input:
//   0  any JSON object, read by every kind of field with the widest bounds, and written again
//   1  a chat completion
//   2  a completion
//   3  a request to an API route: one byte for the route, then its body. The queue and the jobs
//   have stopped, so the body is parsed and nothing runs.
//   4  a recall profile
//   5  a file of API keys
//   6  an accepted text (service/server/inbox.h) with its hash made valid
//   7  a config file
//   8  a text, through the functions that make it valid and printable, and as a percent-encoded
//   text
#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>

#include "base/hash.h"
#include "base/utf8.h"
#include "memory/model/recall_profile.h"
#include "service/common/config.h"
#include "service/common/json_text.h"
#include "service/common/text_input.h"
#include "service/server/api.h"
#include "service/server/api_keys.h"
#include "service/server/ask_fields.h"
#include "service/server/http_text.h"
#include "service/server/inbox.h"
#include "service/server/openai.h"
#include "store/memory_name.h"
#include "tests/fuzz/fuzz_bytes.h"
#include "tests/fuzz/toy_memory.h"
#include "tests/store/temp_dir.h"
#include "tests/support/engines.h"

namespace longhold {
namespace {

namespace json = boost::json;

void ReadFields(const json::object& object) {
  for (const auto& member : object) {
    const std::string name(member.key());
    const Result<int64_t> whole = IntegerField(object, name, INT64_MIN, INT64_MAX, 0);
    ExpectRefusal(whole);
    const Result<int64_t> positive = IntegerField(object, name, 0, INT64_MAX, 0);
    LH_CHECK(!positive.ok() || *positive >= 0);
    (void)IntegerField(object, name, INT32_MIN, UINT32_MAX, 1);
    const Result<double> number = NumberField(object, name, -1e308, 1e308, 0);
    LH_CHECK(!number.ok() || std::isfinite(*number));
    ExpectRefusal(StringField(object, name));
    ExpectRefusal(FlagField(object, name, false));
    (void)TimeoutField(object);
    (void)AttendFields(object);
  }
}

void UseObject(std::string_view text) {
  const Result<json::object> object = ParseJsonObject(text);
  ExpectRefusal(object);
  if (!object.ok()) return;
  ReadFields(*object);
  const std::string dumped = DumpJson(*object);
  LH_CHECK(dumped.find('\n') == std::string::npos);
  LH_CHECK(ParseJsonObject(dumped).ok());
}

void UseCompletion(std::string_view text, bool chat) {
  const Result<CompletionRequest> request = ParseCompletion(text, chat);
  ExpectRefusal(request);
  if (!request.ok()) return;
  LH_CHECK(request->stop.size() <= 4 && request->max_tokens >= 1 &&
           request->sampler.temperature >= 0);
  // An answer that repeats the question, in pieces of every length up to seven.
  StopStrings stop(request->stop);
  std::string shown;
  for (size_t at = 0, length = 1; at < request->question.size();
       at += length, length = length % 7 + 1)
    shown += stop.Feed(std::string_view(request->question).substr(at, length));
  shown += stop.Finish();
  LH_CHECK(request->question.starts_with(shown));
  for (const std::string& s : request->stop) LH_CHECK(shown.find(s) == std::string::npos);
  AskReply reply{.answer = shown};
  reply.citations.push_back({.index = 1, .span = {.document = request->session, .text = shown}});
  const CompletionHead head{
      .id = "x", .model = request->model, .chat = chat, .characters = request->characters};
  LH_CHECK(ParseJsonObject(CompletionJson(head, shown, stop.stopped(), reply)).ok());
  (void)StreamPiece(head, shown);
}

class Ignored final : public HttpExchange {
 public:
  void Respond(HttpReply reply) override { LH_CHECK(reply.status >= 200 && reply.status != 500); }
  void BeginStream() override {}
  void Write(std::string) override {}
  void EndStream() override {}
  void BeginBytes(const std::string&) override {}
  bool WriteBytes(std::string, std::function<void()>) override { return true; }
  void Break() override {}
  const std::atomic<bool>& gone() const override { return gone_; }

 private:
  std::atomic<bool> gone_{false};
};

// Made once, in its own home. Requests leave nothing behind.
class StoppedServer {
 public:
  StoppedServer() {
    LH_CHECK(engine_.UseModel(&model_, nullptr).ok());
    queue_.Stop();
    jobs_.Stop();
  }
  void Ask(const std::string& method, std::vector<std::string> path, std::string body,
           const std::string& type) {
    HttpRequest request{.method = method,
                        .path = std::move(path),
                        .query = {{"name", "a text"}},
                        .content_type = type,
                        .authorization = "",
                        .upload_offset = "",
                        .upload_length = "",
                        .body = {}};
    const HttpAdmission admission = api_.Admit(request);
    LH_CHECK(!admission.refusal.has_value());
    if (body.size() > admission.body_bytes_max) return admission.refused(413);
    request.body = std::move(body);
    admission.handle(std::move(request), std::make_shared<Ignored>());
  }

 private:
  TempDir home_;
  ToyModel model_{FuzzToy()};
  EngineInHome engine_{home_ / "h"};
  Metrics metrics_;
  EngineQueue queue_{&engine_, EngineQueueOptions{}};
  JobPool jobs_, readers_;
  Api api_{&queue_,
           &jobs_,
           &readers_,
           &metrics_,
           {.model = "toy",
            .fingerprint = "0123456789abcdef",
            .memory = "tales",
            .home = home_ / "h",
            .stores = &engine_.stores(),
            .without_keys = Scope::kAdmin,
            .note = [](std::string_view) {}}};
};

void UseRequest(FuzzBytes input) {
  static StoppedServer server;
  const auto which = input.Take<uint8_t>();
  const std::string type = which & 0x80 ? "text/plain" : "application/json";
  static const std::vector<std::vector<std::string>> kPaths = {
      {"v1", "chat", "completions"},
      {"v1", "completions"},
      {"v1", "embeddings"},
      {"v1", "memories"},
      {"v1", "memories", "tales", "documents"},
      {"v1", "memories", "tales", "recall"},
      {"v1", "memories", "tales", "ask"},
      {"v1", "memories", "tales", "import"},
      {"v1", "uploads"}};
  const std::vector<std::string>& path = kPaths[(which & 0x7f) % kPaths.size()];
  server.Ask("POST", path, std::string(input.rest()), type);
}

void UseProfile(std::string_view text) {
  const Result<RecallProfile> profile = RecallProfile::Parse(text, "fuzz.json");
  ExpectRefusal(profile);
  // A profile without the model's shape belongs to no model and cannot be written.
  if (!profile.ok() || profile->layer_count == 0 || profile->q_heads == 0 ||
      profile->kv_heads == 0 || profile->head_dim == 0 || profile->vocab_size == 0)
    return;
  const Result<RecallProfile> again = RecallProfile::Parse(profile->ToJson(), "again.json");
  LH_CHECK(again.ok());
  LH_CHECK(again->ToJson() == profile->ToJson());
}

// All files of one process are in one directory; each is rewritten for every input.
std::string Written(const std::string& name, std::string_view bytes) {
  static TempDir directory;
  const std::filesystem::path path = directory / name;
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  return path;
}

void UseKeys(std::string_view text) {
  const std::string path = Written("keys/keys.json", text);
  ApiKeys keys(std::filesystem::path(path).parent_path());
  ExpectRefusal(keys.List());
  ExpectRefusal(keys.Limits());
  ExpectRefusal(keys.CallerOf("Bearer lh_0123", 1'700'000'000, Scope::kAdmin));
}

void UseAccepted(std::string_view bytes) {
  std::string all(bytes);
  // The hash covers the head and the text.
  const size_t line = all.find('\n');
  if (line != std::string::npos) {
    Result<json::object> head = ParseJsonObject(std::string_view(all).substr(0, line));
    if (head.ok()) {
      const auto member = [&](const char* name) {
        return StringField(*head, name).ok() ? *StringField(*head, name) : std::string();
      };
      const std::string hashed =
          member("memory") + '\0' + member("name") + '\0' + all.substr(line + 1);
      char digits[20];
      std::snprintf(digits, sizeof digits, "%016llx",
                    static_cast<unsigned long long>(Hash64(hashed)));
      (*head)["hash"] = digits;
      all = json::serialize(*head) + all.substr(line);
    }
  }
  const std::string path = Written("home/inbox/00000000000000000007.text", all);
  std::vector<std::string> notes;
  for (const Inbox::Text& text :
       Inbox(std::filesystem::path(path).parent_path().parent_path()).Load(&notes)) {
    LH_CHECK(CheckText(text.input.name, text.input.text).ok() && CheckMemoryName(text.memory).ok());
  }
}

void UseConfig(std::string_view text) {
  ConfigFlags flags;
  flags.config_file = Written("config.toml", text);
  const Result<Config> config = LoadConfig(
      flags, [](const std::string&) { return std::optional<std::string>(); }, "/home/nobody", 4);
  ExpectRefusal(config);
  if (!config.ok()) return;
  LH_CHECK(config->threads.value >= 1 && config->threads.value <= 256);
  LH_CHECK(config->memory_budget_bytes.value >= (64u << 20) &&
           config->memory_budget_bytes.value <= (uint64_t{1} << 40));
}

void UseSequence(std::string_view text) {
  LH_CHECK(!FirstInvalidUtf8(MakeValidUtf8(text)).has_value());
  LH_CHECK(!FirstInvalidUtf8(CollapseSpace(text)).has_value());
  LH_CHECK(!FirstInvalidUtf8(MakePrintable(text)).has_value());
  (void)CountColumns(MakeValidUtf8(text));
  (void)CheckText("a text", text);
  (void)DocumentName(text);
  std::string decoded;
  for (const bool plus : {false, true}) {
    if (PercentDecode(text, plus, &decoded)) LH_CHECK(decoded.find('\0') == std::string::npos);
  }
  (void)ParseTarget(text);
  (void)ParseAuthority(text);
  (void)IsOwnOrigin(text, "localhost:8420", false);
  (void)ParseBytes(text);
  (void)ParseThreads(text);
  (void)ParseListen(text);
}

void Run(FuzzBytes input) {
  const auto kind = input.Take<uint8_t>();
  switch (kind % 9) {
    case 0: return UseObject(input.rest());
    case 1: return UseCompletion(input.rest(), true);
    case 2: return UseCompletion(input.rest(), false);
    case 3: return UseRequest(input);
    case 4: return UseProfile(input.rest());
    case 5: return UseKeys(input.rest());
    case 6: return UseAccepted(input.rest());
    case 7: return UseConfig(input.rest());
    default: return UseSequence(input.rest());
  }
}

}  // namespace
}  // namespace longhold

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  longhold::Run({data, size});
  return 0;
}
