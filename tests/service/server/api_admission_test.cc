// What the API decides by a request's header alone, and what it tells of requests that the server
// refuses.
#include <gmock/gmock.h>

#include <fstream>

#include "base/clock.h"
#include "tests/service/server/api_fixture.h"

namespace longhold {
namespace {

namespace json = boost::json;
using api_fixture::ApiTest;
using api_fixture::PathOf;
using testing::HasSubstr;
using testing::Not;

// Everything but the body decides, for every route and every kind of client, and before a body is
// there.
TEST_F(ApiTest, DecidesByTheHeaderAlone) {
  ApiKeys keys(home_ / "h");
  const std::string reader = "Bearer " + *keys.Add("reader", Scope::kRead, UnixSeconds(), 0),
                    admin = "Bearer " + *keys.Add("admin", Scope::kAdmin, UnixSeconds(), 0);
  constexpr uint64_t kServerLimit = UINT64_MAX, kMiB = 1 << 20;
  const std::map<std::string, uint64_t> long_bodies = {
      {"/v1/memories/{memory}/documents", kServerLimit},
      {"/v1/memories/{memory}/import", kServerLimit},
      {"/v1/uploads/{upload}", kServerLimit}};
  for (const ApiRoute& route : Api::Routes()) {
    const std::string what = std::string(route.method) + " " + std::string(route.path);
    const auto admit = [&](const std::string& authorization, const std::string& type) {
      return api_->Admit({.method = std::string(route.method),
                          .path = PathOf(route, "none"),
                          .query = {},
                          .content_type = type,
                          .authorization = authorization,
                          .body = ""});
    };
    const auto status = [&](const std::string& authorization) {
      const HttpAdmission admission = admit(authorization, "text/plain");
      return admission.refusal.has_value() ? admission.refusal->status : 200;
    };
    EXPECT_EQ(status(""), route.scope == Scope::kNone ? 200u : 401u) << what;
    EXPECT_EQ(status(reader), route.scope > Scope::kRead ? 403u : 200u) << what;
    EXPECT_EQ(status(admin), 200u) << what;
    const HttpAdmission text = admit(admin, "application/octet-stream"),
                        json = admit(admin, "application/json");
    const bool writes = route.method == "POST" || route.method == "PATCH";
    const auto long_body = writes ? long_bodies.find(std::string(route.path)) : long_bodies.end();
    if (route.scope == Scope::kNone) {
      EXPECT_EQ(text.body_bytes_max, 0u) << what;
    } else if (long_body != long_bodies.end()) {
      EXPECT_EQ(text.body_bytes_max, long_body->second) << what;
    } else {
      EXPECT_LE(text.body_bytes_max, kMiB) << what;
    }
    if (route.path != "/v1/memories/{memory}/documents") {
      EXPECT_LE(json.body_bytes_max, kMiB) << what;
    }
    EXPECT_FALSE(text.when_longer.empty()) << what;
  }
  const auto refusal = [&](const std::string& method, std::vector<std::string> path) {
    const HttpAdmission admission = api_->Admit({.method = method,
                                                 .path = std::move(path),
                                                 .query = {},
                                                 .content_type = "",
                                                 .authorization = admin,
                                                 .body = ""});
    return admission.refusal.has_value() ? admission.refusal->status : 200;
  };
  EXPECT_EQ(refusal("GET", {"v1", "nowhere"}), 404u);
  EXPECT_EQ(refusal("PUT", {"v1", "memories"}), 405u);
  EXPECT_EQ(refusal("GET", {"v1", "memories", "../x"}), 400u);
  ASSERT_TRUE(keys.SetLimits({.tenant = "acme", .requests_per_minute = 1}).ok());
  const std::string tenant = "Bearer " + *keys.Add("anna", Scope::kWrite, UnixSeconds(), 0, "acme");
  const auto memories = [&] {
    return api_->Admit({.method = "GET",
                        .path = {"v1", "memories"},
                        .query = {},
                        .content_type = "",
                        .authorization = tenant,
                        .body = ""});
  };
  EXPECT_FALSE(memories().refusal.has_value());
  EXPECT_EQ(memories().refusal->status, 429u);
}

// What the server refuses by itself, before Admit and while the body comes, and a client that goes
// meanwhile.
TEST_F(ApiTest, TellsOfWhatTheServerRefuses) {
  const std::string path = home_ / "audit.log";
  Result<std::unique_ptr<AuditLog>> opened = AuditLog::Open(path, nullptr);
  ASSERT_TRUE(opened.ok());
  const std::unique_ptr<AuditLog> audit = std::move(*opened);
  ApiKeys keys(home_ / "h");
  const std::string anna = "Bearer " + *keys.Add("anna", Scope::kWrite, UnixSeconds(), 0);
  std::vector<std::string> log;
  Api api(queue_.get(), &jobs_, &readers_, &metrics_,
          ApiOptions{.model = "toy",
                     .home = home_ / "h",
                     .stores = &engine_.stores(),
                     .note = [](std::string_view) {},
                     .log = [&](std::string_view line) { log.emplace_back(line); },
                     .audit = audit.get()});
  const HttpRequest head{.method = "POST",
                         .path = {"v1", "memories", "tales", "documents"},
                         .query = {},
                         .id = "req-1",
                         .peer = "127.0.0.9",
                         .content_type = "text/plain",
                         .authorization = anna,
                         .body = ""};
  api.Refused(head, 421);
  api.Refused(
      {.method = "", .path = {}, .query = {}, .id = "req-2", .peer = "127.0.0.9", .body = ""}, 408);
  api.Admit(head).refused(413);
  (void)api.Admit(head);
  std::ifstream file(path);
  std::string audited, logged;
  for (std::string line; std::getline(file, line);) {
    const json::object entry = json::parse(line).as_object();
    audited += json::serialize(json::array{entry.at("id"), entry.at("peer"), entry.at("key"),
                                           entry.at("method"), entry.at("route"),
                                           entry.at("memory"), entry.at("status")}) +
               "\n";
  }
  EXPECT_EQ(audited,
            R"(["req-1","127.0.0.9",null,"POST","/v1/memories/{memory}/documents","tales",421])"
            "\n"
            R"(["req-2","127.0.0.9",null,null,"none",null,408])"
            "\n"
            R"(["req-1","127.0.0.9","anna","POST","/v1/memories/{memory}/documents","tales",413])"
            "\n"
            R"(["req-1","127.0.0.9","anna","POST","/v1/memories/{memory}/documents","tales",0])"
            "\n");
  for (const std::string& line : log) {
    const json::object entry = json::parse(line).as_object();
    logged += json::serialize(json::array{entry.at("id"), entry.at("key"), entry.at("method"),
                                          entry.at("route"), entry.at("status")}) +
              "\n";
    EXPECT_THAT(line, Not(HasSubstr("tales")));
  }
  EXPECT_EQ(logged, R"(["req-1",null,"POST","/v1/memories/{memory}/documents",421])"
                    "\n"
                    R"(["req-2",null,null,"none",408])"
                    "\n"
                    R"(["req-1","anna","POST","/v1/memories/{memory}/documents",413])"
                    "\n"
                    R"(["req-1","anna","POST","/v1/memories/{memory}/documents",0])"
                    "\n");
  const std::string counted = metrics_.Text();
  for (const char* status : {"421", "413", "0"}) {
    EXPECT_THAT(
        counted,
        HasSubstr("longhold_requests_total{route=\"/v1/memories/{memory}/documents\",status=\"" +
                  std::string(status) + "\"} 1\n"));
  }
  EXPECT_THAT(counted, HasSubstr("longhold_requests_total{route=\"none\",status=\"408\"} 1\n"));
}

}  // namespace
}  // namespace longhold
