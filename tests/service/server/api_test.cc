// The API over the toy model: every route, what each refuses, and what a client gets to see. The
// wire itself is the server's test.
#include "service/server/api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cmath>
#include <fstream>
#include <future>
#include <mutex>
#include <sstream>

#include "base/clock.h"
#include "base/utf8.h"
#include "memory/model/text_embedder.h"
#include "tests/service/server/api_fixture.h"
#include "tests/support/queue_driver.h"

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

TEST_F(ApiTest, TellsHowItIs) {
  EXPECT_EQ(Call(200, "GET", {"healthz"}).at("status"), "ok");
  EXPECT_EQ(Call(200, "GET", {"readyz"}).at("status"), "ready");
  api_->Drain();
  Call(503, "GET", {"readyz"});
  EXPECT_EQ(Call(200, "GET", {"healthz"}).at("status"), "ok");
  const json::value models = Call(200, "GET", {"v1", "models"});
  EXPECT_EQ(models.at("data").at(0).at("id"), "toy");
  EXPECT_EQ(models.at("data").at(1).at("id"), "toy@tales");
}

TEST_F(ApiTest, EveryRouteRefusesOtherMethodsAndOtherPathsAreNotFound) {
  for (const ApiRoute& route : Api::Routes()) {
    std::vector<std::string> path = PathOf(route, "{x}");
    const HttpReply reply = Start("PUT", path)->Reply();
    EXPECT_EQ(reply.status, 405u) << route.path;
    ASSERT_EQ(reply.headers.size(), 1u);
    EXPECT_THAT(reply.headers[0].second, HasSubstr(std::string(route.method)));
    path.push_back("more");
    if (route.path != "/v1/memories" && route.path != "/v1/ingests" &&
        route.path != "/v1/uploads" && route.path != "/v1/memories/{memory}/documents") {
      EXPECT_EQ(Start("GET", path)->Reply().status, 404u) << route.path;
    }
  }
  Call(404, "GET", {});
  Call(404, "GET", {"v1"});
}

// The routes and what docs/openapi.json says of them, in both directions.
TEST(OpenApi, DescribesTheRoutesAndNoOthers) {
  std::stringstream text;
  text << std::ifstream(std::string(LONGHOLD_SOURCE_DIR) + "/docs/openapi.json").rdbuf();
  const json::value document = json::parse(text.str());
  std::map<std::string, std::string> described, served;  // method and path: scope
  for (const auto& [path, methods] : document.at("paths").as_object()) {
    for (const auto& [method, operation] : methods.as_object()) {
      std::string upper(method);
      for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
      described[upper + " " + std::string(path)] = operation.at("x-scope").as_string();
      EXPECT_EQ(operation.as_object().contains("security"), operation.at("x-scope") == "none")
          << path;
      if (operation.at("x-scope") != "none") {
        EXPECT_TRUE(operation.at("responses").as_object().contains("401")) << path;
      }
    }
  }
  for (const ApiRoute& route : Api::Routes())
    served[std::string(route.method) + " " + std::string(route.path)] = ScopeName(route.scope);
  EXPECT_EQ(described, served);
}

TEST_F(ApiTest, AnswersAChatFromAMemory) {
  const json::value reply = Call(200, "POST", {"v1", "chat", "completions"}, kChat);
  EXPECT_EQ(reply.at("model"), "toy@tales");
  EXPECT_EQ(reply.at("choices").at(0).at("message").at("content"), "It is seven.\nEND of it.");
  EXPECT_EQ(reply.at("longhold").at("citations").at(0).at("document"), "a/b.txt");
  const json::value stopped =
      Call(200, "POST", {"v1", "chat", "completions"}, With(kChat, R"("stop":["END"])"));
  EXPECT_EQ(stopped.at("choices").at(0).at("message").at("content"), "It is seven.");
  EXPECT_EQ(stopped.at("choices").at(0).at("finish_reason"), "stop");
  EXPECT_LT(stopped.at("usage").at("completion_tokens").as_int64(),
            reply.at("usage").at("completion_tokens").as_int64())
      << "it was not generated either";
  const json::value text = Call(
      200, "POST", {"v1", "completions"},
      R"({"model":"toy","memory":"tales","prompt":"What is it?","max_tokens":3,"abstain":false})");
  EXPECT_EQ(text.at("object"), "text_completion");
  EXPECT_EQ(text.at("choices").at(0).at("finish_reason"), "length");
}

