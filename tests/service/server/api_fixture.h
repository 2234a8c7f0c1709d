// The API over the toy model, as its tests ask it: without a server, with whole requests and
// replies.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <boost/json.hpp>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "service/server/api.h"
#include "tests/store/temp_dir.h"
#include "tests/support/engines.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"

namespace longhold::api_fixture {

namespace json = boost::json;

// Keeps what it is told, and lets a test wait for the end of it.
class Recorder final : public HttpExchange {
 public:
  void Respond(HttpReply reply) override {
    const std::lock_guard lock(mutex_);
    reply_ = std::move(reply);
    ended_ = true;
    changed_.notify_all();
  }
  void BeginStream() override {}
  void Write(std::string piece) override {
    const std::lock_guard lock(mutex_);
    stream_ += piece;
  }
  void EndStream() override {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  void BeginBytes(const std::string& content_type) override {
    const std::lock_guard lock(mutex_);
    reply_ = {.status = 200, .content_type = content_type, .headers = {}};
  }
  // As a client that takes `taken_max` bytes, and the rest when Take is called.
  bool WriteBytes(std::string piece, std::function<void()> ready) override {
    const std::lock_guard lock(mutex_);
    if (!gone_ && stream_.size() >= taken_max_) {
      ready_ = std::move(ready);
      changed_.notify_all();
      return false;
    }
    stream_ += piece;
    return true;
  }
  void Break() override {
    const std::lock_guard lock(mutex_);
    reply_.status = 0;
    ended_ = true;
    changed_.notify_all();
  }
  const std::atomic<bool>& gone() const override { return gone_; }

  HttpReply Reply() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ended_; });
    return reply_;
  }
  std::string Stream() {
    Reply();
    return stream_;
  }
  // Of a slow client: before the request, and once it is waited for.
  void TakeAtMost(size_t bytes) { taken_max_ = bytes; }
  void WaitUntilSlow() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ready_ != nullptr; });
  }
  void TakeAll() {
    std::function<void()> ready;
    {
      const std::lock_guard lock(mutex_);
      taken_max_ = SIZE_MAX;
      ready = std::exchange(ready_, nullptr);
    }
    if (ready) ready();
  }
  std::atomic<bool> gone_{false};

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  HttpReply reply_{.status = 0, .headers = {}};
  std::string stream_;
  std::function<void()> ready_;
  size_t taken_max_ = SIZE_MAX;
  bool ended_ = false;
};

// The Api with whole requests instead of a server's: each is admitted and then handled with the
// body that it has.
class Api final : public longhold::Api {
 public:
  using longhold::Api::Api;
  void Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
    HttpAdmission admission = Admit(request);
    if (admission.refusal.has_value()) return exchange->Respond(std::move(*admission.refusal));
    if (request.body.size() > admission.body_bytes_max)
      return exchange->Respond({.status = 413, .body = "{}", .headers = {}});
    admission.handle(std::move(request), std::move(exchange));
  }
};

