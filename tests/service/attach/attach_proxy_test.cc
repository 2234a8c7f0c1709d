// The proxy from a client's request to its reply, with the toy engine behind it and a stand-in for
// llama.cpp's server: OpenAI's shape, whole and as a stream; that the answer is the server's and
// rests on the memory's keys; abstention; and that other requests pass through unchanged.
#include "service/attach/attach_proxy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <thread>

#include "tests/memory/engine_fixture.h"
#include "tests/service/attach/fake_llama.h"

namespace longhold {
namespace {

namespace json = boost::json;
using testing::HasSubstr;
using testing::Not;

class AttachProxyTest : public EngineTest {
 protected:
  void SetUp() override {
    RecallProfile profile = Profile();
    profile.heads.clear();
    profile.abstain_found = 0.5;
    Restart(AttachedToy(), &profile);
    ASSERT_TRUE(Ingest("tale", Tale()).ok());
  }
  void TearDown() override {
    stop_ = true;
    thread_.reset();
    proxy_.reset();
  }
  void Start(FakeLlamaOptions options = {}) {
    fake_ = std::make_unique<FakeLlama>(std::move(options));
    auto server = LlamaServer::Connect(fake_->address(), fake_->directory(), *model_);
    ASSERT_TRUE(server.ok()) << server.status().ToString();
    server_ = std::move(*server);
    proxy_ = std::make_unique<AttachProxy>(
        engine_.get(), server_.get(),
        AttachOptions{.model = "toy", .memory = "tales", .note = [](std::string_view) {}});
    auto front = HttpServer::Listen({}, [this](const HttpRequest& h) { return proxy_->Admit(h); });
    ASSERT_TRUE(front.ok());
    front_ = std::move(*front);
    thread_ = std::make_unique<JoinedThread>([this] {
      front_->Run(&stop_, std::chrono::milliseconds(2000), [this] { proxy_->Stop(); });
    });
  }
  ClientReply Send(const ClientRequest& request) {
    const HttpClient client({.host = "127.0.0.1", .port = front_->port()});
    const Result<ClientReply> reply = client.Send(request);
    EXPECT_TRUE(reply.ok()) << reply.status().ToString();
    return reply.ok() ? *reply : ClientReply{};
  }
  ClientReply Chat(const std::string& question, const std::string& members = "") {
    return Send({.method = "POST",
                 .target = "/v1/chat/completions",
                 .body = R"({"model": "toy", "messages": [{"role": "user", "content": ")" +
                         question + "\"}]" + members + "}"});
  }

  std::unique_ptr<FakeLlama> fake_;
  std::unique_ptr<LlamaServer> server_;
  std::unique_ptr<AttachProxy> proxy_;
  std::unique_ptr<HttpServer> front_;
  std::atomic<bool> stop_{false};
  std::unique_ptr<JoinedThread> thread_;
};

TEST_F(AttachProxyTest, ACompletionIsTheServersAnswerInOpenAisShape) {
  Start();
  const ClientReply reply = Chat(kQuestion, R"(, "reencode": 0, "max_tokens": 50)");
  ASSERT_EQ(reply.status, 200u) << reply.body;
  const json::object body = json::parse(reply.body).get_object();
  EXPECT_EQ(body.at("object"), "chat.completion");
  EXPECT_EQ(body.at("model"), "toy@tales");
  const json::value& choice = body.at("choices").at(0);
  EXPECT_EQ(choice.at("message").at("content"), "It is 7350194.");
  EXPECT_EQ(choice.at("finish_reason"), "stop");
  EXPECT_EQ(body.at("usage").at("completion_tokens").to_number<int>(), 15);
  const json::value& longhold = body.at("longhold");
  EXPECT_FALSE(longhold.at("abstained").get_bool());
  EXPECT_THAT(std::string(longhold.at("citations").at(0).at("text").get_string()),
              HasSubstr("7350194"));
  EXPECT_EQ(longhold.at("server").at("prefix_tokens"), longhold.at("server").at("reused_tokens"));
  EXPECT_EQ(fake_->files(), 0u);
  // What the server got: the needle stands in the restored prefix, and the rest is the question.
  ASSERT_EQ(fake_->restored().size(), 1u);
  const SlotState state = fake_->restored()[0];
  std::string prefix;
  for (const TokenId token : state.tokens) prefix += model_->Piece(token);
  EXPECT_THAT(prefix, HasSubstr("Methuselah is 7350194"));
  EXPECT_EQ(fake_->asked().at("n_predict").to_number<int>(), 50);
}

TEST_F(AttachProxyTest, AStreamHasPiecesThenTheEndWithCitations) {
  Start();
  const ClientReply reply =
      Chat(kQuestion, R"(, "stream": true, "stream_options": {"include_usage": true})");
  ASSERT_EQ(reply.status, 200u) << reply.body;
  EXPECT_EQ(reply.content_type, "text/event-stream");
  std::string text;
  size_t ends = 0, usages = 0;
  EventReader reader([&](std::string_view data) {
    const json::object event = json::parse(data).get_object();
    EXPECT_EQ(event.at("object"), "chat.completion.chunk");
    usages += event.contains("usage") ? 1 : 0;
    if (event.at("choices").get_array().empty()) return;
    const json::object& choice = event.at("choices").at(0).get_object();
    if (choice.at("delta").get_object().contains("content"))
      text += std::string_view(choice.at("delta").at("content").get_string());
    if (!choice.at("finish_reason").is_null()) {
      ++ends;
      EXPECT_FALSE(event.at("longhold").at("citations").get_array().empty());
    }
  });
  reader.Feed(reply.body);
  EXPECT_EQ(text, "It is 7350194.");
  EXPECT_EQ(ends, 1u);
  EXPECT_EQ(usages, 1u);
  EXPECT_TRUE(reply.body.ends_with("data: [DONE]\n\n"));
}

TEST_F(AttachProxyTest, ASlotThatWasTakenIsRestoredOnceMore) {
  Start({.steals = 1});
  const ClientReply reply = Chat(kQuestion);
  ASSERT_EQ(reply.status, 200u) << reply.body;
  EXPECT_TRUE(json::parse(reply.body).at("longhold").at("server").at("restored_again").get_bool());
  EXPECT_EQ(fake_->restored().size(), 2u);
}

TEST_F(AttachProxyTest, AServerThatReadsThePrefixItselfIsAnError) {
  Start({.steals = 100});
  const ClientReply reply = Chat(kQuestion);
  EXPECT_EQ(reply.status / 100, 4u) << reply.body;
  EXPECT_THAT(reply.body, HasSubstr("would not rest on the memory"));
  EXPECT_THAT(reply.body, Not(HasSubstr("7350194")));
  EXPECT_EQ(fake_->files(), 0u);
}

TEST_F(AttachProxyTest, AbstainsWithoutAskingTheServer) {
  Start();
  const ClientReply reply = Chat("Who invented the zeppelin dirigible aviation certificate?");
  ASSERT_EQ(reply.status, 200u) << reply.body;
  const json::object body = json::parse(reply.body).get_object();
  EXPECT_EQ(body.at("choices").at(0).at("message").at("content"), json::string(kAbstention));
  EXPECT_TRUE(body.at("longhold").at("abstained").get_bool());
  EXPECT_TRUE(fake_->restored().empty());
}

TEST_F(AttachProxyTest, RefusesOtherModelsAndMemoriesByName) {
  Start();
  const ClientReply other = Send({.method = "POST",
                                  .target = "/v1/chat/completions",
                                  .body = R"({"model": "gpt@tales", "messages": [
                                      {"role": "user", "content": "Who?"}]})"});
  EXPECT_EQ(other.status, 404u);
  EXPECT_THAT(other.body, HasSubstr("'gpt' is not served here"));
  EXPECT_EQ(Chat("Who?", R"(, "memory": "none")").status, 404u);
  EXPECT_EQ(Chat("Who?", R"(, "memory": "../x")").status, 400u);
}