TEST_F(ApiTest, TellsHowLikelyItsTokensWere) {
  const json::value reply = Call(200, "POST", {"v1", "chat", "completions"},
                                 With(kChat, R"("logprobs":true,"top_logprobs":4)"));
  const json::array& content = reply.at("choices").at(0).at("logprobs").at("content").as_array();
  EXPECT_EQ(content.size(), reply.at("usage").at("completion_tokens").to_number<size_t>());
  for (const json::value& token : content) {
    const json::array& top = token.at("top_logprobs").as_array();
    ASSERT_EQ(top.size(), 4u);
    double share = 0, before = 0;
    for (const json::value& one : top) {
      const double log = one.at("logprob").to_number<double>();
      EXPECT_LE(log, before);
      before = log;
      share += std::exp(log);
    }
    EXPECT_LE(share, 1 + 1e-6);
    EXPECT_LE(token.at("logprob").to_number<double>(), top[0].at("logprob").to_number<double>());
  }
  const std::string stream =
      Start("POST", {"v1", "chat", "completions"}, With(kChat, R"("logprobs":true,"stream":true)"))
          ->Stream();
  EXPECT_NE(stream.find(R"("logprobs":{"content":[{)"), std::string::npos);
}

TEST_F(ApiTest, StreamsWhatItAnswersOtherwise) {
  const std::string stream =
      Start("POST", {"v1", "chat", "completions"}, With(kChat, R"("stream":true,"stop":"END")"))
          ->Stream();
  std::string text;
  size_t events = 0;
  for (size_t at = 0; (at = stream.find("data: {", at)) != std::string::npos; ++events) {
    const size_t end = stream.find("\n\n", at);
    const json::value chunk = json::parse(stream.substr(at + 6, end - at - 6));
    if (const json::value* content =
            chunk.at("choices").at(0).at("delta").as_object().if_contains("content"))
      text += content->as_string();
    at = end;
  }
  EXPECT_EQ(text, "It is seven.");
  EXPECT_GT(events, 3u);
  EXPECT_TRUE(stream.ends_with("data: [DONE]\n\n"));
}

TEST_F(ApiTest, ASessionBecomesMemory) {
  const std::string asked =
      R"({"model":"toy","memory":"diary","session":"anna","messages":[{"role":"user","content":"My cat is Mog."}]})";
  const json::value first = Call(200, "POST", {"v1", "chat", "completions"}, asked);
  EXPECT_EQ(first.at("choices").at(0).at("message").at("content"), "It is seven.\nEND of it.")
      << "the model answers, though the memory was not there";
  Call(200, "POST", {"v1", "chat", "completions"}, With(asked, R"("stream":false)"));
  const json::value documents = Call(200, "GET", {"v1", "memories", "diary"}).at("documents");
  ASSERT_EQ(documents.as_array().size(), 2u)
      << documents << ": the opening, and the turn, which was said twice";
  EXPECT_EQ(documents.at(0).at("name"), "session/anna/0");
  const json::value spans = Call(200, "POST", {"v1", "memories", "diary", "recall"},
                                 R"({"query":"cat Mog","abstain":false})")
                                .at("spans");
  EXPECT_EQ(spans.at(0).at("text"), "User: My cat is Mog.\nAssistant: It is seven.\nEND of it.\n");
  Call(400, "POST", {"v1", "chat", "completions"}, With(asked, R"("session":7)"));
  Call(400, "POST", {"v1", "chat", "completions"},
       With(asked, "\"session\":\"" + std::string(201, 's') + "\""));
}

