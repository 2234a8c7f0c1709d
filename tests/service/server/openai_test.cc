// OpenAI's wire format: what is read from requests, what is refused by name, what replies look
// like, and stop strings at every cut.
#include "service/server/openai.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

namespace longhold {
namespace {

namespace json = boost::json;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kMessages[] = R"("model":"toy@bible","messages":[{"role":"user","content":"Who?"}])";

CompletionRequest MustParse(const std::string& body, bool chat = true) {
  Result<CompletionRequest> request = ParseCompletion(body, chat);
  EXPECT_TRUE(request.ok()) << body << ": " << request.status().ToString();
  return request.ok() ? *request : CompletionRequest{};
}

TEST(ParseCompletion, ReadsAConversation) {
  const CompletionRequest r = MustParse(
      R"({"model":"toy@a@b","messages":[{"role":"developer","content":"Be brief."},{"role":"user","content":"Who?"},
          {"role":"assistant","content":"Noah."},{"role":"system","content":"In English."},
          {"role":"user","content":[{"type":"text","text":"And "},{"type":"text","text":"when?"}]}],
          "max_completion_tokens":7,"temperature":0.5,"top_p":0.9,"seed":-3,"stop":["\n","END"],"stream":true,
          "stream_options":{"include_usage":true},"abstain":false,"attend":"faithful","attend_share":0.25,"user":"u","n":1,"tools":[],"presence_penalty":0,"logprobs":false})");
  EXPECT_EQ(r.model, "toy@a");
  EXPECT_EQ(r.memory, "b");
  EXPECT_EQ(r.system, "Be brief.\nIn English.");
  ASSERT_EQ(r.earlier.size(), 2u);
  EXPECT_TRUE(r.earlier[0].by_user);
  EXPECT_EQ(r.earlier[1].text, "Noah.");
  EXPECT_EQ(r.question, "And when?");
  EXPECT_EQ(r.max_tokens, 7u);
  EXPECT_FLOAT_EQ(r.sampler.temperature, 0.5f);
  EXPECT_FLOAT_EQ(r.sampler.top_p, 0.9f);
  EXPECT_EQ(r.sampler.seed, static_cast<uint32_t>(-3));
  EXPECT_THAT(r.stop, ElementsAre("\n", "END"));
  EXPECT_TRUE(r.stream && r.stream_usage);
  ASSERT_EQ(AttendName(r.attend), "faithful");
  EXPECT_EQ(std::get<FaithfulOptions>(r.attend).share, 0.25);
}

TEST(ParseCompletion, HasDefaultsAndTheFieldMemoryGoesBeforeTheName) {
  const CompletionRequest r = MustParse(std::string("{") + kMessages +
                                        R"(,"memory":"other","temperature":null,"stop":null})");
  EXPECT_EQ(r.memory, "other");
  EXPECT_EQ(r.sampler.temperature, 0);
  EXPECT_EQ(r.max_tokens, 256u);
  EXPECT_TRUE(std::get<FocusedOptions>(r.attend).recall.abstain);
  EXPECT_EQ(AttendName(r.attend), "focused");
  EXPECT_FALSE(r.stream);
  const CompletionRequest plain =
      MustParse(R"({"model":"toy","prompt":["Who?"],"stop":"x"})", false);
  EXPECT_EQ(plain.question, "Who?");
  EXPECT_EQ(plain.memory, "");
  EXPECT_THAT(plain.stop, ElementsAre("x"));
}

TEST(ParseCompletion, ReadsHowAFocusedAnswerAttends) {
  const Result<CompletionRequest> r = ParseCompletion(
      R"({"model":"m@a","messages":[{"role":"user","content":"q"}],"abstain":false,"rerank":3,
          "reencode":5,"spans":7,"citations":"inline"})",
      true);
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  const FocusedOptions& focused = std::get<FocusedOptions>(r->attend);
  EXPECT_FALSE(focused.recall.abstain);
  EXPECT_EQ(focused.recall.rerank_spans, 3u);
  EXPECT_EQ(focused.recall.spans_max, 7u);
  EXPECT_EQ(focused.reencode_tokens, 5u);
  EXPECT_TRUE(focused.inline_citations);
}

