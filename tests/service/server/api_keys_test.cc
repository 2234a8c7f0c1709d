// The file of keys: what is kept of a key, and what becomes of damage.
#include "service/server/api_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <sstream>

#include "tests/store/temp_dir.h"

namespace longhold {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string Read(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(ApiKeys, KeepTheirHashOnlyAndLetIn) {
  TempDir home;
  ApiKeys keys(home / "h");
  EXPECT_TRUE(keys.List()->empty());
  EXPECT_EQ(keys.CallerOf("", 10, Scope::kAdmin)->scope, Scope::kAdmin);
  EXPECT_EQ(keys.CallerOf("", 10, Scope::kNone)->scope, Scope::kNone);
  const Result<std::string> key = keys.Add("anna", Scope::kWrite, 10, 20);
  ASSERT_TRUE(key.ok()) << key.status().ToString();
  EXPECT_THAT(Read(home / "h/keys.json"), Not(HasSubstr(key->substr(3))));
  struct stat s {};
  ASSERT_EQ(stat((home / "h/keys.json").c_str(), &s), 0);
  EXPECT_EQ(s.st_mode & 0777, 0600u);
  EXPECT_EQ(keys.CallerOf("Bearer " + *key, 19, Scope::kAdmin)->scope, Scope::kWrite);
  EXPECT_EQ(keys.CallerOf("Bearer " + *key, 20, Scope::kAdmin)->scope, Scope::kNone) << "expired";
  EXPECT_EQ(keys.CallerOf("", 19, Scope::kAdmin)->scope, Scope::kNone);
  EXPECT_EQ(keys.CallerOf(*key, 19, Scope::kAdmin)->scope, Scope::kNone);
  EXPECT_EQ(keys.CallerOfKey(*key, 19, Scope::kAdmin)->key, "anna");
  EXPECT_EQ(keys.CallerOfKey("", 19, Scope::kAdmin)->scope, Scope::kNone);
  // Another process's changes are seen.
  const std::string second = *ApiKeys(home / "h").Add("boris", Scope::kRead, 10, 0);
  EXPECT_EQ(keys.CallerOf("Bearer " + second, 1000, Scope::kAdmin)->scope, Scope::kRead);
  EXPECT_EQ(keys.List()->size(), 2u);
  ASSERT_TRUE(ApiKeys(home / "h").Remove("anna").ok());
  EXPECT_EQ(keys.CallerOf("Bearer " + *key, 19, Scope::kAdmin)->scope, Scope::kNone);
}

TEST(ApiKeys, OfATenantBringItsNameAndLimits) {
  TempDir home;
  ApiKeys keys(home / "h");
  const std::string own = *keys.Add("boss", Scope::kAdmin, 10, 0);
  EXPECT_THAT(Read(home / "h/keys.json"), HasSubstr("\"version\":1"));
  EXPECT_EQ(keys.CallerOf("Bearer " + own, 10, Scope::kNone)->limits.tenant, "");
  const std::string theirs = *keys.Add("anna", Scope::kWrite, 10, 0, "acme");
  EXPECT_THAT(Read(home / "h/keys.json"), HasSubstr("\"version\":2"))
      << "who knows no tenants must not read it";
  Caller caller = *keys.CallerOf("Bearer " + theirs, 10, Scope::kNone);
  EXPECT_EQ(caller.limits.tenant, "acme");
  EXPECT_EQ(caller.limits.documents, 0u);
  ASSERT_TRUE(keys.SetLimits({.tenant = "acme",
                              .requests_per_minute = 1,
                              .tokens_per_day = 2,
                              .documents = 3,
                              .disk_bytes = 4})
                  .ok());
  ASSERT_TRUE(keys.SetLimits({.tenant = "other", .documents = 9}).ok());
  caller = *ApiKeys(home / "h").CallerOf("Bearer " + theirs, 10, Scope::kNone);
  EXPECT_EQ(caller.scope, Scope::kWrite);
  EXPECT_EQ(caller.limits.requests_per_minute, 1u);
  EXPECT_EQ(caller.limits.tokens_per_day, 2u);
  EXPECT_EQ(caller.limits.documents, 3u);
  EXPECT_EQ(caller.limits.disk_bytes, 4u);
  EXPECT_EQ(keys.CallerOf("Bearer " + own, 10, Scope::kNone)->limits.documents, 0u);
  ASSERT_TRUE(keys.SetLimits({.tenant = "acme"}).ok());
  EXPECT_EQ(keys.Limits()->size(), 1u);
  EXPECT_EQ(keys.CallerOf("Bearer " + theirs, 10, Scope::kNone)->limits.documents, 0u);
  for (const char* bad : {"../up", "a/b", ".hidden", "a b", "-x"}) {
    EXPECT_EQ(keys.Add("x", Scope::kRead, 1, 0, bad).status().code(), StatusCode::kInvalidArgument)
        << bad;
    EXPECT_EQ(keys.SetLimits({.tenant = bad, .documents = 1}).code(), StatusCode::kInvalidArgument)
        << bad;
  }
  EXPECT_EQ(keys.SetLimits({.documents = 1}).code(), StatusCode::kInvalidArgument);
}

TEST(ApiKeys, SayWhatIsWrong) {
  TempDir home;
  ApiKeys keys(home / "h");
  ASSERT_TRUE(keys.Add("anna", Scope::kRead, 1, 0).ok());
  EXPECT_EQ(keys.Add("anna", Scope::kRead, 1, 0).status().code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(keys.Add("a b", Scope::kRead, 1, 0).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(keys.Add("", Scope::kRead, 1, 0).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(keys.Remove("boris").code(), StatusCode::kNotFound);
  EXPECT_EQ(ParseScope("root").status().code(), StatusCode::kInvalidArgument);
  const std::string good = Read(home / "h/keys.json");
  for (size_t cut = 0; cut + 2 < good.size(); cut += 5) {
    std::ofstream(home / "h/keys.json") << good.substr(0, cut);
    EXPECT_EQ(keys.List().status().code(), StatusCode::kDataLoss) << cut;
    EXPECT_EQ(keys.CallerOf("", 1, Scope::kAdmin).status().code(), StatusCode::kDataLoss) << cut;
    EXPECT_EQ(keys.Add("boris", Scope::kRead, 1, 0).status().code(), StatusCode::kDataLoss)
        << "nothing is written over it";
  }
}

}  // namespace
}  // namespace longhold
