// The API over the toy model: what goes in and out in bulk. Exports and imports of a memory,
// uploads in parts, and files below the root for documents.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "service/server/api.h"
#include "service/server/api_keys.h"
#include "tests/service/server/api_fixture.h"

namespace longhold {
namespace {

namespace json = boost::json;
using api_fixture::Api;
using api_fixture::ApiTest;
using api_fixture::HeaderOf;
using api_fixture::Recorder;

TEST_F(ApiTest, CopiesAMemoryOutAndIn) {
  const auto exported = Start("GET", {"v1", "memories", "tales", "export"});
  const std::string bytes = exported->Stream();
  EXPECT_EQ(exported->Reply().content_type, "application/octet-stream");
  EXPECT_GT(bytes.size(), 10000u);
  const HttpReply made =
      Start("POST", {"v1", "memories", "copy", "import"}, bytes, "application/octet-stream")
          ->Reply();
  EXPECT_EQ(made.status, 201u) << made.body;
  EXPECT_EQ(json::parse(made.body).at("memory"), "copy");
  EXPECT_EQ(Call(200, "POST", {"v1", "memories", "copy", "recall"},
                 R"({"query":"the number of the elder"})")
                .at("spans")
                .at(0)
                .at("document"),
            "a/b.txt");
  EXPECT_EQ(Call(200, "POST", {"v1", "memories", "copy", "verify"}).at("ok"), true);
  Call(409, "POST", {"v1", "memories", "copy", "import"}, bytes, "application/octet-stream");
  // Cut, changed, or none at all: nothing is kept.
  std::string changed = bytes;
  changed[bytes.size() / 2] = static_cast<char>(changed[bytes.size() / 2] ^ 1);
  for (const std::string& bad : {bytes.substr(0, bytes.size() - 1), bytes.substr(0, 7),
                                 std::string("no export"), std::string(), changed}) {
    Call(400, "POST", {"v1", "memories", "bad", "import"}, bad, "application/octet-stream");
    Call(404, "GET", {"v1", "memories", "bad"});
  }
  Call(400, "POST", {"v1", "memories", "bad", "import"}, bytes, "text/plain");
  Call(404, "POST", {"v1", "memories", "none", "verify"});
  Call(404, "GET", {"v1", "memories", "none", "export"});
  const auto head = std::make_shared<Recorder>();
  api_->Handle({.method = "GET",
                .head_only = true,
                .path = {"v1", "memories", "tales", "export"},
                .query = {},
                .content_type = "",
                .authorization = "",
                .body = ""},
               head);
  EXPECT_EQ(head->Stream(), "") << "nothing is read that nobody sees";
  EXPECT_EQ(head->Reply().content_type, "application/octet-stream");
  // Who goes away does not keep a thread.
  const auto left = std::make_shared<Recorder>();
  left->gone_ = true;
  api_->Handle({.method = "GET",
                .path = {"v1", "memories", "tales", "export"},
                .query = {},
                .content_type = "",
                .authorization = "",
                .body = ""},
               left);
  EXPECT_EQ(Call(200, "POST", {"v1", "memories", "tales", "verify"}).at("ok"), true);
}

TEST_F(ApiTest, TellsWhatIsDamaged) {
  queue_->Stop();
  queue_.reset();  // so that nobody has the files open
  size_t spoiled = 0;
  for (const auto& file : std::filesystem::directory_iterator(home_ / "h/memories/tales")) {
    if (file.path().extension() != ".blob" && file.path().extension() != ".log") continue;
    std::fstream bytes(file.path(), std::ios::in | std::ios::out | std::ios::binary);
    const auto middle = static_cast<std::streamoff>(file.file_size() / 2);
    for (int i = 0; i < 64; ++i) {
      bytes.seekp(middle + i);
      bytes.put('!');
    }
    ++spoiled;
  }
  ASSERT_GT(spoiled, 0u);
  const json::value verified = Call(200, "POST", {"v1", "memories", "tales", "verify"});
  EXPECT_EQ(verified.at("ok"), false) << verified;
  EXPECT_EQ(verified.at("error").at("code"), "data_loss");
  EXPECT_EQ(json::serialize(verified).find(home_ / "h"), std::string::npos);
}

TEST_F(ApiTest, TakesUploadsInParts) {
  const std::string text = "The date is Friday, and the colour of the door is green.";
  const HttpReply made = SendPart("POST", {"v1", "uploads"}, "", std::to_string(text.size()), "");
  EXPECT_EQ(made.status, 201u) << made.body;
  const std::string id(json::parse(made.body).at("id").as_string());
  EXPECT_EQ(HeaderOf(made, "Location"), "/v1/uploads/" + id);
  EXPECT_EQ(HeaderOf(made, "Tus-Resumable"), "1.0.0");
  EXPECT_EQ(SendPart("PATCH", {"v1", "uploads", id}, "0", "", text.substr(0, 10)).status, 204u);
  EXPECT_EQ(SendPart("PATCH", {"v1", "uploads", id}, "0", "", text.substr(0, 10)).status, 409u)
      << "it is there already";
  EXPECT_EQ(SendPart("PATCH", {"v1", "uploads", id}, "11", "", "x").status, 409u)
      << "something is missing before it";
  EXPECT_EQ(SendPart("PATCH", {"v1", "uploads", id}, "10", "", text).status, 400u)
      << "longer than it was to be";
  EXPECT_EQ(SendPart("PATCH", {"v1", "uploads", id}, "1x", "", "x").status, 400u);
  EXPECT_EQ(SendPart("PATCH", {"v1", "uploads", id}, "-1", "", "x").status, 400u);
  EXPECT_EQ(SendPart("PATCH", {"v1", "uploads", std::string(32, '0')}, "0", "", "x").status, 404u);
  EXPECT_EQ(SendPart("PATCH", {"v1", "uploads", "../keys.json"}, "0", "", "x").status, 404u);
  const std::string use = R"({"name":"door.txt","upload":")" + id + "\"}";
  EXPECT_EQ(Start("POST", {"v1", "memories", "doors", "documents"}, use)->Reply().status, 409u)
      << "not whole";
  // A server that began anew knows it still.
  Api later(queue_.get(), &jobs_, &readers_, &metrics_,
            ApiOptions{.model = "toy",
                       .home = home_ / "h",
                       .stores = &engine_.stores(),
                       .without_keys = Scope::kAdmin,
                       .note = [](std::string_view) {}});
  const auto shown = std::make_shared<Recorder>();
  later.Handle({.method = "GET",
                .path = {"v1", "uploads", id},
                .query = {},
                .content_type = "",
                .authorization = "",
                .body = ""},
               shown);
  EXPECT_EQ(HeaderOf(shown->Reply(), "Upload-Offset"), "10");
  EXPECT_EQ(HeaderOf(SendPart("PATCH", {"v1", "uploads", id}, "10", "", text.substr(10)),
                     "Upload-Offset"),
            std::to_string(text.size()));
  EXPECT_EQ(
      Call(200, "GET", {"v1", "uploads"}).at("uploads").at(0).at("offset").to_number<size_t>(),
      text.size());
  EXPECT_EQ(
      WaitForIngest(std::string(Call(202, "POST", {"v1", "memories", "doors", "documents"}, use)
                                    .at("id")
                                    .as_string()))
          .at("state"),
      "done");
  EXPECT_EQ(Call(200, "GET", {"v1", "memories", "doors"}).at("documents").at(0).at("name"),
            "door.txt");
  Call(404, "GET", {"v1", "uploads", id});
  EXPECT_TRUE(Call(200, "GET", {"v1", "uploads"}).at("uploads").as_array().empty())
      << "it was used";
}

TEST_F(ApiTest, ImportsAMemoryFromAnUpload) {
  const std::string bytes = Start("GET", {"v1", "memories", "tales", "export"})->Stream();
  const std::string memory(
      Call(201, "POST", {"v1", "uploads"}, R"({"length":)" + std::to_string(bytes.size()) + "}")
          .at("id")
          .as_string());
  for (size_t at = 0; at < bytes.size(); at += 20000)
    EXPECT_EQ(SendPart("PATCH", {"v1", "uploads", memory}, std::to_string(at), "",
                       bytes.substr(at, 20000))
                  .status,
              204u);
  EXPECT_EQ(
      Call(201, "POST", {"v1", "memories", "again", "import"}, R"({"upload":")" + memory + "\"}")
          .at("memory"),
      "again");
}