TEST_F(AttachProxyTest, ListsItsMemoriesAndPassesOtherRequestsOn) {
  Start();
  const ClientReply models = Send({.target = "/v1/models"});
  EXPECT_THAT(models.body, HasSubstr("\"toy@tales\""));
  const ClientReply passed =
      Send({.method = "POST", .target = "/tokenize?x=a%20b", .body = "{\"content\": \"a\"}"});
  EXPECT_EQ(passed.status, 200u);
  EXPECT_THAT(passed.body, HasSubstr("\"path\":\"/tokenize\""));
  EXPECT_THAT(passed.body, HasSubstr("content"));
  EXPECT_EQ(Send({.target = "/teapot"}).status, 418u);
  const ClientReply stream = Send({.method = "POST",
                                   .target = "/completion",
                                   .body = R"({"prompt": [1, 2], "n_predict": 1, "id_slot": 0,
                                               "stream": true})"});
  EXPECT_EQ(stream.content_type, "text/event-stream");
  EXPECT_THAT(stream.body, HasSubstr("\"stop\":true"));
}

TEST_F(AttachProxyTest, ALongStreamComesWholeToASlowClient) {
  Start();
  const HttpClient client({.host = "127.0.0.1", .port = front_->port()});
  std::string all;
  const Result<ClientReply> reply =
      client.Send({.target = "/flood"}, {.on_body = [&](std::string_view piece) {
                    if (all.empty()) std::this_thread::sleep_for(std::chrono::milliseconds(300));
                    all += piece;
                  }});
  ASSERT_TRUE(reply.ok()) << reply.status().ToString();
  EXPECT_EQ(reply->content_type, "text/event-stream");
  EXPECT_EQ(reply->body, "");
  EXPECT_EQ(all.size(), 192u * 65536);
  EXPECT_EQ(std::count(all.begin(), all.end(), 'z'), 192 / 26 * 65528);
}

TEST_F(AttachProxyTest, AClientThatLeavesALongStreamLeavesTheProxyFree) {
  Start();
  const HttpClient client({.host = "127.0.0.1", .port = front_->port()});
  for (int i = 0; i < 5; ++i) {  // one more than the threads that pass requests on
    const Result<ClientReply> reply = client.Send(
        {.target = "/flood"}, {.on_body = [](std::string_view) {}, .stop = [] { return true; }});
    EXPECT_EQ(reply.status().code(), StatusCode::kCancelled);
  }
  EXPECT_EQ(Send({.target = "/teapot"}).status, 418u);
}

TEST_F(AttachProxyTest, ManyClientsAtOnceEachGetTheirOwnAnswer) {
  FakeLlamaOptions options{.slots = 3};
  options.layout.streams = 3;
  Start(options);
  std::atomic<int> right{0};
  {
    std::vector<std::unique_ptr<JoinedThread>> clients;
    for (int i = 0; i < 6; ++i) {
      clients.push_back(std::make_unique<JoinedThread>([&] {
        const ClientReply reply = Chat(kQuestion);
        right += reply.status == 200 && reply.body.find("It is 7350194.") != std::string::npos;
      }));
    }
  }
  EXPECT_EQ(right, 6);
  EXPECT_EQ(fake_->restored().size(), 6u);
  EXPECT_EQ(fake_->files(), 0u);
}

}  // namespace
}  // namespace longhold
