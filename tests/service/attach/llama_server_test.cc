// LlamaServer against a stand-in that keeps slots as llama.cpp's server does: what Connect learns
// and what it refuses, each with the next step; that a prefix is restored and checked; that no file
// stays behind.
#include "service/attach/llama_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <atomic>

#include "service/server/http_text.h"
#include "tests/service/attach/fake_llama.h"

namespace longhold {
namespace {

using testing::HasSubstr;

Result<std::unique_ptr<LlamaServer>> Connect(const FakeLlama& fake, ToyModel& model) {
  return LlamaServer::Connect(fake.address(), fake.directory(), model);
}

void ExpectRefusal(FakeLlamaOptions options, StatusCode code, const std::string& step) {
  FakeLlama fake(std::move(options));
  ToyModel model(AttachedToy());
  const auto server = Connect(fake, model);
  EXPECT_EQ(server.status().code(), code) << server.status().ToString();
  EXPECT_THAT(server.status().message(), HasSubstr(step));
  EXPECT_EQ(fake.files(), 0u);
}

TEST(LlamaServer, LearnsTheLayoutFromASavedSlot) {
  for (const uint32_t version : {3u, 4u}) {
    FakeLlamaOptions options{.slots = 2};
    options.layout.version = version;
    options.layout.streams = 2;
    options.layout.values_transposed = version == 3;
    FakeLlama fake(options);
    ToyModel model(AttachedToy());
    const auto server = Connect(fake, model);
    ASSERT_TRUE(server.ok()) << server.status().ToString();
    EXPECT_EQ((*server)->layout().version, version);
    EXPECT_EQ((*server)->layout().values_transposed, version == 3);
    EXPECT_EQ((*server)->slots(), 2u);
    EXPECT_EQ((*server)->context_tokens(), 4096u);
    EXPECT_EQ((*server)->difference(), 0.0);
    EXPECT_EQ(fake.files(), 0u);
  }
}

TEST(LlamaServer, SlotsOfASharedCacheDivideItsContext) {
  FakeLlama fake({.slots = 4, .context_tokens = 4096});
  ToyModel model(AttachedToy());
  const auto server = Connect(fake, model);
  ASSERT_TRUE(server.ok()) << server.status().ToString();
  EXPECT_EQ((*server)->slots(), 2u);
  EXPECT_EQ((*server)->context_tokens(), 2048u);
}

TEST(LlamaServer, RefusesWhatItCannotAnswerWithAndNamesTheNextStep) {
  ExpectRefusal({.saves_slots = false}, StatusCode::kFailedPrecondition, "--slot-save-path DIR");
  ExpectRefusal({.needs_key = true}, StatusCode::kFailedPrecondition, "without --api-key");
  ExpectRefusal({.saves_here = false}, StatusCode::kFailedPrecondition, "--slot-dir");
  FakeLlamaOptions other;
  other.model.seed = 43;
  ExpectRefusal(other, StatusCode::kFailedPrecondition, "has other weights");
  other = {};
  other.model.geometry.layers = {0, 1};
  other.model.geometry.rope.pop_back();
  ExpectRefusal(other, StatusCode::kFailedPrecondition, "2 layers with 16 elements a key");
  other = {};
  other.layout.version = 5;
  ExpectRefusal(other, StatusCode::kUnimplemented, "version 5");
}

TEST(LlamaServer, SaysHowToStartAServerThatIsNotThere) {
  HttpAddress nobody{.host = "127.0.0.1"};
  {
    FakeLlama fake({});
    nobody.port = fake.address().port;
  }
  ToyModel model(AttachedToy());
  const TempDir directory;
  const auto server = LlamaServer::Connect(nobody, directory / "", model);
  EXPECT_EQ(server.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(server.status().message(), HasSubstr("llama-server -m MODEL.gguf --slot-save-path"));
  const auto no_directory = LlamaServer::Connect(nobody, directory / "none", model);
  EXPECT_EQ(no_directory.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(no_directory.status().message(), HasSubstr("--slot-dir"));
}

class LlamaAnswer : public testing::Test {
 protected:
  void Start(FakeLlamaOptions options) {
    fake_ = std::make_unique<FakeLlama>(std::move(options));
    auto server = Connect(*fake_, model_);
    ASSERT_TRUE(server.ok()) << server.status().ToString();
    server_ = std::move(*server);
    own_ = *ReadKeyValues(model_, std::span(tokens_).first(4));
  }
  Result<ServerAnswer> Ask(const std::function<bool()>& stop = {}) {
    return AskSlot(
        0, [this](std::string_view piece) { shown_ += piece; }, stop);
  }
  Result<ServerAnswer> AskSlot(uint32_t slot,
                               const std::function<void(std::string_view)>& on_text = {},
                               const std::function<bool()>& stop = {}) {
    return server_->Answer({.slot = slot,
                            .tokens = tokens_,
                            .prefix_tokens = 4,
                            .answer_tokens_max = 9,
                            .sampling = R"({"temperature": 0})"},
                           {.tokens = std::span(tokens_).first(4),
                            .copy =
                                [this](uint32_t layer, uint16_t* keys, uint16_t* values) {
                                  std::copy(own_.keys[layer].begin(), own_.keys[layer].end(), keys);
                                  std::copy(own_.values[layer].begin(), own_.values[layer].end(),
                                            values);
                                }},
                           on_text, stop);
  }

  ToyModel model_{AttachedToy()};
  std::vector<TokenId> tokens_{256, 'a', 'b', 'c', 'd', 'e'};
  TokenKeyValues own_;
  std::unique_ptr<FakeLlama> fake_;
  std::unique_ptr<LlamaServer> server_;
  std::string shown_;
};

TEST_F(LlamaAnswer, RestoresThePrefixAndAsksForTheRest) {
  Start({});
  const Result<ServerAnswer> answer = Ask();
  ASSERT_TRUE(answer.ok()) << answer.status().ToString();
  EXPECT_EQ(answer->text, " It is 7350194.");
  EXPECT_EQ(shown_, answer->text);
  EXPECT_EQ(answer->reused_tokens, 4u);
  EXPECT_EQ(answer->tokens, 15u);
  EXPECT_FALSE(answer->cut);
  ASSERT_EQ(fake_->restored().size(), 1u);
  const SlotState state = fake_->restored()[0];
  EXPECT_THAT(state.tokens, testing::ElementsAre(256, 'a', 'b', 'c'));
  EXPECT_EQ(fake_->asked().at("n_predict").to_number<int>(), 9);
  EXPECT_EQ(fake_->asked().at("temperature").to_number<double>(), 0.0);
  EXPECT_EQ(fake_->asked().at("prompt").get_array().size(), 6u);
  EXPECT_EQ(fake_->files(), 0u);
}

TEST_F(LlamaAnswer, APrefixThatTheServerReadItselfIsAnErrorAndNothingIsShown) {
  Start({.steals = 1});
  const Result<ServerAnswer> answer = Ask();
  EXPECT_EQ(answer.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(answer.status().message(), HasSubstr("reused 0 of the 4 recalled tokens"));
  EXPECT_EQ(shown_, "");
  EXPECT_EQ(fake_->files(), 0u);
  EXPECT_TRUE(Ask().ok()) << "the next one is not disturbed";
}

// Both ways in which one answer could take the slot of another between its restore and its
// completion: longhold made room, and a newer server clears idle slots. Ten answers of each of four
// clients: without the lock, nearly every run loses some.
TEST_F(LlamaAnswer, SlotsOfASharedCacheDoNotDisturbEachOther) {
  for (const bool clears : {false, true}) {
    Start({.slots = 4, .context_tokens = 8192, .clears_idle_slots = clears});
    ASSERT_EQ(server_->slots(), 4u);
    std::atomic<int> right{0};
    {
      std::vector<std::unique_ptr<JoinedThread>> clients;
      for (uint32_t slot = 0; slot < 4; ++slot) {
        clients.push_back(std::make_unique<JoinedThread>([this, slot, &right] {
          for (int i = 0; i < 10; ++i) {
            const Result<ServerAnswer> answer = AskSlot(slot);
            EXPECT_TRUE(answer.ok()) << answer.status().ToString();
            right += answer.ok() && answer->reused_tokens == 4 ? 1 : 0;
          }
        }));
      }
    }
    EXPECT_EQ(right, 40) << "clears " << clears;
    EXPECT_EQ(fake_->files(), 0u);
  }
}

TEST_F(LlamaAnswer, ASharedCacheThatOthersFilledIsMadeFree) {
  Start({.slots = 2, .context_tokens = 4096});
  std::string prompt = "[1";
  for (int i = 1; i < 4094; ++i) prompt += ",1";
  const auto filled = server_->client().Send(
      {.method = "POST",
       .target = "/completion",
       .body = R"({"n_predict": 0, "id_slot": 1, "prompt": )" + prompt + "]}"});
  ASSERT_TRUE(filled.ok()) << filled.status().ToString();
  const Result<ServerAnswer> answer = Ask();
  ASSERT_TRUE(answer.ok()) << answer.status().ToString();
  EXPECT_EQ(answer->reused_tokens, 4u);
}

TEST_F(LlamaAnswer, AClientThatHangsUpEndsTheCall) {
  Start({});
  const Result<ServerAnswer> answer = Ask([] { return true; });
  EXPECT_EQ(answer.status().code(), StatusCode::kCancelled) << answer.status().ToString();
  EXPECT_EQ(fake_->files(), 0u);
}

TEST(SlotFileOnDisk, IsGoneWithItsOwnerAndSoAreThoseOfDeadProcesses) {
  const TempDir directory;
  const std::string path = directory / "";
  std::string left;
  {
    const Result<SlotFile> file = SlotFile::Write(path, "bytes");
    ASSERT_TRUE(file.ok()) << file.status().ToString();
    EXPECT_EQ(ReadWholeFile(file->path()), "bytes");
    EXPECT_EQ(SlotFile::Sweep(path), 0u) << "its process lives";
    left = file->path();
  }
  EXPECT_FALSE(std::filesystem::exists(left));
  const pid_t child = fork();
  if (child == 0) {
    const Result<SlotFile> file = SlotFile::Write(path, "bytes");
    _exit(file.ok() ? 0 : 1);  // as after a kill -9: no destructor runs
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  std::ofstream(directory / "other.bin") << "kept";
  EXPECT_EQ(SlotFile::Sweep(path), 1u);
  EXPECT_TRUE(std::filesystem::exists(directory / "other.bin"));
}

TEST(EventReader, CutsEventsHoweverTheBytesAreCut) {
  const std::string stream = "data: {\"a\":1}\r\n\r\n: ping\n\ndata:{\"b\":2}\n\ndata: [DONE]\n\n";
  for (size_t cut = 1; cut <= stream.size(); ++cut) {
    std::vector<std::string> data;
    EventReader reader([&](std::string_view piece) { data.emplace_back(piece); });
    for (size_t at = 0; at < stream.size(); at += cut)
      reader.Feed(std::string_view(stream).substr(at, cut));
    ASSERT_THAT(data, testing::ElementsAre("{\"a\":1}", "{\"b\":2}")) << cut;
  }
}

TEST(HttpUrl, IsReadInItsParts) {
  const Result<HttpAddress> full = ParseHttpUrl("http://localhost:8080/llama/");
  ASSERT_TRUE(full.ok());
  EXPECT_EQ(full->host, "localhost");
  EXPECT_EQ(full->port, 8080);
  EXPECT_EQ(full->prefix, "/llama");
  EXPECT_EQ(ParseHttpUrl("http://[::1]:9")->Url(), "http://[::1]:9");
  EXPECT_EQ(ParseHttpUrl("http://host")->port, 80);
  for (const char* bad : {"https://host", "host:80", "http://", "http://host:x", "http://a@b",
                          "http://host:0", "http://host:99999"})
    EXPECT_EQ(ParseHttpUrl(bad).status().code(), StatusCode::kInvalidArgument) << bad;
}

TEST(HttpTargets, AreReadAsTheyWereFormatted) {
  const std::vector<std::string> path = {"v1", "a/b", "100% \xc3\xa4?#&=+~", "."};
  const std::map<std::string, std::string> query = {{"x y", "1+1=2&"}, {"empty", ""}};
  const std::string target = FormatTarget(path, query);
  EXPECT_EQ(target, "/v1/a%2Fb/100%25%20%C3%A4%3F%23%26%3D%2B~/.?empty=&x%20y=1%2B1%3D2%26");
  const std::optional<HttpTarget> parsed = ParseTarget(target);
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->path, path);
  EXPECT_EQ(parsed->query, query);
  EXPECT_EQ(FormatTarget({}, {}), "/");
}

}  // namespace
}  // namespace longhold
