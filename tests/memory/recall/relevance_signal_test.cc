// Adds a fourth relevance signal, as a contributor would. This file implements it, and a profile
// gives it a weight under its name. No other code knows of it.
//
// The signal is deliberately simple: it points at lines that end with an exclamation mark. With its
// weight the engine must recall such a line, although no word and no head leads there. It must also
// report the signal as the reason and explain its score. Without a weight the signal must not run.
// A profile that weighs an unknown signal must be refused by name.
#include "memory/recall/relevance_signal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memory/recall/question.h"
#include "tests/memory/engine_fixture.h"

namespace longhold {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;

constexpr std::string_view kLoud = "loudness";
constexpr char kShout[] = "Beware of the flood!\n";

class LoudSignal final : public RelevanceSignal {
 public:
  explicit LoudSignal(int* asked) : asked_(asked) {}
  std::string_view name() const override { return kLoud; }
  Result<SignalScores> Score(const Question& question, size_t blocks_max) const override {
    ++*asked_;
    SignalScores scores;
    for (const DocumentRecord& d : question.memory.documents()) {
      for (uint64_t t = 0; t < d.committed_tokens && scores.blocks.size() < blocks_max; ++t) {
        const Result<TextPlace> place = question.memory.Locate(d.id, {t, t + 1});
        if (!place.ok()) return place.status();
        if (place->text != "!") continue;
        scores.blocks.push_back({{d.id, static_cast<uint32_t>(t / kBlockTokens)}, 0.9, t});
      }
    }
    return scores;
  }

 private:
  int* const asked_;
};

class RelevanceSignalTest : public testing::Test {
 protected:
  Status Use(const RecallProfile& profile) {
    EngineOptions options;
    options.signals.push_back(std::make_unique<LoudSignal>(&asked_));
    engine_ = std::make_unique<Engine>(stores_.get(), std::move(options));
    return engine_->UseModel(&model_, &profile);
  }

  const std::unique_ptr<MemProvider> stores_ = NewMemProvider();
  ToyModel model_;
  std::unique_ptr<Engine> engine_;
  int asked_ = 0;
};

TEST_F(RelevanceSignalTest, AFourthSignalNeedsOneFileAndOneWeight) {
  RecallProfile profile = Profile();
  profile.signals[std::string(kLoud)] = 2;
  ASSERT_TRUE(Use(profile).ok());
  std::string text = Tale();
  text.insert(text.find('\n', 5000) + 1, kShout);
  ASSERT_TRUE(engine_->Ingest("tales", {"tale", text}, nullptr, nullptr).ok());
  const Result<RecallReply> r = engine_->Recall("tales", kQuestion, {.explain = true});
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  ASSERT_FALSE(r->spans.empty());
  EXPECT_THAT(r->spans[0].text, HasSubstr(kShout));
  EXPECT_THAT(r->spans[0].reasons, Contains(std::string(kLoud)));
  ASSERT_FALSE(r->explained.empty());
  EXPECT_THAT(r->explained[0].signals, Contains(AllOf(testing::Field(&SignalScore::signal, kLoud),
                                                      testing::Field(&SignalScore::score, 0.9))));
  // The other signals still report their values.
  EXPECT_TRUE(std::any_of(r->spans.begin(), r->spans.end(), [](const RecalledSpan& s) {
    return s.text.find(kNeedle) != std::string::npos;
  }));
  EXPECT_EQ(asked_, 1);
}

TEST_F(RelevanceSignalTest, ASignalWithoutAWeightDoesNotRun) {
  ASSERT_TRUE(Use(Profile()).ok());
  ASSERT_TRUE(engine_->Ingest("tales", {"tale", Tale() + kShout}, nullptr, nullptr).ok());
  ASSERT_TRUE(engine_->Recall("tales", kQuestion, {}).ok());
  EXPECT_EQ(asked_, 0);
}

TEST_F(RelevanceSignalTest, AWeightForAnUnknownSignalIsRefused) {
  RecallProfile profile = Profile();
  profile.signals["smell"] = 1;
  const Status status = Use(profile);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("smell"), HasSubstr("loudness")));
}

}  // namespace
}  // namespace longhold