TEST_F(ApiTest, SessionsAreAnsweredSideBySide) {
  SharedModel shared(&model_);
  RecallProfile profile;
  profile.name = "toy";
  profile.rerank_spans = 0;
  queue_.reset();
  ASSERT_TRUE(engine_.UseModel(&shared, &profile).ok());
  queue_ = std::make_unique<EngineQueue>(&engine_, EngineQueueOptions{.model = &shared});
  Api api(queue_.get(), &jobs_, &readers_, &metrics_,
          ApiOptions{.model = "toy",
                     .fingerprint = model_.info().fingerprint,
                     .home = home_ / "h",
                     .stores = &engine_.stores(),
                     .without_keys = Scope::kAdmin,
                     .note = [](std::string_view) {}});
  const auto go = HoldQueue(*queue_);
  std::vector<std::shared_ptr<Recorder>> recorders;
  for (int i = 0; i < 12; ++i) {
    recorders.push_back(std::make_shared<Recorder>());
    const std::string name = i < 6 ? "diary" : "diary-" + std::to_string(i);
    const std::string body =
        R"({"model":"toy","memory":")" + name + R"(","session":"s)" + std::to_string(i) +
        R"(","stream":)" + (i % 2 == 0 ? "true" : "false") +
        R"(,"messages":[{"role":"user","content":"My cat is Mog )" + std::to_string(i) + R"(."}]})";
    api.Handle({.method = "POST",
                .path = {"v1", "chat", "completions"},
                .query = {},
                .content_type = "application/json",
                .authorization = "",
                .body = body},
               recorders.back());
  }
  go->set_value();
  for (size_t i = 0; i < recorders.size(); ++i) {
    const HttpReply reply = recorders[i]->Reply();
    if (i % 2 == 0) {
      EXPECT_TRUE(recorders[i]->Stream().ends_with("data: [DONE]\n\n"))
          << recorders[i]->Stream() << reply.body;
    } else {
      EXPECT_EQ(json::parse(reply.body).at("choices").at(0).at("message").at("content"),
                "It is seven.\nEND of it.")
          << reply.body;
    }
  }
  // Whoever has the reply finds what was said.
  queue_.reset();
  const Result<MemoryInfo> diary = engine_.Show("diary");
  ASSERT_TRUE(diary.ok());
  EXPECT_EQ(diary->documents.size(), 7u) << "an opening, and six turns";
  for (int i = 6; i < 12; ++i) {
    const Result<RecallReply> found =
        engine_.Recall("diary-" + std::to_string(i), "cat Mog", {.abstain = false});
    ASSERT_TRUE(found.ok() && !found->spans.empty());
    EXPECT_THAT(found->spans[0].text, HasSubstr("Mog " + std::to_string(i)));
  }
}

TEST_F(ApiTest, SaysWhatIsWrongWithAQuestion) {
  EXPECT_THAT(Call(404, "POST", {"v1", "chat", "completions"},
                   R"({"model":"gpt-4o","messages":[{"role":"user","content":"x"}]})")
                  .at("error")
                  .at("message")
                  .as_string()
                  .c_str(),
              HasSubstr("'toy'"));
  EXPECT_THAT(Call(400, "POST", {"v1", "chat", "completions"},
                   R"({"model":"toy","messages":[{"role":"user","content":"x"}]})")
                  .at("error")
                  .at("message")
                  .as_string()
                  .c_str(),
              HasSubstr("toy@NAME"));
  Call(404, "POST", {"v1", "chat", "completions"},
       R"({"model":"toy@none","messages":[{"role":"user","content":"x"}]})");
  Call(400, "POST", {"v1", "chat", "completions"},
       R"({"model":"toy@../x","messages":[{"role":"user","content":"x"}]})");
  Call(400, "POST", {"v1", "chat", "completions"},
       R"({"model":"toy@tales","messages":[{"role":"user","content":" "}]})");
  Call(400, "POST", {"v1", "chat", "completions"}, "no JSON");
  // An error comes with its status, also where a stream was asked for.
  EXPECT_EQ(
      Start("POST", {"v1", "chat", "completions"},
            R"({"model":"toy@none","stream":true,"messages":[{"role":"user","content":"x"}]})")
          ->Reply()
          .status,
      404u);
}