TEST(ParseCompletion, NamesWhatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "not JSON"},
      {"[1]", "not a JSON object"},
      {"{", "not JSON"},
      {"{\"model\":\"\xff\"}", "not JSON"},
      {std::string(100, '[') + std::string(100, ']'), "not JSON"},
      {R"({"messages":[]})", "model"},
      {R"({"model":7})", "model"},
      {R"({"model":"toy"})", "messages"},
      {R"({"model":"toy","messages":[]})", "messages"},
      {R"({"model":"toy","messages":["x"]})", "messages"},
      {R"({"model":"toy","messages":[{"role":"user"}]})", "content"},
      {R"({"model":"toy","messages":[{"role":"robot","content":"x"}]})", "robot"},
      {R"({"model":"toy","messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]})",
       "must have the role user"},
      {R"({"model":"toy","messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]})",
       "only text"},
  };
  for (const auto& [body, named] : cases) {
    const Result<CompletionRequest> request = ParseCompletion(body, true);
    EXPECT_EQ(request.status().code(), StatusCode::kInvalidArgument) << body;
    EXPECT_THAT(request.status().message(), HasSubstr(named)) << body;
  }
  for (const std::string member : {R"("n":2)",
                                   R"("temperature":"hot")",
                                   R"("temperature":-1)",
                                   R"("temperature":2.1)",
                                   R"("top_p":1e9)",
                                   R"("max_tokens":0)",
                                   R"("max_tokens":1.5)",
                                   R"("max_completion_tokens":1000000)",
                                   R"("seed":1e20)",
                                   R"("stop":["a","b","c","d","e"])",
                                   R"("stop":"")",
                                   R"("stop":[7])",
                                   R"("stream":"yes")",
                                   R"("stream_options":7)",
                                   R"("tools":[{}])",
                                   R"("logit_bias":{"1":2})",
                                   R"("logprobs":1)",
                                   R"("top_logprobs":2)",
                                   R"("echo":true)",
                                   R"("frequency_penalty":0.5)",
                                   R"("response_format":{"type":"json_object"})",
                                   R"("memory":7)",
                                   R"("abstain":1)",
                                   R"("attend":"full")",
                                   R"("attend":1)",
                                   R"("attend_share":2)",
                                   R"("citations":"footnotes")",
                                   R"("return_progress":1)"}) {
    const Result<CompletionRequest> request =
        ParseCompletion(std::string("{") + kMessages + "," + member + "}", true);
    EXPECT_EQ(request.status().code(), StatusCode::kInvalidArgument) << member;
    EXPECT_THAT(request.status().message(), HasSubstr(member.substr(1, member.find('"', 1) - 1)))
        << member;
  }
}

AskReply Reply() {
  AskReply reply;
  reply.citations.resize(1);
  reply.citations[0].index = 1;
  reply.citations[0].span.document = "a/b.txt";
  reply.citations[0].span.bytes = {10, 20};
  reply.prompt_tokens = 7;
  reply.tokens_recalled = 100;
  reply.tokens_reencoded = 3;
  reply.completion_tokens = 5;
  return reply;
}

TEST(ParseCompletion, LogprobsAreAFlagInChatsAndANumberElsewhere) {
  EXPECT_FALSE(MustParse(std::string("{") + kMessages + R"(,"logprobs":null,"top_logprobs":0})")
                   .likeliest.has_value());
  EXPECT_EQ(MustParse(std::string("{") + kMessages + R"(,"logprobs":true})").likeliest, 0u);
  EXPECT_EQ(
      MustParse(std::string("{") + kMessages + R"(,"logprobs":true,"top_logprobs":20})").likeliest,
      20u);
  EXPECT_FALSE(
      ParseCompletion(std::string("{") + kMessages + R"(,"logprobs":true,"top_logprobs":21})", true)
          .ok());
  EXPECT_EQ(MustParse(R"({"model":"toy","prompt":"x","logprobs":3})", false).likeliest, 3u);
  EXPECT_FALSE(MustParse(R"({"model":"toy","prompt":"x"})", false).likeliest.has_value());
  EXPECT_FALSE(ParseCompletion(R"({"model":"toy","prompt":"x","logprobs":6})", false).ok());
  EXPECT_FALSE(ParseCompletion(R"({"model":"toy","prompt":"x","logprobs":true})", false).ok());
}

TEST(CompletionReply, TellsLogprobsInBothForms) {
  AskReply reply = Reply();
  reply.likelihoods = {{.text = "No\xC3", .log = -0.5, .likeliest = {{"No\xC3", -0.5}, {"x", -2}}},
                       {.text = "\xA9", .log = -1, .likeliest = {}}};
  const json::value chat = json::parse(
      CompletionJson({.id = "c", .created = 1, .model = "toy", .chat = true, .logprobs = true}, "x",
                     false, reply));
  const json::value& content = chat.at("choices").at(0).at("logprobs").at("content");
  ASSERT_EQ(content.as_array().size(), 2u);
  EXPECT_EQ(content.at(0).at("bytes"), json::parse("[78, 111, 195]")) << "half a character";
  EXPECT_EQ(content.at(0).at("logprob").to_number<double>(), -0.5);
  EXPECT_EQ(content.at(0).at("top_logprobs").at(1).at("token"), "x");
  const json::value text = json::parse(
      CompletionJson({.id = "c", .created = 1, .model = "toy", .chat = false, .logprobs = true},
                     "x", false, reply));
  const json::value& logprobs = text.at("choices").at(0).at("logprobs");
  EXPECT_EQ(logprobs.at("tokens").as_array().size(), 2u);
  EXPECT_EQ(logprobs.at("token_logprobs").at(1).to_number<double>(), -1);
  EXPECT_EQ(logprobs.at("top_logprobs").at(0).at("x").to_number<double>(), -2);
  EXPECT_TRUE(
      json::parse(CompletionJson({.id = "c", .created = 1, .model = "toy"}, "x", false, reply))
          .at("choices")
          .at(0)
          .at("logprobs")
          .is_null());
}

