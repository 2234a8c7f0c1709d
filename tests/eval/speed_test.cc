// What a speed measurement does on a toy model, and how the report shows it. The speeds themselves
// are not judged here.

#include "eval/speed.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <filesystem>
#include <set>
#include <sstream>

#include "tests/store/temp_dir.h"
#include "tests/support/engines.h"
#include "tests/support/toy_model.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;

TEST(Spread, IsTheMedianAndTheQuartiles) {
  const Spread none = Spread::Of({});
  EXPECT_EQ(none.count, 0u);
  EXPECT_EQ(none.median, 0);
  const Spread one = Spread::Of({7});
  EXPECT_EQ(one.low, 7);
  EXPECT_EQ(one.high, 7);
  const Spread five = Spread::Of({50, 10, 40, 20, 30});
  EXPECT_EQ(five.median, 30);
  EXPECT_EQ(five.low, 20);
  EXPECT_EQ(five.high, 40);
  EXPECT_EQ(five.count, 5u);
  const Spread two = Spread::Of({2, 1});
  EXPECT_EQ(two.median, 1.5);
  EXPECT_EQ(two.low, 1.25);
}

class Trial {
 public:
  Trial()
      : model_([] {
          ToyOptions options;
          options.geometry = TinyGeometry();
          options.answer = "The river froze at the mill, and the mill stood still.";
          options.context_length = 4096;
          return options;
        }()) {
    std::string text;
    for (int i = 0; i < 300; ++i)
      text += "In the year " + std::to_string(i) + " the river froze at the mill. ";
    haystack_ = MakeHaystack("book", text, false);
  }

  Result<std::vector<LengthSpeed>> Go(const SpeedSettings& settings,
                                      const std::string& stop_at = "nowhere") {
    EngineInHome engine(home_ / "home");
    EXPECT_TRUE(engine.UseModel(&model_, nullptr).ok());
    return MeasureSpeed(settings,
                        {.model = model_,
                         .engine = engine,
                         .native = [&](std::span<const TokenId> prefix,
                                       const std::vector<std::vector<TokenId>>& tails,
                                       uint32_t max_tokens) -> Result<std::vector<NativeRun>> {
                           longest_ = std::max(longest_, prefix.size());
                           NativeRun run{.tokens = std::vector<TokenId>(max_tokens, 'a'),
                                         .prefill_tok_s = 1000,
                                         .tail_ms = 5,
                                         .decode_tok_s = 50};
                           return std::vector<NativeRun>(tails.size(), run);
                         },
                         .haystack = haystack_,
                         .stop = &stop_,
                         .on_progress =
                             [&](const EvalProgress& p) {
                               labels_.insert(p.label);
                               if (p.label.find(stop_at) != std::string::npos) stop_ = true;
                             }});
  }
  size_t longest() const { return longest_; }
  const std::set<std::string>& labels() const { return labels_; }
  LanguageModel& model() { return model_; }
  bool empty() const {
    return !fs::exists(home_ / "home/memories") || fs::is_empty(home_ / "home/memories");
  }

 private:
  ToyModel model_;
  TempDir home_;
  Haystack haystack_;
  std::atomic<bool> stop_ = false;
  size_t longest_ = 0;
  std::set<std::string> labels_;
};

SpeedSettings Small() {
  return {.lengths = {1024, 2048},
          .questions = 3,
          .runs = 2,
          .full_length_max = 1500,
          .max_tokens = 16,
          .haystack = "book"};
}