TEST_F(ApiTest, RecallsAndAsksAsTheCommandLineDoes) {
  const json::value recalled = Call(200, "POST", {"v1", "memories", "tales", "recall"},
                                    R"({"query":"the number of the elder","spans":2})");
  EXPECT_LE(recalled.at("spans").as_array().size(), 2u);
  EXPECT_EQ(recalled.at("spans").at(0).at("document"), "a/b.txt");
  const json::value near = Call(
      200, "POST", {"v1", "memories", "tales", "ask"},
      R"({"question":"What is the number?","max_tokens":4,"attend":"faithful","attend_share":1})");
  EXPECT_EQ(near.at("citations").at(0).at("reasons").at(0), "attention");
  Call(400, "POST", {"v1", "memories", "tales", "ask"},
       R"({"question":"What is the number?","attend":"native"})");
  const json::value asked =
      Call(200, "POST", {"v1", "memories", "tales", "ask"},
           R"({"question":"What is the number?","max_tokens":4,"abstain":false})");
  EXPECT_EQ(asked.at("usage").at("completion_tokens"), 4);
  Call(400, "POST", {"v1", "memories", "tales", "recall"}, R"({"query":7})");
  Call(400, "POST", {"v1", "memories", "tales", "recall"}, R"({"query":"x","spans":-1})");
  Call(400, "POST", {"v1", "memories", "tales", "ask"}, R"({})");
  Call(404, "POST", {"v1", "memories", "none", "ask"}, R"({"question":"x"})");
}

TEST_F(ApiTest, ReadsDocumentsAndForgetsThem) {
  const HttpReply accepted = Start("POST", {"v1", "memories", "notes", "documents"},
                                   "The date is Friday.", "text/plain", {{"name", "x/y.txt"}})
                                 ->Reply();
  EXPECT_EQ(accepted.status, 202u) << accepted.body;
  const std::string id(json::parse(accepted.body).at("id").as_string());
  EXPECT_EQ(accepted.headers.at(0).second, "/v1/ingests/" + id);
  const json::value done = WaitForIngest(id);
  EXPECT_EQ(done.at("state"), "done");
  EXPECT_EQ(done.at("document"), "x/y.txt");
  const json::value again = Call(202, "POST", {"v1", "memories", "notes", "documents"},
                                 R"({"name":"z","text":"The date is Friday."})");
  const json::value same = WaitForIngest(std::string(again.at("id").as_string()));
  EXPECT_EQ(same.at("unchanged"), true);
  EXPECT_EQ(same.at("document"), "x/y.txt");
  EXPECT_EQ(Call(200, "GET", {"v1", "memories"}).at("memories").as_array().size(), 2u);
  EXPECT_EQ(Call(200, "GET", {"v1", "memories", "notes"}).at("documents").at(0).at("name"),
            "x/y.txt");
  EXPECT_EQ(Call(200, "GET", {"v1", "ingests"}).at("ingests").as_array().size(), 2u);
  Call(409, "DELETE", {"v1", "ingests", id});
  Call(404, "DELETE", {"v1", "ingests", "ingest-99"});
  Call(404, "GET", {"v1", "ingests", "99"});
  Call(404, "DELETE", {"v1", "memories", "notes", "documents", "none"});
  Call(400, "DELETE", {"v1", "memories", "notes", "documents", ""});
  Call(200, "DELETE", {"v1", "memories", "notes", "documents", "z"});
  Call(200, "DELETE", {"v1", "memories", "notes", "documents", "x/y.txt"});
  Call(200, "DELETE", {"v1", "memories", "notes"});
  Call(404, "GET", {"v1", "memories", "notes"});
}

