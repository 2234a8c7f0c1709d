// Several answers share one model. Each gets the tokens that it would get alone, in fewer passes,
// and none waits for another's end.
#include "memory/model/shared_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <list>
#include <thread>

#include "base/joined_thread.h"
#include "memory/attend/working_set.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"

namespace longhold {
namespace {

class SharedModelTest : public testing::Test {
 protected:
  SharedModelTest() : model_({.geometry = TinyGeometry()}) {}

  // Runs its own text in two passes and continues with the likeliest token. It generates tokens as
  // long as `more` returns true, then `count` more. So an answer can wait for the others, however
  // late the system starts their threads.
  std::vector<TokenId> Answer(LanguageModel& model, uint64_t seed, size_t count,
                              const std::function<bool(size_t)>& more = nullptr) const {
    const std::vector<TokenId> text = *model.Tokenize(PlainText(200, seed), false);
    WorkingSet set(model.info().geometry, 1 << 16);
    model.NativeForget(0, UINT32_MAX);
    const auto run = [&](std::span<const TokenId> tokens, bool want_logits) {
      const uint32_t position = set.size();
      set.BeginPass(static_cast<uint32_t>(tokens.size()));
      const Status status = model.Forward(tokens, position, &set, want_logits);
      EXPECT_TRUE(status.ok()) << status.ToString();
    };
    const size_t half = text.size() / 2;
    run(std::span(text).first(half), false);
    run(std::span(text).subspan(half), true);
    std::vector<TokenId> out;
    for (size_t left = count; left > 0;) {
      if (more && more(out.size())) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      } else {
        --left;
      }
      const std::span<const float> logits = model.logits();
      out.push_back(
          static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
      run(std::span(&out.back(), 1), true);
    }
    return out;
  }

  ToyModel model_;
};

class ConcurrentAnswersTest : public SharedModelTest,
                              public testing::WithParamInterface<uint32_t> {};
INSTANTIATE_TEST_SUITE_P(NativeWindow, ConcurrentAnswersTest, testing::Values(0u, 16u));

TEST_P(ConcurrentAnswersTest, GivesEachTheTokensItGetsAloneInFewerPasses) {
  constexpr size_t kAnswers = 6, kTokens = 40;
  ToyModel model(
      {.geometry = TinyGeometry(), .native_window = GetParam(), .native_sequences = kAnswers});
  std::vector<std::vector<TokenId>> shared_tokens(kAnswers);
  std::atomic<size_t> begun{0};
  SharedModel shared(&model);
  const uint64_t before = model.forward_count();
  {
    std::list<JoinedThread> threads;
    for (size_t i = 0; i < kAnswers; ++i) {
      threads.emplace_back([&, i] {
        const SharedModel::Share share(&shared);
        ++begun;
        shared_tokens[i] = Answer(shared, i, kTokens + i, [&](size_t) { return begun < kAnswers; });
      });
    }
  }
  const uint64_t passes = model.forward_count() - before;
  EXPECT_EQ(model.each_sequences_max(), kAnswers);
  size_t tokens = 0;
  for (size_t i = 0; i < kAnswers; ++i) {
    EXPECT_EQ(shared_tokens[i], Answer(model, i, shared_tokens[i].size())) << i;
    tokens += shared_tokens[i].size();
  }
  // The toy runs sequences with native layers one after the other.
  if (GetParam() == 0) {
    EXPECT_LT(passes + (kAnswers - 2) * kTokens, tokens);
  }
  EXPECT_NE(Answer(model, 0, kTokens), Answer(model, 1, kTokens)) << "or the texts do not matter";
}

TEST_F(SharedModelTest, ASingleAnswerIsUnchanged) {
  const std::vector<TokenId> alone = Answer(model_, 1, 10);
  SharedModel shared(&model_);
  EXPECT_EQ(Answer(shared, 1, 10), alone) << "also without a share";
  const SharedModel::Share share(&shared);
  EXPECT_EQ(Answer(shared, 1, 10), alone);
  EXPECT_EQ(model_.each_count(), 0u);
}

TEST_F(SharedModelTest, AnAnswerContinuesWhileAnotherPromptIsProcessed) {
  SharedModel shared(&model_);
  std::promise<void> begun;
  std::atomic<size_t> generated{0};
  JoinedThread first([&] {
    const SharedModel::Share share(&shared);
    Answer(shared, 1, 60, [&](size_t i) {
      if (i == 1) begun.set_value();
      generated = i;
      return false;
    });
  });
  begun.get_future().wait();
  const SharedModel::Share share(&shared);
  const std::vector<TokenId> text = *shared.Tokenize(PlainText(400, 2), false);
  WorkingSet set(shared.info().geometry, 2048);
  const size_t before = generated;
  for (int pass = 0; pass < 10; ++pass) {
    set.BeginPass(100);
    ASSERT_TRUE(shared.Forward(std::span(text).first(100), set.size(), &set, false).ok());
  }
  EXPECT_GE(generated, std::min<size_t>(59, before + 9)) << "a token for each pass";
}

TEST_F(SharedModelTest, AnswersStartInOrderAndAreBounded) {
  SharedModel shared(&model_, {.answers_max = 2});
  EXPECT_EQ(shared.answers_max(), 2u);
  std::atomic<int> now{0}, most{0};
  std::list<JoinedThread> threads;
  for (uint64_t i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      const SharedModel::Share share(&shared);
      most = std::max(most.load(), ++now);
      Answer(shared, i, 20, [&](size_t) { return most < 2; });
      --now;
    });
  }
  threads.clear();
  EXPECT_EQ(most, 2);
}

TEST_F(SharedModelTest, AnswersRunOneAfterAnotherWhenThereIsNoRoom) {
  std::atomic<int> asked{0};
  SharedModel shared(&model_, {.room = [&] { return ++asked < 0; }});
  std::list<JoinedThread> threads;
  std::atomic<int> now{0}, most{0};
  for (uint64_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      const SharedModel::Share share(&shared);
      most = std::max(most.load(), ++now);
      Answer(shared, i, 10);
      --now;
    });
  }
  threads.clear();
  EXPECT_EQ(most, 1);
  EXPECT_EQ(model_.each_count(), 0u);
}

TEST_F(SharedModelTest, TheNativeCacheLimitsHowManyAnswersShareAModel) {
  ToyModel one({.geometry = TinyGeometry(), .native_window = 16}),
      three({.geometry = TinyGeometry(), .native_window = 16, .native_sequences = 3});
  EXPECT_EQ(SharedModel(&one, {.answers_max = 8}).answers_max(), 1u);
  EXPECT_EQ(SharedModel(&three, {.answers_max = 8}).answers_max(), 3u);
}

}  // namespace
}  // namespace longhold
