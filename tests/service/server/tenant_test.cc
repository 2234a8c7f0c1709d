// The API with several tenants: none sees or changes what another has, and each has its limits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <string>
#include <vector>

#include "service/server/api.h"
#include "service/server/api_keys.h"
#include "tests/service/server/api_fixture.h"
#include "tests/support/queue_driver.h"

namespace longhold {
namespace {

namespace json = boost::json;
using api_fixture::Api;
using api_fixture::PathOf;
using api_fixture::TenantTest;
using testing::HasSubstr;

// Every route, under the names that another tenant's memory, document and ingest have.
TEST_F(TenantTest, SeesNothingOfAnotherOnes) {
  const std::string anna = KeyOf("acme", Scope::kAdmin), boris = KeyOf("other", Scope::kAdmin),
                    boss = KeyOf("", Scope::kAdmin);
  Read(anna, "diary", "secret.txt", "The canary of acme sings at seven.\n" + PlainText(800, 3));
  const std::string ingest(json::parse(As(anna, "GET", {"v1", "ingests"}).body)
                               .at("ingests")
                               .at(0)
                               .at("id")
                               .as_string());
  EXPECT_EQ(json::parse(As(anna, "GET", {"v1", "ingests"}).body).at("ingests").at(0).at("memory"),
            "diary");
  EXPECT_EQ(json::parse(As(boss, "GET", {"v1", "ingests"}).body).at("ingests").at(0).at("memory"),
            "acme/diary");
  const std::string question =
      R"("question":"At what hour does the canary sing?","query":"canary","model":"toy@)";
  for (const ApiRoute& route : Api::Routes()) {
    // below
    if (route.method == "DELETE" && route.path == "/v1/memories/{memory}/documents/{document}")
      continue;
    for (const std::string& name : {std::string("diary"), std::string("acme/diary"),
                                    std::string("../acme/memories/diary"), ingest}) {
      std::vector<std::string> path = PathOf(route, name);
      const std::string body =
          "{" + question + name +
          R"(","prompt":"At what hour does the canary sing?","messages":[{"role":"user","content":"canary?"}],"name":"x","text":"mine"})";
      // makes one of its own
      if (route.path == "/v1/memories/{memory}/documents" && name.find('/') == std::string::npos)
        continue;
      // likewise
      if (route.path == "/v1/memories" && route.method == "POST") continue;
      const HttpReply reply = As(boris, std::string(route.method), path, body);
      EXPECT_EQ(reply.body.find("sings"), std::string::npos) << route.path << " " << reply.body;
      EXPECT_EQ(reply.body.find("secret.txt"), std::string::npos)
          << route.path << " " << reply.body;
      if (route.path.find('{') != std::string::npos) {
        EXPECT_GE(reply.status, 400u) << route.path << " " << reply.body;
        EXPECT_LT(reply.status, 500u) << route.path << " " << reply.body;
      }
    }
  }
  EXPECT_EQ(As(boris, "POST", {"v1", "memories"}, R"({"name":"acme/diary"})").status, 400u);
  EXPECT_EQ(As(boris, "GET", {"metrics"}).status, 403u);
  EXPECT_EQ(As(anna, "GET", {"metrics"}).status, 403u);
  EXPECT_EQ(As(boss, "GET", {"metrics"}).status, 200u);
  EXPECT_EQ(As(boris, "DELETE", {"v1", "memories", "diary", "documents", "secret.txt"}).status,
            404u);
  EXPECT_EQ(json::parse(As(boris, "GET", {"v1", "memories"}).body).at("memories").as_array().size(),
            0u);
  EXPECT_EQ(json::parse(As(boris, "GET", {"v1", "models"}).body).at("data").as_array().size(), 1u);
  // The owner, and the operator, still have all of it.
  EXPECT_EQ(json::parse(As(anna, "GET", {"v1", "memories", "diary"}).body).at("memory"), "diary");
  EXPECT_EQ(json::parse(As(anna, "GET", {"v1", "models"}).body).at("data").at(1).at("id"),
            "toy@diary");
  EXPECT_THAT(As(anna, "POST", {"v1", "memories", "diary", "recall"},
                 R"({"query":"canary","abstain":false})")
                  .body,
              HasSubstr("sings at seven"));
  EXPECT_EQ(json::parse(As(boss, "GET", {"v1", "memories", "acme/diary"}).body).at("memory"),
            "acme/diary");
  const HttpReply none = As(anna, "GET", {"v1", "memories", "tales"});
  EXPECT_EQ(none.status, 404u) << "the operator's are not a tenant's";
  EXPECT_EQ(none.body.find(home_ / "h"), std::string::npos) << none.body;
  // Both may have one of the same name.
  Read(boris, "diary", "mine.txt", "A parrot talks.\n");
  EXPECT_EQ(As(boris, "POST", {"v1", "memories", "diary", "recall"},
               R"({"query":"canary","abstain":false})")
                .body.find("sings"),
            std::string::npos);
  const json::value chat = json::parse(
      As(boris, "POST", {"v1", "chat", "completions"},
         R"({"model":"toy@diary","messages":[{"role":"user","content":"Who talks?"}],"abstain":false,"session":"s"})")
          .body);
  EXPECT_EQ(chat.at("model"), "toy@diary");
  EXPECT_EQ(As(boris, "DELETE", {"v1", "memories", "diary"}).status, 200u);
  EXPECT_EQ(As(anna, "GET", {"v1", "memories", "diary"}).status, 200u);
}

