// The API over the toy model: who is let in by key and scope, and what the request log and the
// audit log say of each request.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "service/server/api.h"
#include "service/server/api_keys.h"
#include "service/server/audit_log.h"
#include "tests/service/server/api_fixture.h"

namespace longhold {
namespace {

namespace json = boost::json;
using api_fixture::Api;
using api_fixture::ApiTest;
using api_fixture::kChat;
using api_fixture::PathOf;
using api_fixture::Recorder;
using api_fixture::With;
using testing::HasSubstr;
using testing::Not;

TEST_F(ApiTest, LogsWhoAskedWhichRouteAndNotWhat) {
  ApiKeys keys(home_ / "h");
  const std::string key = *keys.Add("anna", Scope::kRead, UnixSeconds(), 0);
  Log();
  const auto ask = [&](const std::string& authorization, const std::string& trace) {
    auto recorder = std::make_shared<Recorder>();
    api_->Handle({.method = "POST",
                  .path = {"v1", "memories", "tales", "ask"},
                  .query = {},
                  .id = "req-1",
                  .traceparent = trace,
                  .peer = "127.0.0.1",
                  .content_type = "application/json",
                  .authorization = authorization,
                  .body = R"({"question": "What is the number of the elder?", "abstain": false})"},
                 recorder);
    return recorder->Reply().status;
  };
  EXPECT_EQ(ask("Bearer " + key, "00-11111111111111111111111111111111-2222222222222222-01"), 200u);
  EXPECT_EQ(ask("Bearer lh-wrong", ""), 401u);
  const std::vector<std::string> lines = Log();
  ASSERT_EQ(lines.size(), 2u);
  const json::value first = json::parse(lines[0]), second = json::parse(lines[1]);
  EXPECT_EQ(first.at("id"), "req-1");
  EXPECT_EQ(first.at("peer"), "127.0.0.1");
  EXPECT_EQ(first.at("key"), "anna");
  EXPECT_EQ(first.at("route"), "/v1/memories/{memory}/ask");
  EXPECT_EQ(first.at("status"), 200);
  EXPECT_EQ(first.at("traceparent"), "00-11111111111111111111111111111111-2222222222222222-01");
  EXPECT_GT(first.at("seconds").to_number<double>(), 0);
  EXPECT_TRUE(second.at("key").is_null());
  EXPECT_EQ(second.at("status"), 401);
  EXPECT_FALSE(second.as_object().contains("traceparent"));
  for (const std::string& line : lines) {
    EXPECT_EQ(line.find('\n'), std::string::npos);
    for (const std::string& secret : {std::string("elder"), std::string("tales"),
                                      std::string("seven"), key, std::string("lh-wrong")}) {
      EXPECT_EQ(line.find(secret), std::string::npos) << secret;
    }
  }
}

TEST_F(ApiTest, AuditsWhoDidWhatToWhichMemory) {
  ApiKeys keys(home_ / "h");
  const std::string anna = *keys.Add("anna", Scope::kWrite, UnixSeconds(), 0),
                    berta = *keys.Add("berta", Scope::kAdmin, UnixSeconds(), 0, "firm");
  const std::string path = home_ / "audit.log";
  Result<std::unique_ptr<AuditLog>> opened = AuditLog::Open(path, nullptr);
  ASSERT_TRUE(opened.ok());
  const std::unique_ptr<AuditLog> audit = std::move(*opened);
  Api api(queue_.get(), &jobs_, &readers_, &metrics_,
          ApiOptions{.model = "toy",
                     .fingerprint = model_.info().fingerprint,
                     .home = home_ / "h",
                     .stores = &engine_.stores(),
                     .without_keys = Scope::kAdmin,
                     .note = [](std::string_view) {},
                     .audit = audit.get()});
  const auto call = [&](const std::string& key, const std::string& method,
                        std::vector<std::string> route, const std::string& body = "") {
    auto recorder = std::make_shared<Recorder>();
    api.Handle({.method = method,
                .path = std::move(route),
                .query = {{"name", "secret-name"}},
                .id = "req-1",
                .peer = "127.0.0.1",
                .content_type = body.starts_with('{') ? "application/json" : "text/plain",
                .authorization = "Bearer " + key,
                .body = body},
               recorder);
    return recorder->Reply().status;
  };
  EXPECT_EQ(call(anna, "GET", {"readyz"}), 200u);
  EXPECT_EQ(call(anna, "POST", {"v1", "memories", "tales", "ask"},
                 R"({"question": "What is the number of the elder?", "abstain": false})"),
            200u);
  EXPECT_EQ(call(anna, "DELETE", {"v1", "memories", "tales"}), 403u);
  EXPECT_EQ(call(berta, "POST", {"v1", "memories"}, R"({"name": "tales"})"), 201u);
  EXPECT_EQ(call(berta, "POST", {"v1", "memories", "tales", "documents"}, "secret text"), 202u);
  EXPECT_EQ(call(anna, "POST", {"v1", "chat", "completions"}, kChat), 200u);
  EXPECT_EQ(call("lh-wrong", "GET", {"v1", "models"}), 401u);
  ASSERT_TRUE(keys.Remove("berta").ok());
  const std::string cora = *keys.Add("cora", Scope::kRead, UnixSeconds(), 0);
  EXPECT_EQ(call(cora, "GET", {"v1", "models"}), 200u);
  std::ifstream file(path);
  std::string all, shown;
  for (std::string line; std::getline(file, line);) {
    all += line;
    const json::object entry = json::parse(line).as_object();
    if (entry.at("event") == "keys") {
      shown += json::serialize(entry.at("added")) + json::serialize(entry.at("removed")) + "\n";
      continue;
    }
    EXPECT_EQ(entry.at("id"), "req-1");
    const auto text = [&](const char* name) {
      return entry.at(name).is_null() ? std::string("-") : std::string(entry.at(name).as_string());
    };
    shown += text("key") + " " + text("tenant") + " " + text("method") + " " + text("route") + " " +
             text("memory") + " " + json::serialize(entry.at("status")) + "\n";
  }
  EXPECT_EQ(shown,
            "anna - POST /v1/memories/{memory}/ask tales 200\n"
            "anna - DELETE /v1/memories/{memory} tales 403\n"
            "berta firm POST /v1/memories tales 201\n"
            "berta firm POST /v1/memories/{memory}/documents tales 202\n"
            "anna - POST /v1/chat/completions tales 200\n"
            "- - GET none - 401\n"
            "[\"cora\"][\"berta\"]\n");
  for (const std::string& secret : {std::string("elder"), std::string("secret"),
                                    std::string("seven"), anna, std::string("lh-wrong")}) {
    EXPECT_THAT(all, Not(HasSubstr(secret)));
  }
}

// Every route for every kind of client. What a route makes of an empty body is not the point: 401
// and 403 come before.
TEST_F(ApiTest, LetsInByKeyAndScope) {
  ApiKeys keys(home_ / "h");
  const int64_t now = UnixSeconds();
  const std::string reader = *keys.Add("reader", Scope::kRead, now, 0),
                    writer = *keys.Add("writer", Scope::kWrite, now, 0),
                    admin = *keys.Add("admin", Scope::kAdmin, now, now + 1000),
                    old = *keys.Add("old", Scope::kAdmin, now - 10, now - 1);
  const std::vector<std::pair<std::string, Scope>> clients = {
      {"", Scope::kNone},
      {"Bearer ", Scope::kNone},
      {"Bearer lh-" + std::string(64, '0'), Scope::kNone},
      {"Basic " + admin, Scope::kNone},
      {"Bearer " + admin + " ", Scope::kNone},
      {"Bearer " + old, Scope::kNone},
      {"Bearer " + reader, Scope::kRead},
      {"Bearer " + writer, Scope::kWrite},
      {"Bearer " + admin, Scope::kAdmin}};
  for (const ApiRoute& route : Api::Routes()) {
    const std::vector<std::string> path = PathOf(route, "none");
    for (const auto& [authorization, scope] : clients) {
      const auto recorder = std::make_shared<Recorder>();
      api_->Handle({.method = std::string(route.method),
                    .path = path,
                    .query = {},
                    .content_type = "",
                    .authorization = authorization,
                    .body = ""},
                   recorder);
      const unsigned status = recorder->Reply().status;
      const std::string what =
          std::string(route.method) + " " + std::string(route.path) + " " + authorization;
      if (route.scope == Scope::kNone) {
        EXPECT_EQ(status, 200u) << what;
      } else if (scope == Scope::kNone) {
        EXPECT_EQ(status, 401u) << what;
      } else if (scope < route.scope) {
        EXPECT_EQ(status, 403u) << what;
      } else {
        EXPECT_NE(status, 401u) << what;
        EXPECT_NE(status, 403u) << what;
      }
    }
  }
  Call(401, "GET", {"v1", "nowhere"});
  // A session writes.
  const auto recorder = std::make_shared<Recorder>();
  api_->Handle({.method = "POST",
                .path = {"v1", "chat", "completions"},
                .query = {},
                .content_type = "",
                .authorization = "Bearer " + reader,
                .body = With(kChat, R"("session":"s")")},
               recorder);
  EXPECT_EQ(recorder->Reply().status, 403u);
  // Removed, it is refused from the next request on; with none left nobody is let in.
  for (const char* name : {"reader", "writer", "admin", "old"}) ASSERT_TRUE(keys.Remove(name).ok());
  Call(401, "GET", {"readyz"});
  std::ofstream(home_ / "h/keys.json") << "{";
  Call(500, "GET", {"readyz"});
  Call(200, "GET", {"healthz"});
}

}  // namespace
}  // namespace longhold