TEST_F(ApiTest, RefusesTextsBeforeTheyAreQueued) {
  const auto refused = [&](const std::string& memory, const std::string& body,
                           const std::string& type, const std::string& name) {
    Call(400, "POST", {"v1", "memories", memory, "documents"}, body, type, {{"name", name}});
  };
  refused(".bad", "text", "text/plain", "a");
  refused("notes", "text", "text/plain", "");
  refused("notes", "text", "text/plain", std::string(1025, 'n'));
  refused("notes", "", "text/plain", "a");
  refused("notes", "a\xff", "text/plain", "a");
  refused("notes", std::string("a\0b", 3), "text/plain", "a");
  refused("notes", "text", "multipart/form-data", "a");
  refused("notes", R"({"name":"a"})", "application/json", "");
  Call(404, "GET", {"v1", "memories", "notes"});
}

TEST_F(ApiTest, MakesMemoriesAndTellsWhereTheirBytesAre) {
  const HttpReply made =
      Start("POST", {"v1", "memories"}, R"({"name":"empty","codec":"exact"})")->Reply();
  EXPECT_EQ(made.status, 201u) << made.body;
  EXPECT_EQ(made.headers.at(0).second, "/v1/memories/empty");
  EXPECT_EQ(json::parse(made.body).at("documents").as_array().size(), 0u);
  EXPECT_EQ(Call(200, "GET", {"v1", "memories", "empty", "tiers"}).at("disk").at("codec"), "exact");
  Call(409, "POST", {"v1", "memories"}, R"({"name":"empty"})");
  Call(400, "POST", {"v1", "memories"}, R"({"name":"../x"})");
  Call(400, "POST", {"v1", "memories"}, R"({"name":"x","codec":"zip"})");
  Call(400, "POST", {"v1", "memories"}, "{}");
  const json::value asked = Call(200, "POST", {"v1", "memories", "empty", "ask"},
                                 R"({"question":"What is the number?"})");
  EXPECT_EQ(asked.at("abstained"), true);
  const json::value tiers = Call(200, "GET", {"v1", "memories", "tales", "tiers"});
  const uint64_t tokens = tiers.at("tokens").to_number<uint64_t>();
  EXPECT_GT(tokens, 500u);
  EXPECT_EQ(tiers.at("exact_bytes").to_number<uint64_t>(), tokens * 2 * 2 * 4 * 2)
      << "two layers, keys and values, a head of four halves";
  uint64_t sum = 0;
  for (const char* part : {"blocks_bytes", "index_bytes", "text_bytes", "other_bytes"})
    sum += tiers.at("disk").at(part).to_number<uint64_t>();
  EXPECT_EQ(sum, tiers.at("disk").at("bytes").to_number<uint64_t>());
  EXPECT_EQ(Call(200, "GET", {"v1", "memories", "empty", "tiers"}).at("tokens"), 0);
  Call(404, "GET", {"v1", "memories", "none", "tiers"});
}

TEST_F(ApiTest, CountsWhatItDoes) {
  Call(200, "POST", {"v1", "chat", "completions"}, kChat);
  Start("POST", {"v1", "chat", "completions"}, With(kChat, R"("stream":true)"))->Stream();
  Call(200, "POST", {"v1", "memories", "tales", "recall"}, R"({"query":"the elder"})");
  Call(404, "GET", {"v1", "memories", "secret-name"});
  Call(404, "GET", {"v1", "nowhere"});
  const HttpReply reply = Start("GET", {"metrics"})->Reply();
  EXPECT_EQ(reply.status, 200u);
  for (const char* line :
       {"longhold_requests_total{route=\"/v1/chat/completions\",status=\"200\"} 2\n",
        "longhold_requests_total{route=\"/v1/memories/{memory}\",status=\"404\"} 1\n",
        "longhold_requests_total{route=\"none\",status=\"404\"} 1\n",
        "longhold_first_token_seconds_count 2\n", "longhold_plan_seconds_count 3\n",
        "longhold_tokens_total{kind=\"completion\"}", "longhold_waiting{kind=\"ingests\"} 0\n",
        "longhold_memory_budget_bytes{kind=\"limit\"} 1073741824\n",
        "process_resident_memory_bytes"}) {
    EXPECT_THAT(reply.body, HasSubstr(line));
  }
  for (const char* secret : {"secret-name", "tales", "elder"})
    EXPECT_EQ(reply.body.find(secret), std::string::npos) << secret;
}

