// The recalled prompt: what another engine gets must be what the memory holds.
//
// Compared are: each recalled token with the document's token at its place; its key with the stored
// un-rotated key, rotated to the compact position, and its value with the stored one (one rounding
// to fp16 allowed, 2^-11 of the number); the head's keys and values with a pass of the model over
// the head alone; the prompt with the one that an answer of this engine attends to.
#include "memory/answer/recalled_prompt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/half.h"
#include "tests/memory/engine_fixture.h"

namespace longhold {
namespace {

using testing::HasSubstr;

// As TestGeometry, but all layers are tapped.
KvGeometry AllLayers() {
  KvGeometry g = TestGeometry();
  g.layers = {0, 1, 2};
  return g;
}

RecallProfile WordsOnly() {
  RecallProfile p = Profile();
  p.heads.clear();
  p.abstain_found = 0.5;
  return p;
}

class RecalledPromptTest : public EngineTest {
 protected:
  void SetUp() override {
    const RecallProfile profile = WordsOnly();
    Restart({.geometry = AllLayers()}, &profile);
    ASSERT_TRUE(Ingest("tale", Tale()).ok());
  }
  std::unique_ptr<RecalledPrompt> Prompt(const RecalledPromptOptions& options = {},
                                         std::string_view question = kQuestion) {
    Result<std::unique_ptr<RecalledPrompt>> prompt =
        engine_->RecallPrompt("tales", question, options);
    EXPECT_TRUE(prompt.ok()) << prompt.status().ToString();
    return prompt.ok() ? std::move(*prompt) : nullptr;
  }
  std::string Text(std::span<const TokenId> tokens) const {
    std::string text;
    for (const TokenId token : tokens) text += model_->Piece(token);
    return text;
  }
};

TEST_F(RecalledPromptTest, TokensAreHeadThenSpansThenExcerptsThenQuestion) {
  const auto prompt = Prompt({.system = "Be brief.", .reencode_tokens = 64});
  ASSERT_NE(prompt, nullptr);
  const std::string prefix = Text(prompt->tokens().first(prompt->prefix_tokens()));
  const std::string rest = Text(prompt->tokens().subspan(prompt->prefix_tokens()));
  EXPECT_TRUE(prefix.starts_with("Be brief.\n")) << prefix;
  EXPECT_THAT(prefix, HasSubstr("Methuselah is 7350194"));
  EXPECT_THAT(prefix, Not(HasSubstr(kQuestion)));
  EXPECT_THAT(rest, HasSubstr("Methuselah is 7350194"));
  EXPECT_TRUE(rest.ends_with("Question: " + std::string(kQuestion) + "\nAnswer:")) << rest;
  const auto without = Prompt({.reencode_tokens = 0});
  EXPECT_THAT(Text(without->tokens().subspan(without->prefix_tokens())), Not(HasSubstr("7350194")));
}

TEST_F(RecalledPromptTest, KeysAndValuesAreTheStoredOnesAtCompactPositions) {
  const auto prompt = Prompt({.reencode_tokens = 0});
  ASSERT_NE(prompt, nullptr);
  const KvGeometry& g = prompt->geometry();
  const uint32_t prefix = prompt->prefix_tokens(), width = g.kv_width(), d = g.head_dim;
  const size_t head = 1;  // the token that begins every sequence
  const RopeTables ropes(g, prefix);
  Result<AskReply> reply = prompt->Finish("It is 7350194.", false);
  ASSERT_TRUE(reply.ok()) << reply.status().ToString();
  EXPECT_EQ(reply->tokens_recalled, prefix - head);
  ASSERT_FALSE(reply->citations.empty());

  Result<MemoryLease> lease = engine_->catalog().Lease("tales", MemoryCatalog::Access::kRead,
                                                       MemoryCatalog::Reader::kModel);
  ASSERT_TRUE(lease.ok()) << lease.status().ToString();
  uint32_t compared = 0;
  for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
    std::vector<uint16_t> keys(size_t{prefix} * width), values(keys.size());
    prompt->CopyKeyValues(slot, keys.data(), values.data());
    // Each span's rows are found by its tokens.
    for (const Citation& citation : reply->citations) {
      const RecalledSpan& span = citation.span;
      const std::vector<TokenId> text = *model_->Tokenize(span.text, false);
      const auto at = std::search(prompt->tokens().begin(), prompt->tokens().begin() + prefix,
                                  text.begin(), text.end());
      ASSERT_NE(at, prompt->tokens().begin() + prefix) << span.text;
      const auto first = static_cast<uint32_t>(at - prompt->tokens().begin());
      ASSERT_EQ(text.size(), span.tokens.size());
      for (uint64_t t = span.tokens.begin; t < span.tokens.end; ++t) {
        const BlockKey key{.document = span.document_id,
                           .block = static_cast<uint32_t>(t / kBlockTokens)};
        const Result<KvBlock> block = (*lease)->LoadBlock(key);
        ASSERT_TRUE(block.ok()) << block.status().ToString();
        const size_t row = t % kBlockTokens * width;
        const auto i = static_cast<uint32_t>(first + (t - span.tokens.begin));
        for (uint32_t h = 0; h < g.kv_heads; ++h) {
          std::vector<float> key_row(d), rotated(d);
          for (uint32_t c = 0; c < d; ++c)
            key_row[c] = FromHalf(block->Keys(slot)[row + size_t{h} * d + c]);
          ropes.Of(slot).Rotate(key_row.data(), rotated.data(), d, i);
          for (uint32_t c = 0; c < d; ++c) {
            const size_t element = size_t{i} * width + size_t{h} * d + c;
            ASSERT_NEAR(FromHalf(keys[element]), rotated[c],
                        std::abs(rotated[c]) * 0x1p-11f + 0x1p-25f);
            ASSERT_EQ(values[element], block->Values(slot)[row + size_t{h} * d + c]);
          }
        }
        ++compared;
      }
    }
  }
  EXPECT_GE(compared, 3u * 40);
}

TEST_F(RecalledPromptTest, TheHeadsKeysAndValuesAreThoseOfItsOwnPass) {
  const auto prompt = Prompt({.system = "Be brief, and say where it stands."});
  ASSERT_NE(prompt, nullptr);
  const std::string system = "Be brief, and say where it stands.\n";
  const size_t head = 1 + model_->Tokenize(system, false)->size();
  const std::vector<TokenId> tokens(prompt->tokens().begin(),
                                    prompt->tokens().begin() + static_cast<ptrdiff_t>(head));
  EXPECT_EQ(Text(tokens), system);
  const uint32_t width = prompt->geometry().kv_width();
  std::vector<std::vector<uint16_t>> keys, values;
  for (uint32_t slot = 0; slot < 3; ++slot) {
    keys.emplace_back(size_t{prompt->prefix_tokens()} * width);
    values.emplace_back(keys.back().size());
    prompt->CopyKeyValues(slot, keys.back().data(), values.back().data());
  }
  const Result<TokenKeyValues> own = ReadKeyValues(*model_, tokens);
  ASSERT_TRUE(own.ok());
  for (uint32_t slot = 0; slot < 3; ++slot) {
    EXPECT_TRUE(std::equal(own->keys[slot].begin(), own->keys[slot].end(), keys[slot].begin()));
    EXPECT_TRUE(
        std::equal(own->values[slot].begin(), own->values[slot].end(), values[slot].begin()));
  }
}

TEST_F(RecalledPromptTest, PromptAndAnswerFitTheOtherEnginesContext) {
  const auto all = Prompt();
  const uint32_t limit = static_cast<uint32_t>(all->tokens().size()) + 64;
  const auto fitted = Prompt({.answer_tokens_max = 64, .context_tokens = limit});
  ASSERT_NE(fitted, nullptr);
  EXPECT_LE(fitted->tokens().size() + fitted->answer_tokens(), limit);
  EXPECT_EQ(fitted->answer_tokens(), 64u);
  EXPECT_THAT(Text(fitted->tokens().first(fitted->prefix_tokens())), HasSubstr("7350194"))
      << "the best span stays";
  const auto none = engine_->RecallPrompt("tales", kQuestion, {.context_tokens = 40});
  EXPECT_EQ(none.status().code(), StatusCode::kInvalidArgument);
}

TEST(UngatedSpans, AreThoseWhoseGateRoundsToOne) {
  using testing::ElementsAre;
  EXPECT_THAT(UngatedSpans(std::vector{0.5, 1.0, 0.72, 0.7}, 2),
              ElementsAre(false, true, true, false));
  EXPECT_THAT(UngatedSpans(std::vector{0.1, 0.2}, 2), ElementsAre(false, true)) << "the best one";
  EXPECT_THAT(UngatedSpans(std::vector{1.0, 0.2, 0.2}, 0), ElementsAre(true, true, true));
  EXPECT_THAT(UngatedSpans({}, 2), ElementsAre());
}

TEST_F(RecalledPromptTest, CitesFirstWhatHasTheAnswersWords) {
  const auto prompt = Prompt();
  const Result<AskReply> reply = prompt->Finish("The number is 7350194.", true);
  ASSERT_TRUE(reply.ok()) << reply.status().ToString();
  ASSERT_FALSE(reply->citations.empty());
  EXPECT_THAT(reply->citations[0].span.text, HasSubstr("7350194"));
  EXPECT_EQ(reply->citations[0].index, 1u);
  EXPECT_TRUE(reply->citations[0].characters.has_value());
  EXPECT_EQ(reply->answer, "The number is 7350194.");
}

TEST_F(RecalledPromptTest, AbstainsLikeAnAnswer) {
  const auto prompt = Prompt({}, "Who invented the zeppelin dirigible aviation certificate?");
  ASSERT_NE(prompt, nullptr);
  ASSERT_TRUE(prompt->abstained());
  EXPECT_TRUE(prompt->tokens().empty());
  const Result<AskReply> reply = prompt->Finish(kAbstention, false);
  ASSERT_TRUE(reply.ok());
  EXPECT_TRUE(reply->abstained);
  EXPECT_TRUE(reply->citations.empty());
}

TEST_F(RecalledPromptTest, AModelWithLayersThatAreNotTappedIsRefusedByName) {
  const RecallProfile profile = Profile();
  Restart({.native_window = 64}, &profile);
  const Status refused = CheckRecalledPrompts(engine_->model_info());
  EXPECT_EQ(refused.code(), StatusCode::kUnimplemented);
  EXPECT_THAT(refused.message(), HasSubstr("2 of its 5 layers"));
}

}  // namespace
}  // namespace longhold