TEST(MeasureSpeed, FillsEveryFigureOfEveryLength) {
  Trial trial;
  const auto speeds = trial.Go(Small());
  ASSERT_TRUE(speeds.ok()) << speeds.status().message();
  ASSERT_EQ(speeds->size(), 2u);
  for (const LengthSpeed& s : *speeds) {
    EXPECT_LE(s.tokens, s.length);
    EXPECT_GT(s.tokens, s.length * 9 / 10);
    EXPECT_EQ(s.alone_prefill_tok_s.count, 4u) << "two before the text and two after it";
    EXPECT_EQ(s.alone_prefill_tok_s.median, 1000);
    EXPECT_EQ(s.alone_decode_tok_s.median, 50);
    EXPECT_GT(s.read_tok_s, 0);
    EXPECT_GT(s.disk_bytes, 0u);
    for (const Spread& spread :
         {s.plan_ms, s.scan_ms, s.recall_ms, s.prompt_ms, s.first_token_ms, s.attended_share})
      EXPECT_EQ(spread.count, 3u);
    EXPECT_GE(s.plan_ms.median, s.scan_ms.median);
    EXPECT_GT(s.attended_share.median, 0);
    EXPECT_EQ(s.decode_tok_s.count, 3u);
  }
  EXPECT_TRUE((*speeds)[0].full.skipped.empty());
  EXPECT_EQ((*speeds)[0].full.tail_ms.count, 3u);
  EXPECT_NE((*speeds)[1].full.skipped.find("--full-max"), std::string::npos);
  EXPECT_LE(trial.longest(), 1100u)
      << "the longer text is not run through the model's own attention";
  EXPECT_TRUE(trial.empty()) << "the texts' memories are gone";
}

TEST(MeasureSpeed, StopsAnywhereAndLeavesNoMemoryBehind) {
  for (const std::string at :
       {"alone", "1k: longhold", "answers", "again", "full attention", "2k"}) {
    Trial trial;
    const auto speeds = trial.Go(Small(), at);
    ASSERT_FALSE(speeds.ok()) << at;
    EXPECT_EQ(speeds.status().code(), StatusCode::kCancelled) << at;
    EXPECT_TRUE(trial.empty()) << at;
  }
}

TEST(SpeedReport, IsAPageOfEightyColumnsAndOneLineOfJson) {
  Trial trial;
  SpeedReport report{.environment = {.version = "1",
                                     .kernels = "avx2",
                                     .model = "toy",
                                     .model_fingerprint = "f",
                                     .profile = "p",
                                     .profile_fingerprint = "q"},
                     .settings = Small(),
                     .machine = MeasureMachine(trial.model(), 1, 1),
                     .lengths = {}};
  EXPECT_GT(report.machine.read_gb_s.median, 0);
  EXPECT_GT(report.machine.memory_bytes, 0u);
  ASSERT_EQ(report.machine.peaks.size(), 3u);
  EXPECT_GT(report.machine.peaks[0].giga_ops.median, 0);
  // more columns than fit, with the largest values to be expected
  for (int i = 0; i < 6; ++i) {
    LengthSpeed s{.length = 1048576,
                  .tokens = 1048576,
                  .read_tok_s = 123456,
                  .first_64k_tok_s = 1,
                  .last_64k_tok_s = 1,
                  .disk_bytes = 30000000000};
    for (Spread* spread : {&s.alone_prefill_tok_s, &s.alone_decode_tok_s, &s.read_pieces_tok_s,
                           &s.first_token_ms, &s.decode_tok_s}) {
      *spread = {.median = 12345.6, .low = 10000.1, .high = 23456.7, .count = 9};
    }
    if (i == 0) s.full.skipped = "longer than --full-max";
    report.lengths.push_back(s);
  }
  const std::string text = SpeedText(report);
  std::istringstream lines(text);
  size_t tables = 0;
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 80u) << line;
    EXPECT_TRUE(line.empty() || line.back() != ' ') << line;
    tables += line.starts_with("ingest, tok/s");
  }
  EXPECT_EQ(tables, 2u);
  EXPECT_NE(text.find("not run"), std::string::npos);
  const boost::json::value json = boost::json::parse(SpeedJson(report));
  EXPECT_EQ(json.at("lengths").as_array().size(), 6u);
  EXPECT_EQ(json.at("lengths").at(0).at("full").at("skipped"), "longer than --full-max");
  EXPECT_NEAR(json.at("lengths").at(1).at("read").at("alone_ratio").to_number<double>(),
              123456 / 12345.6, 1e-9);
  EXPECT_EQ(json.at("machine").at("peaks").as_array().size(), 3u);
}

}  // namespace
}  // namespace longhold