TEST(CompletionReply, IsOneObjectOfOpenAIsForm) {
  const CompletionHead head{.id = "chatcmpl-1", .created = 12, .model = "toy@bible"};
  const json::value whole = json::parse(CompletionJson(head, "Noah\u00e9.", false, Reply()));
  EXPECT_EQ(whole.at("object"), "chat.completion");
  EXPECT_EQ(whole.at("created"), 12);
  const json::value& choice = whole.at("choices").at(0);
  EXPECT_EQ(choice.at("finish_reason"), "stop");
  EXPECT_EQ(choice.at("message").at("role"), "assistant");
  EXPECT_EQ(choice.at("message").at("content"), "Noah\u00e9.");
  const json::value& cited = choice.at("message").at("annotations").at(0).at("url_citation");
  EXPECT_EQ(cited.at("end_index"), 6) << "characters, not bytes";
  EXPECT_EQ(cited.at("title"), "a/b.txt");
  EXPECT_EQ(cited.at("url"), "longhold:a/b.txt#bytes=10-20");
  EXPECT_EQ(whole.at("usage").at("prompt_tokens"), 110);
  EXPECT_EQ(whole.at("usage").at("total_tokens"), 115);
  EXPECT_EQ(whole.at("usage").at("prompt_tokens_details").at("cached_tokens"), 100);
  EXPECT_EQ(whole.at("longhold").at("citations").at(0).at("document"), "a/b.txt");

  AskReply cut = Reply();
  cut.cut = true;
  EXPECT_EQ(
      json::parse(CompletionJson(head, "x", false, cut)).at("choices").at(0).at("finish_reason"),
      "length");
  EXPECT_EQ(
      json::parse(CompletionJson(head, "x", true, cut)).at("choices").at(0).at("finish_reason"),
      "stop");
  const json::value text = json::parse(CompletionJson(
      {.id = "cmpl-1", .created = 1, .model = "toy", .chat = false}, "x", false, Reply()));
  EXPECT_EQ(text.at("object"), "text_completion");
  EXPECT_EQ(text.at("choices").at(0).at("text"), "x");
}

// The events of a stream; the last is "[DONE]".
std::vector<std::string> Events(std::string_view stream) {
  std::vector<std::string> events;
  for (size_t end; (end = stream.find("\n\n")) != std::string_view::npos;
       stream.remove_prefix(end + 2)) {
    EXPECT_TRUE(stream.starts_with("data: "));
    events.emplace_back(stream.substr(6, end - 6));
    EXPECT_EQ(events.back().find('\n'), std::string::npos);
  }
  EXPECT_EQ(stream, "");
  return events;
}

TEST(CompletionStream, BeginsWithTheRoleAndEndsWithDone) {
  const CompletionHead head{.id = "chatcmpl-1", .created = 12, .model = "toy@bible"};
  const auto events = Events(StreamBegin(head) + StreamPiece(head, "No\nah") +
                             StreamEnd(head, "No\nah", false, Reply(), true));
  ASSERT_EQ(events.size(), 5u);
  EXPECT_EQ(json::parse(events[0]).at("choices").at(0).at("delta").at("role"), "assistant");
  EXPECT_EQ(json::parse(events[1]).at("choices").at(0).at("delta").at("content"), "No\nah");
  EXPECT_TRUE(json::parse(events[1]).at("choices").at(0).at("finish_reason").is_null());
  EXPECT_EQ(json::parse(events[2]).at("choices").at(0).at("finish_reason"), "stop");
  EXPECT_EQ(json::parse(events[2]).at("longhold").at("plan").at("tokens_recalled"), 100);
  EXPECT_TRUE(json::parse(events[3]).at("choices").as_array().empty());
  EXPECT_EQ(json::parse(events[3]).at("usage").at("completion_tokens"), 5);
  EXPECT_EQ(events[4], "[DONE]");
  EXPECT_EQ(Events(StreamEnd(head, "", false, Reply(), false)).size(), 2u);
  EXPECT_EQ(json::parse(Events(StreamError("internal", "x"))[0]).at("error").at("message"), "x");
}

TEST(StopStrings, EndATextWhereverItsPiecesAreCut) {
  const std::string text = "one ENough two EN END three";
  for (size_t step = 1; step <= text.size(); ++step) {
    StopStrings stop({"END", "four", "ENDLESS"});
    std::string shown;
    for (size_t at = 0; at < text.size(); at += step)
      shown += stop.Feed(std::string_view(text).substr(at, step));
    shown += stop.Finish();
    EXPECT_EQ(shown, "one ENough two EN ") << step;
    EXPECT_TRUE(stop.stopped());
  }
}

TEST(StopStrings, WithoutOneAllIsShownInTheEnd) {
  StopStrings stop({"aab"});
  EXPECT_EQ(stop.Feed("xaa"), "x");
  EXPECT_EQ(stop.Feed("aa"), "aa");
  EXPECT_EQ(stop.Finish(), "aa");
  EXPECT_FALSE(stop.stopped());
  StopStrings none({});
  EXPECT_EQ(none.Feed("all"), "all");
}

}  // namespace
}  // namespace longhold