TEST_F(ApiTest, CitesInCharactersAndTellsHowFarItIs) {
  const std::string text =
      "\u00c4pfel und \u65e5\u672c: the number of the elder is seven.\n" + PlainText(2000, 9);
  // Of another document of the same memory.
  EXPECT_EQ(WaitForIngest(std::string(Call(202, "POST", {"v1", "memories", "tales", "documents"},
                                           text, "text/plain", {{"name", "wide"}})
                                          .at("id")
                                          .as_string()))
                .at("state"),
            "done");
  const json::value reply = Call(200, "POST", {"v1", "chat", "completions"},
                                 With(kChat, R"("citations":"char_location")"));
  const json::value& message = reply.at("choices").at(0).at("message");
  ASSERT_EQ(message.at("citations").as_array().size(), message.at("annotations").as_array().size());
  bool wide = false;
  for (const json::value& c : message.at("citations").as_array()) {
    EXPECT_EQ(c.at("type"), "char_location");
    const bool own = c.at("document_title") == "wide";
    EXPECT_EQ(c.at("document_index"), own ? 1 : 0);
    // The characters there are the cited ones.
    const auto begin = c.at("start_char_index").to_number<size_t>(),
               end = c.at("end_char_index").to_number<size_t>();
    const std::string cited(c.at("cited_text").as_string());
    EXPECT_EQ(CountColumns(cited), end - begin);
    if (!own) continue;
    wide |= begin < 20;
    size_t byte = 0;
    for (size_t seen = 0;
         byte < text.size() && (seen < begin || (static_cast<uint8_t>(text[byte]) & 0xC0) == 0x80);
         ++byte)
      seen += (static_cast<uint8_t>(text[byte]) & 0xC0) != 0x80 ? 1 : 0;
    EXPECT_EQ(text.substr(byte, cited.size()), cited);
  }
  EXPECT_TRUE(wide);
  EXPECT_FALSE(Call(200, "POST", {"v1", "chat", "completions"}, kChat)
                   .at("choices")
                   .at(0)
                   .at("message")
                   .as_object()
                   .contains("citations"));

  const std::string stream =
      Start("POST", {"v1", "chat", "completions"},
            With(kChat, R"("stream":true,"return_progress":true,"citations":"char_location")"))
          ->Stream();
  EXPECT_THAT(stream, HasSubstr("char_location"));
  std::vector<json::value> steps;
  for (size_t at = stream.find("data: {"); at != std::string::npos;
       at = stream.find("data: {", at + 1)) {
    const json::value piece = json::parse(stream.substr(at + 6, stream.find('\n', at) - at - 6));
    if (piece.as_object().contains("prompt_progress")) steps.push_back(piece.at("prompt_progress"));
  }
  ASSERT_GE(steps.size(), 2u);
  for (size_t i = 0; i < steps.size(); ++i) {
    const auto number = [&](size_t step, const char* name) {
      return steps[step].at(name).to_number<double>();
    };
    EXPECT_EQ(number(i, "total"), number(0, "total"));
    EXPECT_GT(number(i, "cache"), 0);
    EXPECT_LE(number(i, "cache"), number(i, "processed"));
    if (i > 0) {
      EXPECT_GT(number(i, "processed"), number(i - 1, "processed"));
      EXPECT_GE(number(i, "time_ms"), number(i - 1, "time_ms"));
    }
  }
  EXPECT_EQ(steps.back().at("processed"), steps.back().at("total"));
  EXPECT_EQ(Start("POST", {"v1", "chat", "completions"}, With(kChat, R"("stream":true)"))
                ->Stream()
                .find("prompt_progress"),
            std::string::npos);
}

