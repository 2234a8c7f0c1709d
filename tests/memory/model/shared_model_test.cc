// Several answers through one model: each gets what it would get alone, in fewer passes, and nobody
// waits for another's end.
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

  // Reads a text of its own in two passes and goes on with the likeliest token: `count` times after
  // `more`, which is asked before each, says that it is enough. However late a system begins the
  // other threads, an answer can wait for them so.
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

class SideBySideTest : public SharedModelTest, public testing::WithParamInterface<uint32_t> {};
INSTANTIATE_TEST_SUITE_P(NativeWindow, SideBySideTest, testing::Values(0u, 16u));

TEST_P(SideBySideTest, GivesEachWhatItGetsAloneInFewerPasses) {
  constexpr size_t kAnswers = 6, kTokens = 40;
  ToyModel model(
      {.geometry = TinyGeometry(), .native_window = GetParam(), .native_texts = kAnswers});
  std::vector<std::vector<TokenId>> beside(kAnswers);
  std::atomic<size_t> begun{0};
  SharedModel shared(&model);
  const uint64_t before = model.forward_count();
  {
    std::list<JoinedThread> threads;
    for (size_t i = 0; i < kAnswers; ++i) {
      threads.emplace_back([&, i] {
        const SharedModel::Turn turn(&shared);
        ++begun;
        beside[i] = Answer(shared, i, kTokens + i, [&](size_t) { return begun < kAnswers; });
      });
    }
  }
  const uint64_t passes = model.forward_count() - before;
  EXPECT_EQ(model.each_sequences_max(), kAnswers);
  size_t tokens = 0;
  for (size_t i = 0; i < kAnswers; ++i) {
    EXPECT_EQ(beside[i], Answer(model, i, beside[i].size())) << i;
    tokens += beside[i].size();
  }
  // The toy runs texts with layers of their own one after the other.
  if (GetParam() == 0) {
    EXPECT_LT(passes + (kAnswers - 2) * kTokens, tokens);
  }
  EXPECT_NE(Answer(model, 0, kTokens), Answer(model, 1, kTokens)) << "or the texts do not matter";
}

TEST_F(SharedModelTest, OneAloneIsAsWithoutIt) {
  const std::vector<TokenId> alone = Answer(model_, 1, 10);
  SharedModel shared(&model_);
  EXPECT_EQ(Answer(shared, 1, 10), alone) << "also outside of a turn";
  const SharedModel::Turn turn(&shared);
  EXPECT_EQ(Answer(shared, 1, 10), alone);
  EXPECT_EQ(model_.each_count(), 0u);
}

TEST_F(SharedModelTest, WhoIsAnsweringGoesOnWhileAnotherIsRead) {
  SharedModel shared(&model_);
  std::promise<void> begun;
  std::atomic<size_t> told{0};
  JoinedThread first([&] {
    const SharedModel::Turn turn(&shared);
    Answer(shared, 1, 60, [&](size_t i) {
      if (i == 1) begun.set_value();
      told = i;
      return false;
    });
  });
  begun.get_future().wait();
  const SharedModel::Turn turn(&shared);
  const std::vector<TokenId> text = *shared.Tokenize(PlainText(400, 2), false);
  WorkingSet set(shared.info().geometry, 2048);
  const size_t before = told;
  for (int pass = 0; pass < 10; ++pass) {
    set.BeginPass(100);
    ASSERT_TRUE(shared.Forward(std::span(text).first(100), set.size(), &set, false).ok());
  }
  EXPECT_GE(told, std::min<size_t>(59, before + 9)) << "a token for each pass";
}

TEST_F(SharedModelTest, TurnsBeginInTheirOrderAndAreBounded) {
  SharedModel shared(&model_, {.turns_max = 2});
  EXPECT_EQ(shared.turns_max(), 2u);
  std::atomic<int> now{0}, most{0};
  std::list<JoinedThread> threads;
  for (uint64_t i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      const SharedModel::Turn turn(&shared);
      most = std::max(most.load(), ++now);
      Answer(shared, i, 20, [&](size_t) { return most < 2; });
      --now;
    });
  }
  threads.clear();
  EXPECT_EQ(most, 2);
}

TEST_F(SharedModelTest, WithoutRoomTheyFollowEachOther) {
  std::atomic<int> asked{0};
  SharedModel shared(&model_, {.room = [&] { return ++asked < 0; }});
  std::list<JoinedThread> threads;
  std::atomic<int> now{0}, most{0};
  for (uint64_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      const SharedModel::Turn turn(&shared);
      most = std::max(most.load(), ++now);
      Answer(shared, i, 10);
      --now;
    });
  }
  threads.clear();
  EXPECT_EQ(most, 1);
  EXPECT_EQ(model_.each_count(), 0u);
}

TEST_F(SharedModelTest, AModelWithLayersOfItsOwnIsSharedAsItsCacheHasRoom) {
  ToyModel one({.geometry = TinyGeometry(), .native_window = 16}),
      three({.geometry = TinyGeometry(), .native_window = 16, .native_texts = 3});
  EXPECT_EQ(SharedModel(&one, {.turns_max = 8}).turns_max(), 1u);
  EXPECT_EQ(SharedModel(&three, {.turns_max = 8}).turns_max(), 3u);
}

}  // namespace
}  // namespace longhold
