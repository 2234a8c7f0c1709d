// The Api beside clients that mean no good: forged imports, copies that nobody takes, texts and
// copies beyond a tenant's limits, long bodies and odd numbers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <span>

#include "memory/record/record_keys.h"
#include "memory/record/records.h"
#include "service/common/json_text.h"
#include "store/mem_store.h"
#include "store/transfer.h"
#include "tests/service/server/api_fixture.h"

namespace longhold {
namespace {

using namespace api_fixture;
using testing::HasSubstr;

// Another shape of the keys than the model's, with every checksum right: before, it was taken, and
// the next recall ended the server.
TEST_F(ApiTest, AForgedImportIsRefusedAndNothingOfItStays) {
  const std::string bytes = Start("GET", {"v1", "memories", "tales", "export"})->Stream();
  const auto forge = [&](const std::function<void(Manifest&)>& change) {
    const auto store = NewMemStore();
    size_t at = 0;
    const ByteSource source = [&](std::span<char> out) -> Result<size_t> {
      const size_t n = bytes.copy(out.data(), out.size(), at);
      at += n;
      return n;
    };
    EXPECT_TRUE(ReadExportName(source).ok() && ImportStore(source, *store).ok());
    Manifest manifest = *DecodeManifest(*store->Get(Table::kMeta, kManifestKey));
    change(manifest);
    WriteBatch batch;
    batch.Put(Table::kMeta, kManifestKey, Encode(manifest));
    EXPECT_TRUE(store->Write(std::move(batch), Durability::kBuffered).ok());
    std::string forged;
    EXPECT_TRUE(ExportStore(*store, "tales", [&](std::string_view more) {
                  forged += more;
                  return OkStatus();
                }).ok());
    return forged;
  };
  for (const auto& change :
       {std::function<void(Manifest&)>([](Manifest& m) { m.head_dim = 32; }),
        std::function<void(Manifest&)>([](Manifest& m) { m.window_tokens = 1; })}) {
    const json::value refused = Call(400, "POST", {"v1", "memories", "forged", "import"},
                                     forge(change), "application/octet-stream");
    EXPECT_THAT(std::string(refused.at("error").at("message").as_string()), HasSubstr("manifest"));
    Call(404, "GET", {"v1", "memories", "forged"});
  }
  Call(201, "POST", {"v1", "memories", "forged", "import"}, forge([](Manifest&) {}),
       "application/octet-stream");
}

// Clients that take nothing of their copies: these wait without a thread, and everybody's jobs
// go on.
TEST_F(TenantTest, SlowCopiesKeepNobodyWaiting) {
  const std::vector<std::string> slow = {
      KeyOf("acme", Scope::kWrite), KeyOf("other", Scope::kWrite), KeyOf("third", Scope::kWrite),
      KeyOf("fourth", Scope::kWrite)};
  const std::string boss = KeyOf("", Scope::kWrite);
  std::vector<std::shared_ptr<Recorder>> copies;
  const auto copy = [&](const std::string& key, size_t taken) {
    auto recorder = std::make_shared<Recorder>();
    recorder->TakeAtMost(taken);
    api_->Handle({.method = "GET",
                  .path = {"v1", "memories", "notes", "export"},
                  .query = {},
                  .content_type = "",
                  .authorization = "Bearer " + key,
                  .body = ""},
                 recorder);
    return recorder;
  };
  std::vector<std::string> whole;
  for (size_t i = 0; i < slow.size(); ++i) {
    Read(slow[i], "notes", "a", PlainText(60000, i));
    whole.push_back(copy(slow[i], SIZE_MAX)->Stream());
    ASSERT_GT(whole[i].size(), 200000u);
    copies.push_back(copy(slow[i], 1));
    copies[i]->WaitUntilSlow();
  }
  EXPECT_EQ(As(slow[0], "GET", {"v1", "memories", "notes", "export"}).status, 429u)
      << "a second one of the same tenant";
  EXPECT_EQ(As(slow[0], "POST", {"v1", "uploads"}, R"({"length":6})").status, 201u);
  EXPECT_EQ(As(slow[1], "POST", {"v1", "memories", "notes", "verify"}).status, 200u);
  EXPECT_EQ(
      As(boss, "POST", {"v1", "memories", "copy", "import"}, whole[0], "application/octet-stream")
          .status,
      201u);
  for (size_t i = 0; i + 1 < slow.size(); ++i) {
    copies[i]->TakeAll();
    EXPECT_EQ(copies[i]->Stream(), whole[i]);
  }
  copies.back()->gone_ = true;  // it goes away instead
  copies.back()->TakeAll();
  for (const std::string& key : slow)
    EXPECT_GT(copy(key, SIZE_MAX)->Stream().size(), 200000u) << "and may copy again";
}

TEST_F(TenantTest, LimitsHoldForWhatIsImportedAndForWhatATextBecomes) {
  ApiKeys keys(home_ / "h");
  const std::string anna = KeyOf("acme", Scope::kAdmin), boris = KeyOf("other", Scope::kAdmin);
  Read(boris, "notes", "a", PlainText(60000, 1));
  Read(boris, "notes", "b", "Another one.");
  auto copied = std::make_shared<Recorder>();
  api_->Handle({.method = "GET",
                .path = {"v1", "memories", "notes", "export"},
                .query = {},
                .content_type = "",
                .authorization = "Bearer " + boris,
                .body = ""},
               copied);
  const std::string bytes = copied->Stream();
  const auto import = [&] {
    return As(anna, "POST", {"v1", "memories", "copy", "import"}, bytes,
              "application/octet-stream");
  };
  ASSERT_TRUE(keys.SetLimits({.tenant = "acme", .disk_bytes = bytes.size() / 2}).ok());
  EXPECT_EQ(import().status, 409u);
  ASSERT_TRUE(keys.SetLimits({.tenant = "acme", .documents = 1}).ok());
  EXPECT_EQ(import().status, 409u);
  EXPECT_EQ(As(anna, "GET", {"v1", "memories", "copy"}).status, 404u);
  ASSERT_TRUE(
      keys.SetLimits({.tenant = "acme", .documents = 2, .disk_bytes = 4 * bytes.size()}).ok());
  EXPECT_EQ(import().status, 201u);
  EXPECT_EQ(As(anna, "DELETE", {"v1", "memories", "copy"}).status, 200u);

  // A text of 60 KB becomes some 400 KB of keys, values and words. One that cannot fit is not
  // begun; one that does not after all ends where the limit is.
  ASSERT_TRUE(keys.SetLimits({.tenant = "acme", .disk_bytes = 150000}).ok());
  const std::string ingest(json::parse(As(anna, "POST", {"v1", "memories", "full", "documents"},
                                          PlainText(60000, 2), "text/plain", {{"name", "a"}})
                                           .body)
                               .at("id")
                               .as_string());
  json::value job;
  do {
    job = json::parse(As(anna, "GET", {"v1", "ingests", ingest}).body);
  } while (job.at("state") == "queued" || job.at("state") == "running");
  EXPECT_EQ(job.at("state"), "failed");
  EXPECT_THAT(std::string(job.at("error").at("message").as_string()),
              HasSubstr("may have on the disk"));
  uint64_t used = 0;
  for (const auto& file : std::filesystem::recursive_directory_iterator(home_ / "h/tenants/acme"))
    used += file.is_regular_file() ? file.file_size() : 0;
  EXPECT_LE(used, 150000u + 50000u) << "the store's own files come on top";
}

TEST_F(TenantTest, RecallCostsTokensToo) {
  ApiKeys keys(home_ / "h");
  const std::string anna = KeyOf("acme", Scope::kWrite);
  Read(anna, "notes", "a", "One note.");
  ASSERT_TRUE(keys.SetLimits({.tenant = "acme", .tokens_per_day = 50}).ok());
  unsigned status = 200;
  int asked = 0;
  for (; status == 200 && asked < 20; ++asked)
    status = As(anna, "POST", {"v1", "memories", "notes", "recall"},
                R"({"query":"What does the only note of all say?"})")
                 .status;
  EXPECT_EQ(status, 429u);
  EXPECT_GT(asked, 1);
}

TEST_F(ApiTest, LongBodiesAreReadAsShortOnesAre) {
  const std::string padding(100000, ' ');
  EXPECT_EQ(Call(200, "POST", {"v1", "memories", "tales", "recall"},
                 R"({"query":"the number of the elder")" + padding + "}")
                .at("spans")
                .at(0)
                .at("document"),
            "a/b.txt");
  Call(400, "POST", {"v1", "memories", "tales", "recall"}, padding + "[1");
  for (const char* route : {"recall", "ask"}) {
    const std::string name = std::string(route) == "ask" ? "question" : "query";
    const json::value refused = Call(400, "POST", {"v1", "memories", "tales", route},
                                     "{\"" + name + "\":\"" + std::string(70000, 'x') + "\"}");
    EXPECT_THAT(std::string(refused.at("error").at("message").as_string()), HasSubstr(name));
  }
}

TEST(JsonFields, WholeNumbersKeepTheirBounds) {
  const auto read = [](const std::string& number, int64_t low, int64_t high) {
    const Result<int64_t> value =
        IntegerField(*ParseJsonObject("{\"n\":" + number + "}"), "n", low, high, -7);
    return value.ok() ? std::to_string(*value) : value.status().message();
  };
  EXPECT_EQ(read("9223372036854775807", 0, INT64_MAX), "9223372036854775807");
  EXPECT_EQ(read("-9223372036854775808", INT64_MIN, 0), "-9223372036854775808");
  EXPECT_EQ(read("9007199254740993", 0, INT64_MAX), "9007199254740993") << "which no double is";
  EXPECT_EQ(read("1e3", 0, 2000), "1000");
  EXPECT_EQ(read("null", 0, 5), "-7");
  for (const char* bad : {"9223372036854775808", "18446744073709551615", "9.3e18", "1e300",
                          "-1e300", "1e19", "-1", "1.5", "true", "\"7\""}) {
    EXPECT_THAT(read(bad, 0, INT64_MAX), HasSubstr("n: must be")) << bad;
  }
}

}  // namespace
}  // namespace longhold