TEST_F(ApiTest, CitesBehindTheSentenceWhatItRestsOn) {
  Answer("The first sentence is long. And so is the second one!\nIt ends");
  const json::value reply =
      Call(200, "POST", {"v1", "chat", "completions"}, With(kChat, R"("citations":"inline")"));
  const std::string text(reply.at("choices").at(0).at("message").at("content").as_string());
  EXPECT_THAT(text, testing::MatchesRegex("The first sentence is long\\. \\[1\\] And so is the "
                                          "second one! \\[[12]\\]\nIt ends \\[[123]\\]"));
  const json::array& citations = reply.at("longhold").at("citations").as_array();
  ASSERT_FALSE(citations.empty());
  EXPECT_EQ(citations[0].at("index"), 1);
  const json::value asked =
      Call(200, "POST", {"v1", "memories", "tales", "ask"},
           R"({"question":"What is the number?","abstain":false,"inline_citations":true})");
  EXPECT_THAT(std::string(asked.at("cited_answer").as_string()), HasSubstr("long. [1] And"));
  EXPECT_THAT(std::string(asked.at("answer").as_string()), HasSubstr("long. And"));
  const std::string stream = Start("POST", {"v1", "chat", "completions"},
                                   With(kChat, R"("stream":true,"citations":"inline")"))
                                 ->Stream();
  EXPECT_THAT(stream, HasSubstr("[1]"));
  // What is remembered of a conversation has none.
  Call(200, "POST", {"v1", "chat", "completions"},
       With(kChat, R"("session":"s","citations":"inline")"));
  const std::string kept =
      json::serialize(Call(200, "POST", {"v1", "memories", "tales", "recall"},
                           R"({"query":"the first sentence is long","abstain":false})"));
  EXPECT_THAT(kept, HasSubstr("The first sentence is long."));
  EXPECT_EQ(kept.find("[1]"), std::string::npos);
}

// How often each text has a, b and c.
class CountingEmbedder final : public TextEmbedder {
 public:
  uint32_t dim() const override { return 3; }
  uint64_t fingerprint() const override { return 1; }
  uint64_t cut_count() const override { return 0; }
  uint64_t token_count() const override { return tokens_; }
  Result<std::vector<float>> EmbedParts(std::span<const TextParts> texts) override {
    std::vector<float> rows;
    for (const TextParts& whole : texts) {
      const std::string_view text = whole.parts[0];  // the route embeds whole texts
      tokens_ += text.size();
      for (const char c : {'a', 'b', 'c'})
        rows.push_back(static_cast<float>(std::count(text.begin(), text.end(), c)));
    }
    return rows;
  }

 private:
  uint64_t tokens_ = 0;
};

TEST_F(ApiTest, EmbedsTexts) {
  Call(404, "POST", {"v1", "embeddings"}, R"({"model":"letters","input":"abc"})");
  CountingEmbedder embedder;
  Api api(queue_.get(), &jobs_, &readers_, &metrics_,
          ApiOptions{.model = "toy",
                     .embedder = &embedder,
                     .embedder_name = "letters",
                     .home = home_ / "h",
                     .stores = &engine_.stores(),
                     .without_keys = Scope::kAdmin,
                     .note = [](std::string_view) {}});
  const auto send = [&](const std::string& body) {
    const auto recorder = std::make_shared<Recorder>();
    api.Handle({.method = "POST",
                .path = {"v1", "embeddings"},
                .query = {},
                .content_type = "application/json",
                .authorization = "",
                .body = body},
               recorder);
    return recorder->Reply();
  };
  const json::value reply = json::parse(send(R"({"model":"letters","input":["aab","c"]})").body);
  EXPECT_EQ(
      json::serialize(reply.at("data")),
      R"([{"object":"embedding","index":0,"embedding":[2,1,0]},{"object":"embedding","index":1,"embedding":[0,0,1]}])");
  EXPECT_EQ(reply.at("usage").at("prompt_tokens"), 4);
  EXPECT_EQ(
      json::parse(
          send(R"({"model":"letters","input":"b","encoding_format":"base64","dimensions":3})").body)
          .at("data")
          .at(0)
          .at("embedding"),
      "AAAAAAAAgD8AAAAA");
  for (const char* bad :
       {R"({"model":"letters"})", R"({"model":"letters","input":[]})",
        R"({"model":"letters","input":""})", R"({"model":"letters","input":[1,2]})",
        R"({"model":"letters","input":"a","dimensions":2})",
        R"({"model":"letters","input":"a","encoding_format":"int8"})", "[]"}) {
    EXPECT_EQ(send(bad).status, 400u) << bad;
  }
  EXPECT_EQ(send(R"({"model":"toy","input":"a"})").status, 404u);
}