TEST_F(ApiTest, DropsAndRefusesUploads) {
  const std::string dropped(
      Call(201, "POST", {"v1", "uploads"}, R"({"length":5})").at("id").as_string());
  EXPECT_EQ(Start("DELETE", {"v1", "uploads", dropped})->Reply().status, 204u);
  Call(404, "DELETE", {"v1", "uploads", dropped});
  EXPECT_EQ(SendPart("POST", {"v1", "uploads"}, "", "0", "").status, 400u);
  EXPECT_EQ(SendPart("POST", {"v1", "uploads"}, "", "99999999999999999999", "").status, 400u);
  Call(400, "POST", {"v1", "uploads"}, "{}");
  // Text that is none.
  const std::string binary(
      Call(201, "POST", {"v1", "uploads"}, R"({"length":2})").at("id").as_string());
  EXPECT_EQ(SendPart("PATCH", {"v1", "uploads", binary}, "0", "", std::string("a\0", 2)).status,
            204u);
  Call(400, "POST", {"v1", "memories", "doors", "documents"},
       R"({"name":"b","upload":")" + binary + "\"}");
  Call(400, "POST", {"v1", "memories", "doors", "documents"},
       R"({"name":"b","text":"both","upload":")" + binary + "\"}");
}

TEST_F(ApiTest, ReadsFilesBeneathTheRootAndNoOthers) {
  namespace fs = std::filesystem;
  fs::create_directories(home_ / "root/sub");
  fs::create_directories(home_ / "h/secret");
  std::ofstream(home_ / "root/sub/a.txt") << "The bridge is blue.";
  std::ofstream(home_ / "h/secret/key.txt") << "The canary sings.";
  fs::create_symlink(home_ / "h/secret/key.txt", home_ / "root/out.txt");
  fs::create_symlink(home_ / "h/secret", home_ / "root/away");
  fs::create_symlink("sub/a.txt", home_ / "root/in.txt");
  ASSERT_EQ(mkfifo(std::string(home_ / "root/pipe").c_str(), 0600), 0);
  // without a root
  Call(400, "POST", {"v1", "memories", "files", "documents"}, R"({"path":"sub/a.txt"})");
  Api api(queue_.get(), &jobs_, &readers_, &metrics_,
          ApiOptions{.model = "toy",
                     .home = home_ / "h",
                     .stores = &engine_.stores(),
                     .ingest_root = home_ / "root",
                     .without_keys = Scope::kAdmin,
                     .note = [](std::string_view) {}});
  const auto send = [&](const std::string& path, const std::string& key = "") {
    const auto recorder = std::make_shared<Recorder>();
    api.Handle({.method = "POST",
                .path = {"v1", "memories", "files", "documents"},
                .query = {},
                .content_type = "application/json",
                .authorization = key,
                .body = R"({"path":")" + path + "\"}"},
               recorder);
    const HttpReply reply = recorder->Reply();
    EXPECT_EQ(reply.body.find("canary"), std::string::npos);
    EXPECT_EQ(reply.body.find(home_ / "root"), std::string::npos) << reply.body;
    return reply;
  };
  const HttpReply good = send("sub/a.txt");
  EXPECT_EQ(good.status, 202u) << good.body;
  EXPECT_EQ(WaitForIngest(std::string(json::parse(good.body).at("id").as_string())).at("document"),
            "sub/a.txt");
  EXPECT_EQ(send("in.txt").status, 202u) << "a link that stays beneath";
  for (const char* path : {"../h/secret/key.txt", "/etc/passwd", "out.txt", "away/key.txt",
                           "sub/../../h/secret/key.txt", "sub", "pipe"})
    EXPECT_EQ(send(path).status, 400u) << path;
  EXPECT_EQ(send("sub/none.txt").status, 404u);
  const std::string key =
      *ApiKeys(home_ / "h").Add("anna", Scope::kAdmin, UnixSeconds(), 0, "acme");
  EXPECT_EQ(send("sub/a.txt", "Bearer " + key).status, 403u) << "of the operator alone";
}

}  // namespace
}  // namespace longhold