TEST_F(TenantTest, SeesNoUploadsOfAnotherOnes) {
  const std::string anna = KeyOf("acme", Scope::kAdmin), boris = KeyOf("other", Scope::kAdmin),
                    boss = KeyOf("", Scope::kAdmin);
  const std::string upload(json::parse(As(anna, "POST", {"v1", "uploads"}, R"({"length":9})").body)
                               .at("id")
                               .as_string());
  EXPECT_EQ(As(anna, "GET", {"v1", "uploads", upload}).status, 200u);
  for (const std::string& other : {boris, boss}) {
    EXPECT_EQ(As(other, "GET", {"v1", "uploads", upload}).status, 404u);
    EXPECT_EQ(As(other, "DELETE", {"v1", "uploads", upload}).status, 404u);
    EXPECT_EQ(As(other, "GET", {"v1", "uploads"}).body, R"({"uploads":[]})");
    EXPECT_EQ(As(other, "POST", {"v1", "memories", "mine", "documents"},
                 R"({"name":"x","upload":")" + upload + "\"}")
                  .status,
              404u);
  }
}

TEST_F(TenantTest, CanariesOfManyDoNotCross) {
  constexpr size_t kTenants = 16, kRounds = 12;
  std::vector<std::string> keys, canaries;
  for (size_t t = 0; t < kTenants; ++t) {
    const std::string tenant = "t" + std::to_string(t);
    keys.push_back(KeyOf(tenant, Scope::kWrite));
    canaries.push_back("canary" + std::to_string(100000 + 7919 * (t + 1)));
    Read(keys[t], "notes", "bird.txt",
         "The bird of this house is called " + canaries[t] + ".\n" + PlainText(300, 5));
  }
  size_t found = 0;
  for (size_t round = 0; round < kRounds; ++round) {
    for (size_t t = 0; t < kTenants; ++t) {
      // Also one that asks for another one's by name.
      const std::string wanted = canaries[(t + round) % kTenants];
      const HttpReply reply = round % 3 == 0 ? As(keys[t], "GET", {"v1", "memories", "notes"})
                              : round % 3 == 1
                                  ? As(keys[t], "POST", {"v1", "memories", "notes", "recall"},
                                       R"({"query":"bird )" + wanted + R"(","abstain":false})")
                                  : As(keys[t], "POST", {"v1", "memories", "notes", "ask"},
                                       R"({"question":"What is the bird )" + wanted +
                                           R"( called?","abstain":false,"max_tokens":4})");
      ASSERT_EQ(reply.status, 200u) << reply.body;
      found += reply.body.find(canaries[t]) != std::string::npos;
      for (size_t other = 0; other < kTenants; ++other) {
        if (other != t) {
          EXPECT_EQ(reply.body.find(canaries[other]), std::string::npos) << t << " sees " << other;
        }
      }
    }
  }
  EXPECT_EQ(found, kTenants * kRounds * 2 / 3) << "everybody finds their own";
}

