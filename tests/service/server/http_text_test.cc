// What headers mean: targets, hosts and origins, and which headers are refused; as tables of texts
// and what is expected of them.
#include "service/server/http_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace longhold {
namespace {

using testing::ElementsAre;

TEST(PercentDecode, ReadsEscapesAndRefusesOthers) {
  std::string out;
  EXPECT_TRUE(PercentDecode("a%2fb+c%C3%A9", false, &out));
  EXPECT_EQ(out, "a/b+cé");
  EXPECT_TRUE(PercentDecode("a+b", true, &out));
  EXPECT_EQ(out, "a b");
  for (const char* bad : {"%", "%1", "%g0", "a%0", "%00"})
    EXPECT_FALSE(PercentDecode(bad, false, &out)) << bad;
}

TEST(ParseTarget, TellsPathAndQuery) {
  const std::optional<HttpTarget> target = ParseTarget("/v1/memories/a%2Fb?x=1+2&y=%26&flag&x=3");
  ASSERT_TRUE(target.has_value());
  EXPECT_THAT(target->path, ElementsAre("v1", "memories", "a/b"));
  EXPECT_THAT(target->query,
              ElementsAre(std::pair("flag", ""), std::pair("x", "3"), std::pair("y", "&")));
  EXPECT_TRUE(ParseTarget("/")->path.empty());
  EXPECT_THAT(ParseTarget("//a/")->path, ElementsAre("", "a"));
  for (const char* bad :
       {"", "x", "*", "http://localhost/", "localhost:80", "/%", "/a%00b", "/?%zz", "?/"})
    EXPECT_FALSE(ParseTarget(bad).has_value()) << bad;
}

TEST(ParseAuthority, TellsHostAndPort) {
  const auto parsed = [](std::string_view text) {
    const std::optional<HttpAuthority> authority = ParseAuthority(text);
    return authority.has_value() ? authority->host + " " + std::to_string(authority->port) : "none";
  };
  EXPECT_EQ(parsed("LOCALHOST:8420"), "localhost 8420");
  EXPECT_EQ(parsed("localhost"), "localhost 0");
  EXPECT_EQ(parsed("localhost:"), "localhost 0");
  EXPECT_EQ(parsed("[::1]:65535"), "[::1] 65535");
  EXPECT_EQ(parsed("[::1]"), "[::1] 0");
  for (const char* bad :
       {"", ":80", "[::1", "a:b", "a:0", "a:65536", "a:8x", "a:-1", "a:+1", "user@a", "::1"})
    EXPECT_EQ(parsed(bad), "none") << bad;
}

TEST(FindObjection, NamesWhatIsWrong) {
  const HttpSite plain{.hosts = {"localhost"}}, secure{.hosts = {"localhost"}, .tls = true};
  const auto status = [](const HttpSite& site, std::vector<HttpField> fields,
                         bool version_1_1 = true) {
    const std::optional<HttpObjection> objection = FindObjection(fields, version_1_1, site);
    return objection.has_value() ? objection->status : 200;
  };
  const HttpField host{"Host", "localhost"};
  EXPECT_EQ(status(plain, {host}), 200u);
  EXPECT_EQ(status(plain, {}), 400u);
  EXPECT_EQ(status(plain, {}, false), 200u) << "HTTP/1.0 has none";
  EXPECT_EQ(status(plain, {{"Origin", "http://localhost"}}, false), 403u)
      << "and nothing that an origin could be compared with";
  EXPECT_EQ(status(plain, {{"HOST", "evil.example"}}), 421u);
  EXPECT_EQ(status(plain, {host, {"host", "localhost"}}), 400u);
  EXPECT_EQ(status(plain, {host, {"Origin", "https://localhost"}}), 200u)
      << "a proxy may speak TLS";
  EXPECT_EQ(status(plain, {host, {"Origin", "http://localhost"}}), 200u);
  EXPECT_EQ(status(secure, {host, {"Origin", "https://localhost:443"}}), 200u);
  EXPECT_EQ(status(secure, {host, {"Origin", "http://localhost"}}), 403u)
      << "it was not encrypted: anybody could have been it";
  EXPECT_EQ(status(plain, {host, {"transfer-ENCODING", "CHUNKED"}}), 200u);
  EXPECT_EQ(status(plain, {host, {"Transfer-Encoding", "chunked"}}, false), 400u);
  EXPECT_EQ(status(plain, {host, {"Content-Length", "007"}}), 200u);
  for (const char* bad : {"", "+1", "1 1", "0x1", "1,1"})
    EXPECT_EQ(status(plain, {host, {"Content-Length", bad}}), 400u) << bad;
  std::vector<HttpField> many(128, {"X", "y"});
  many[0] = host;
  EXPECT_EQ(status(plain, many), 200u);
  many.emplace_back("X", "y");
  EXPECT_EQ(status(plain, many), 431u);
}

TEST(IsTraceparent, KnowsItsForm) {
  EXPECT_TRUE(IsTraceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
  for (const char* bad : {"", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                          "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
                          "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}) {
    EXPECT_FALSE(IsTraceparent(bad)) << bad;
  }
}

}  // namespace
}  // namespace longhold