class ApiTest : public testing::Test {
 protected:
  ApiTest()
      : model_(
            {.geometry = TinyGeometry(), .chat = true, .answer = "  It is seven.\nEND of it.  "}),
        engine_(home_ / "h") {
    RecallProfile profile;
    profile.name = "toy";
    profile.rerank_spans = 0;
    EXPECT_TRUE(engine_.UseModel(&model_, &profile).ok());
    EXPECT_TRUE(engine_
                    .Ingest("tales",
                            {"a/b.txt", "The number of the elder is seven.\n" + PlainText(3000, 1)},
                            nullptr, nullptr)
                    .ok());
    queue_ = std::make_unique<EngineQueue>(&engine_, EngineQueueOptions{});
    api_ = std::make_unique<Api>(queue_.get(), &jobs_, &readers_, &metrics_,
                                 ApiOptions{.model = "toy",
                                            .fingerprint = model_.info().fingerprint,
                                            .home = home_ / "h",
                                            .stores = &engine_.stores(),
                                            .budget = &engine_.budget(),
                                            .without_keys = Scope::kAdmin,
                                            .note = [](std::string_view) {},
                                            .log =
                                                [this](std::string_view line) {
                                                  const std::lock_guard lock(log_mutex_);
                                                  log_.emplace_back(line);
                                                }});
  }
  // What the model says from now on; nothing may be under way.
  void Answer(const std::string& answer) {
    model_ = ToyModel({.geometry = TinyGeometry(), .chat = true, .answer = answer});
  }
  // What was logged since the last call.
  std::vector<std::string> Log() {
    const std::lock_guard lock(log_mutex_);
    return std::exchange(log_, {});
  }
  std::shared_ptr<Recorder> Start(const std::string& method, std::vector<std::string> path,
                                  const std::string& body = "",
                                  const std::string& type = "application/json",
                                  std::map<std::string, std::string> query = {}) {
    auto recorder = std::make_shared<Recorder>();
    api_->Handle({.method = method,
                  .path = std::move(path),
                  .query = std::move(query),
                  .content_type = type,
                  .authorization = "",
                  .body = body},
                 recorder);
    return recorder;
  }
  // The reply's body, whose status must be `status`.
  json::value Call(unsigned status, const std::string& method, std::vector<std::string> path,
                   const std::string& body = "", const std::string& type = "application/json",
                   std::map<std::string, std::string> query = {}) {
    const HttpReply reply = Start(method, std::move(path), body, type, std::move(query))->Reply();
    EXPECT_EQ(reply.status, status) << reply.body;
    return json::parse(reply.body);
  }
  // The reply to a request of the upload protocol. `offset`, `length`: the headers; empty: none.
  HttpReply SendPart(const std::string& method, std::vector<std::string> path,
                     const std::string& offset, const std::string& length,
                     const std::string& body) {
    auto recorder = std::make_shared<Recorder>();
    api_->Handle({.method = method,
                  .path = std::move(path),
                  .query = {},
                  .content_type = "application/offset+octet-stream",
                  .authorization = "",
                  .upload_offset = offset,
                  .upload_length = length,
                  .body = body},
                 recorder);
    return recorder->Reply();
  }
  json::value WaitForIngest(const std::string& id) {
    for (;;) {
      json::value job = Call(200, "GET", {"v1", "ingests", id});
      if (job.at("state") != "queued" && job.at("state") != "running") return job;
    }
  }

  std::mutex log_mutex_;
  std::vector<std::string> log_;
  TempDir home_;
  ToyModel model_;
  EngineInHome engine_;
  Metrics metrics_;
  std::unique_ptr<EngineQueue> queue_;
  std::unique_ptr<Api> api_;
  JobPool jobs_, readers_;
};

// A client of one tenant: what it sends goes out under its key.
class TenantTest : public ApiTest {
 protected:
  std::string KeyOf(const std::string& tenant, Scope scope) {
    return *ApiKeys(home_ / "h")
                .Add(tenant + "-" + std::string(ScopeName(scope)) + std::to_string(keys_++), scope,
                     UnixSeconds(), 0, tenant);
  }
  HttpReply As(const std::string& key, const std::string& method, std::vector<std::string> path,
               const std::string& body = "", const std::string& type = "application/json",
               std::map<std::string, std::string> query = {}) {
    auto recorder = std::make_shared<Recorder>();
    api_->Handle({.method = method,
                  .path = std::move(path),
                  .query = std::move(query),
                  .content_type = type,
                  .authorization = "Bearer " + key,
                  .body = body},
                 recorder);
    return recorder->Reply();
  }
  void Read(const std::string& key, const std::string& memory, const std::string& name,
            const std::string& text) {
    const HttpReply reply = As(key, "POST", {"v1", "memories", memory, "documents"}, text,
                               "text/plain", {{"name", name}});
    ASSERT_EQ(reply.status, 202u) << reply.body;
    const std::string id(json::parse(reply.body).at("id").as_string());
    for (;;) {
      const json::value job = json::parse(As(key, "GET", {"v1", "ingests", id}).body);
      if (job.at("state") == "queued" || job.at("state") == "running") continue;
      ASSERT_EQ(job.at("state"), "done") << json::serialize(job);
      return;
    }
  }
  int keys_ = 0;
};

inline constexpr char kChat[] =
    R"({"model":"toy@tales","messages":[{"role":"user","content":"What is the number of the elder?"}],"abstain":false})";

// The value of a header of `reply`; "none" without it.
inline std::string HeaderOf(const HttpReply& reply, const std::string& name) {
  for (const auto& [key, value] : reply.headers) {
    if (key == name) return value;
  }
  return "none";
}

inline std::string With(std::string body, const std::string& member) {
  return body.replace(body.size() - 1, 1, "," + member + "}");
}

// A request's path for the route, with `name` for each of its names.
inline std::vector<std::string> PathOf(const ApiRoute& route, const std::string& name) {
  std::vector<std::string> path;
  for (std::string_view rest = route.path; !rest.empty();) {
    rest.remove_prefix(1);
    const std::string_view segment = rest.substr(0, rest.find('/'));
    path.emplace_back(segment.starts_with('{') ? name : std::string(segment));
    rest.remove_prefix(segment.size());
  }
  return path;
}

}  // namespace longhold::api_fixture
