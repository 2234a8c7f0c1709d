// Requests of the proxy: what becomes of OpenAI's members, which of llama.cpp's are passed on, and
// which are refused by name.
#include "service/attach/attach_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <string>

namespace longhold {
namespace {

namespace json = boost::json;
using testing::HasSubstr;

std::string Body(const std::string& members) {
  return R"({"model": "smollm2@bible", "messages": [{"role": "user", "content": "Who?"}])" +
         (members.empty() ? "" : ", " + members) + "}";
}

TEST(AttachRequest, TheLastMessageIsTheQuestion) {
  const Result<AttachRequest> request = ParseAttachRequest(
      R"({"model": "smollm2@bible", "max_tokens": 7, "reencode": 32, "spans": 3, "messages": [
          {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who am I?"},
          {"role": "assistant", "content": "Noah."}, {"role": "user", "content": "Who else?"}]})",
      true);
  ASSERT_TRUE(request.ok()) << request.status().ToString();
  EXPECT_EQ(request->completion.question, "Who else?");
  EXPECT_EQ(request->completion.memory, "bible");
  const RecalledPromptOptions options = PromptOptions(request->completion, 4092);
  EXPECT_EQ(options.system, "Be brief.");
  EXPECT_EQ(options.earlier.size(), 2u);
  EXPECT_EQ(options.answer_tokens_max, 7u);
  EXPECT_EQ(options.reencode_tokens, 32u);
  EXPECT_EQ(options.recall.spans_max, 3u);
  EXPECT_EQ(options.context_tokens, 4092u);
}

TEST(AttachRequest, SamplingOptionsReachTheServer) {
  const Result<AttachRequest> request = ParseAttachRequest(
      Body(R"("temperature": 0.5, "top_p": 0.25, "seed": 7, "stop": ["\n"], "top_k": 9,
              "min_p": 0.125, "presence_penalty": 0.5, "logit_bias": {"15": -100},
              "grammar": "root ::= \"x\"", "user": "me")"),
      true);
  ASSERT_TRUE(request.ok()) << request.status().ToString();
  const json::object sampling = json::parse(request->sampling).as_object();
  EXPECT_EQ(sampling, json::parse(R"({"temperature": 0.5, "top_p": 0.25, "seed": 7, "stop": ["\n"],
      "top_k": 9, "min_p": 0.125, "presence_penalty": 0.5, "logit_bias": {"15": -100},
      "grammar": "root ::= \"x\""})"))
      << request->sampling;
}

TEST(AttachRequest, WithoutOptionsAnswersAreTheLikeliest) {
  const Result<AttachRequest> request = ParseAttachRequest(Body(""), true);
  ASSERT_TRUE(request.ok()) << request.status().ToString();
  EXPECT_EQ(json::parse(request->sampling).at("temperature").to_number<double>(), 0.0);
}

TEST(AttachRequest, WhatNeedsTheEngineItselfIsRefusedByName) {
  for (const auto& [members, name] : {std::pair{R"("logprobs": true)", "logprobs"},
                                      {R"("session": "s")", "session"},
                                      {R"("timeout": 5)", "timeout"},
                                      {R"("attend": "faithful")", "attend"},
                                      {R"("citations": "inline")", "citations"},
                                      {R"("tools": [{"type": "function"}])", "tools"}}) {
    const Result<AttachRequest> request = ParseAttachRequest(Body(members), true);
    EXPECT_EQ(request.status().code(), StatusCode::kInvalidArgument) << members;
    EXPECT_THAT(request.status().message(), HasSubstr(name));
  }
}

}  // namespace
}  // namespace longhold
