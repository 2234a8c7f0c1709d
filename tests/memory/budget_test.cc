// The engine within a memory budget, on the toy model. What does not fit is done in parts, left out
// with a note, or refused by name, and nothing stays reserved. tests/cli tests that the
// reservations cover the memory really used (peak resident memory of a process).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "memory/engine.h"
#include "tests/store/temp_dir.h"
#include "tests/support/engines.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"

namespace longhold {
namespace {

using testing::Contains;
using testing::HasSubstr;

constexpr char kQuestion[] =
    "What is the secret number of Methuselah, and what is the lantern near the river?";

class BudgetTest : public testing::Test {
 protected:
  BudgetTest() {
    profile_.name = "toy";
    profile_.heads = {{.layer = 3, .kv_head = 1}};
    profile_.signals["heads"] = 0.5;
    profile_.span_score_min = 0;
    profile_.rerank_spans = 8;
    profile_.rerank_scale =
        1e6;  // the toy's likelihoods are noise: no result may depend on their last bits
    profile_.window_tokens = 64;
  }
  std::unique_ptr<EngineInHome> Within(uint64_t budget_bytes) {
    auto engine = std::make_unique<EngineInHome>(
        home_ / "h", EngineOptions{.memory_budget_bytes = budget_bytes});
    EXPECT_TRUE(engine->UseModel(&model_, &profile_).ok());
    return engine;
  }
  static std::string Answered(const AskReply& reply) {
    std::string out = reply.answer;
    for (const Citation& c : reply.citations)
      out += "\n" + std::to_string(c.span.bytes.begin) + "-" + std::to_string(c.span.bytes.end);
    return out;
  }

  TempDir home_;
  ToyModel model_{{.answer = "It is 7350194."}};
  RecallProfile profile_;
};

TEST_F(BudgetTest, AsksWithinAnyBudgetOrIsRefused) {
  std::string text = PlainText(6000, 1);
  text.insert(text.find('\n', 3000) + 1, "The secret number of Methuselah is 7350194.\n");
  AskOptions options;
  options.focused().recall.abstain = false;
  options.max_tokens = 20;
  std::string wanted;
  uint64_t store_bytes = 0, most_bytes = 0;
  {
    auto engine = Within(uint64_t{1} << 30);
    ASSERT_TRUE(engine->Ingest("m", {"tale", text}, nullptr, nullptr).ok());
    const Result<AskReply> reply = engine->Ask("m", kQuestion, options);
    ASSERT_TRUE(reply.ok()) << reply.status().ToString();
    ASSERT_GE(reply->spans, 4u);
    wanted = Answered(*reply);
  }
  {
    auto engine = Within(uint64_t{1} << 30);  // a new engine: its peak excludes the ingest
    ASSERT_TRUE(engine->Ask("m", kQuestion, options).ok());
    store_bytes = 32 << 20;
    most_bytes = engine->budget().peak_bytes() - store_bytes;
    EXPECT_LT(engine->budget().used_bytes(), engine->budget().peak_bytes())
        << "a question's memory is given back";
  }
  size_t same = 0, less = 0, refused = 0;
  for (double share = 1.2; share > 0.05; share *= 0.93) {
    // The store's cache is one thirty-second of the budget.
    const auto limit = static_cast<uint64_t>(share * static_cast<double>(most_bytes) * 32 / 31);
    auto engine = Within(limit);
    const Result<AskReply> reply = engine->Ask("m", kQuestion, options);
    EXPECT_LE(engine->budget().peak_bytes(), limit);
    const std::vector<std::string> notes = engine->TakeNotes();
    if (!reply.ok()) {
      ++refused;
      EXPECT_EQ(reply.status().code(), StatusCode::kResourceExhausted);
      EXPECT_THAT(reply.status().message(), HasSubstr("--memory-budget"));
      continue;
    }
    EXPECT_EQ(refused, 0u) << "more memory was refused: " << share;
    if (notes.empty()) {
      ++same;
      EXPECT_EQ(less, 0u) << share;
      EXPECT_EQ(Answered(*reply), wanted) << share;
    } else {
      ++less;
      EXPECT_THAT(notes, Contains(HasSubstr("--memory-budget")));
    }
    const uint64_t after_one = engine->budget().used_bytes();
    (void)engine->Ask("m", kQuestion, options);
    EXPECT_EQ(engine->budget().used_bytes(), after_one);
  }
  EXPECT_GE(same, 4u) << "reranking in groups: below the peak of all at once, the same answer";
  EXPECT_GE(less, 1u);
  EXPECT_GE(refused, 1u);
}

TEST_F(BudgetTest, AnIngestThatDoesNotFitIsRefusedAndLeavesTheMemoryUnchanged) {
  auto engine = Within(2 << 20);
  const Result<IngestReport> refused =
      engine->Ingest("m", {"tale", PlainText(400000, 1)}, nullptr, nullptr);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(refused.status().message(), HasSubstr("reading tale"));
  EXPECT_TRUE(engine->Ingest("m", {"note", "A short note.\n"}, nullptr, nullptr).ok());
  EXPECT_LE(engine->budget().peak_bytes(), engine->budget().limit_bytes());
}

TEST_F(BudgetTest, AModelThatDoesNotFitIsRefused) {
  ToyOptions options;
  options.buffer_bytes = 10 << 20;
  ToyModel big(options);
  EngineInHome engine(home_ / "h", {.memory_budget_bytes = 9 << 20});
  const Status status = engine.UseModel(&big, &profile_);
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("the buffers of model toy"));
}

}  // namespace
}  // namespace longhold