TEST_F(ApiTest, DoesNotBeginWhatIsLate) {
  const auto go = HoldQueue(*queue_);
  std::vector<std::shared_ptr<Recorder>> late;
  late.push_back(Start("POST", {"v1", "memories", "tales", "recall"},
                       R"({"query":"the elder","timeout":0.01})"));
  late.push_back(Start("POST", {"v1", "memories", "tales", "ask"},
                       R"({"question":"What is the number?","timeout":0.01})"));
  late.push_back(
      Start("POST", {"v1", "chat", "completions"}, With(kChat, R"("timeout":0.01,"stream":true)")));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const uint64_t before = model_.forward_count();
  go->set_value();
  for (const auto& recorder : late)
    EXPECT_EQ(recorder->Reply().status, 504u) << recorder->Reply().body;
  EXPECT_EQ(model_.forward_count(), before) << "the model was not asked";
  Call(200, "POST", {"v1", "memories", "tales", "recall"},
       R"({"query":"the elder","timeout":600})");
  for (const char* bad : {"0", "-1", "\"1\"", "1e9"})
    Call(400, "POST", {"v1", "memories", "tales", "recall"},
         R"({"query":"x","timeout":)" + std::string(bad) + "}");
}

TEST_F(ApiTest, DoesNothingForAClientThatHasGone) {
  const auto held = std::make_shared<std::promise<void>>();
  ASSERT_TRUE(AskExclusive(*queue_, [held](Engine&) { held->get_future().wait(); }).ok());
  const auto gone = Start("DELETE", {"v1", "memories", "tales"});
  gone->gone_ = true;
  held->set_value();
  Call(200, "GET", {"v1", "memories", "tales"});
}

TEST_F(ApiTest, SaysWhenItHasTooMuchToDoOrStops) {
  queue_ = std::make_unique<EngineQueue>(&engine_,
                                         EngineQueueOptions{.questions_max = 1, .ingests_max = 0});
  Api api(queue_.get(), &jobs_, &readers_, &metrics_,
          ApiOptions{.model = "toy",
                     .home = home_ / "h",
                     .stores = &engine_.stores(),
                     .without_keys = Scope::kAdmin,
                     .note = [](std::string_view) {}});
  const auto go = HoldQueue(*queue_);
  ASSERT_TRUE(AskExclusive(*queue_, [](Engine&) {}).ok());
  const auto status = [&](const std::string& method, std::vector<std::string> path,
                          const std::string& body) {
    auto recorder = std::make_shared<Recorder>();
    api.Handle({.method = method,
                .path = std::move(path),
                .query = {{"name", "a"}},
                .content_type = "text/plain",
                .authorization = "",
                .body = body},
               recorder);
    const HttpReply reply = recorder->Reply();
    EXPECT_EQ(reply.headers.at(0).first, "Retry-After");
    return reply.status;
  };
  EXPECT_EQ(status("GET", {"v1", "memories"}, ""), 429u);
  EXPECT_EQ(status("POST", {"v1", "memories", "notes", "documents"}, "text"), 429u);
  queue_->Stop();
  EXPECT_EQ(status("GET", {"v1", "memories"}, ""), 503u);
  go->set_value();
}

}  // namespace
}  // namespace longhold