TEST_F(TenantTest, HasLimits) {
  ApiKeys keys(home_ / "h");
  const std::string anna = KeyOf("acme", Scope::kWrite), boris = KeyOf("other", Scope::kWrite);
  ASSERT_TRUE(keys.SetLimits({.tenant = "acme", .documents = 2}).ok());
  Read(anna, "notes", "a", "One note.");
  Read(anna, "more", "b", "Another note.");
  const auto job = [&](const std::string& name, const std::string& text) {
    const json::value taken = json::parse(As(anna, "POST", {"v1", "memories", "notes", "documents"},
                                             text, "text/plain", {{"name", name}})
                                              .body);
    for (;;) {
      json::value now = json::parse(
          As(anna, "GET", {"v1", "ingests", std::string(taken.at("id").as_string())}).body);
      if (now.at("state") != "queued" && now.at("state") != "running") return now;
    }
  };
  const json::value refused = job("c", "A third.");
  EXPECT_EQ(refused.at("state"), "failed");
  EXPECT_THAT(std::string(refused.at("error").at("message").as_string()), HasSubstr("2 documents"));
  EXPECT_EQ(job("a", "One note, changed.").at("state"), "done")
      << "it takes the place of the one before";
  Read(boris, "notes", "c", "Somebody else's.");
  ASSERT_TRUE(keys.SetLimits({.tenant = "acme", .disk_bytes = 10}).ok());
  EXPECT_THAT(std::string(job("c", "A third.").at("error").at("message").as_string()),
              HasSubstr("bytes on the disk"));
  EXPECT_EQ(As(anna, "POST", {"v1", "memories", "notes", "documents"}, "It is too long.",
               "text/plain", {{"name", "c"}})
                .status,
            409u);
  const auto go = HoldQueue(*queue_);
  EXPECT_EQ(As(anna, "POST", {"v1", "memories", "notes", "documents"}, "Waits.", "text/plain",
               {{"name", "c"}})
                .status,
            202u);
  EXPECT_EQ(As(anna, "POST", {"v1", "memories", "notes", "documents"}, "Waits.", "text/plain",
               {{"name", "d"}})
                .status,
            429u)
      << "both together are too long";
  EXPECT_EQ(As(boris, "POST", {"v1", "memories", "notes", "documents"}, "Waits.", "text/plain",
               {{"name", "d"}})
                .status,
            202u);
  go->set_value();
  EXPECT_EQ(As(anna, "POST", {"v1", "uploads"}, R"({"length":6})").status, 201u);
  EXPECT_EQ(As(anna, "POST", {"v1", "uploads"}, R"({"length":5})").status, 409u)
      << "both together are too long";
  EXPECT_EQ(As(anna, "POST", {"v1", "uploads"}, R"({"length":4})").status, 201u);
  const HttpReply session =
      As(anna, "POST", {"v1", "chat", "completions"},
         R"({"model":"toy@notes","messages":[{"role":"user","content":"What?"}],"session":"s"})");
  EXPECT_EQ(session.status, 409u) << session.body;

  ASSERT_TRUE(keys.SetLimits({.tenant = "acme", .requests_per_minute = 3}).ok());
  unsigned last = 200;
  for (int i = 0; i < 4; ++i) {
    const HttpReply reply = As(anna, "GET", {"v1", "memories"});
    last = reply.status;
    if (last == 429) {
      EXPECT_EQ(reply.headers.at(0).first, "Retry-After");
      EXPECT_THAT(std::stoi(reply.headers.at(0).second),
                  testing::AllOf(testing::Gt(0), testing::Le(20)))
          << "a third of a minute, less what went by";
    }
  }
  EXPECT_EQ(last, 429u);
  EXPECT_EQ(As(boris, "GET", {"v1", "memories"}).status, 200u);

  ASSERT_TRUE(keys.SetLimits({.tenant = "other", .tokens_per_day = 5}).ok());
  EXPECT_EQ(As(boris, "POST", {"v1", "memories", "notes", "ask"},
               R"({"question":"Whose is it?","abstain":false,"max_tokens":2})")
                .status,
            200u);
  EXPECT_EQ(As(boris, "GET", {"v1", "memories"}).status, 429u);
}

}  // namespace
}  // namespace longhold
