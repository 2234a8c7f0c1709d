// A whole evaluation on a toy model: what each mode asks, what context it gets, and that a stopped
// run continues where it stopped. The toy model here repeats its prompt, so an answer is right when
// the prompt contains it.

#include "eval/runner.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <set>

#include "tests/store/temp_dir.h"
#include "tests/support/engines.h"
#include "tests/support/toy_model.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;

class Trial {
 public:
  explicit Trial(const std::string& answer = "no idea")
      : model_([&] {
          ToyOptions options;
          options.geometry = TinyGeometry();
          options.answer = answer;
          options.context_length = 4096;
          return options;
        }()) {
    std::string text;
    for (int i = 0; i < 300; ++i)
      text += "V" + std::to_string(i) + " In the year " + std::to_string(i) +
              " the river froze at the mill.\n";
    haystack_ = MakeHaystack("book", text, true);
  }

  // Stops after `stop_after` rows (0: never). Keeps its rows across calls, as a journal does.
  Result<std::vector<std::string>> Go(const EvalSettings& settings, size_t stop_after = 0) {
    stop_ = false;
    asked_ = 0;
    EngineInHome engine(home_ / "home");
    EXPECT_TRUE(engine.UseModel(&model_, nullptr).ok());
    const EvalParts parts{.model = model_,
                          .engine = engine,
                          .native = [&](std::span<const TokenId> prefix,
                                        const std::vector<std::vector<TokenId>>& tails,
                                        uint32_t) -> Result<std::vector<NativeRun>> {
                            std::vector<NativeRun> runs;
                            for (const auto& tail : tails) {
                              NativeRun run;
                              run.tokens.assign(prefix.begin(), prefix.end());
                              run.tokens.insert(run.tokens.end(), tail.begin(), tail.end());
                              std::string text;
                              for (TokenId& token : run.tokens) {
                                text += model_.Piece(token);
                                // an answer is one line
                                if (model_.Piece(token).find('\n') != std::string::npos)
                                  token = ' ';
                              }
                              prompts_.push_back(text);
                              run.prefill_tok_s = 1000;
                              run.tail_ms = 5;
                              runs.push_back(std::move(run));
                            }
                            return runs;
                          },
                          .embed = nullptr,
                          .haystack = &haystack_,
                          .questions = &questions_,
                          .stop = &stop_,
                          .on_progress =
                              [&](const EvalProgress& p) {
                                EXPECT_LE(p.done, p.total);
                                last_ = p;
                              },
                          .on_row =
                              [&](const EvalRow& row) {
                                rows_.push_back(row);
                                if (++asked_ == stop_after) stop_ = true;
                                return OkStatus();
                              }};
    const std::vector<EvalRow> done = rows_;
    return RunEval(settings, done, parts);
  }

  const std::vector<EvalRow>& rows() const { return rows_; }
  const std::vector<std::string>& prompts() const { return prompts_; }
  const EvalProgress& last() const { return last_; }
  void Ask(const std::string& tsv) { questions_ = *ParseQuestions(tsv, "q"); }
  size_t Memories() const {
    size_t count = 0;
    std::error_code ec;
    for (const auto& entry : fs::directory_iterator(home_ / "home/memories", ec))
      count += entry.is_directory();
    return count;
  }

 private:
  ToyModel model_;
  TempDir home_;
  Haystack haystack_;
  std::vector<FileQuestion> questions_;
  std::atomic<bool> stop_ = false;
  size_t asked_ = 0;
  std::vector<EvalRow> rows_;
  std::vector<std::string> prompts_;
  EvalProgress last_;
};

EvalSettings Small(std::vector<EvalMode> modes) {
  return {.tasks = {"niah_single_2"},
          .lengths = {2048},
          .modes = std::move(modes),
          .depths = 4,
          .questions = 4,
          .max_tokens = 64};
}

std::string RowIds(const std::vector<EvalRow>& rows) {
  std::set<std::string> keys;
  for (const EvalRow& row : rows) keys.insert(row.Key());
  EXPECT_EQ(keys.size(), rows.size()) << "no question twice";
  std::string all;
  for (const std::string& key : keys) all += key + "\n";
  return all;
}

TEST(RunEval, EveryModeGetsTheContextThatItsNameStates) {
  Trial run;
  const auto notes =
      run.Go(Small({EvalMode::kOracle, EvalMode::kRagBm25, EvalMode::kWindow, EvalMode::kFull,
                    EvalMode::kRagEmbed, EvalMode::kRagHybrid, EvalMode::kLonghold}));
  ASSERT_TRUE(notes.ok()) << notes.status().message();
  ASSERT_EQ(run.rows().size(), 28u);
  std::map<EvalMode, std::vector<EvalRow>> by_mode;
  for (const EvalRow& row : run.rows()) by_mode[row.mode].push_back(row);
  for (const EvalRow& row : by_mode[EvalMode::kOracle]) {
    EXPECT_EQ(row.score, 1) << "the evidence stood in the prompt";
    EXPECT_LT(row.tokens_read, 400u);
    EXPECT_FALSE(row.hits.has_value());
  }
  for (const EvalRow& row : by_mode[EvalMode::kRagBm25]) {
    EXPECT_EQ(row.score, 1);
    EXPECT_EQ((*row.hits)[3], 1);
  }
  for (const EvalRow& row : by_mode[EvalMode::kFull]) {
    EXPECT_EQ(row.score, 1);
    EXPECT_GT(row.tokens_read, 2000u);
    EXPECT_EQ(row.first_token_ms, 5) << "the text was read before";
  }
  // Depths 1/8, 3/8, 5/8, 7/8 of 2,048 tokens. The window keeps 64 tokens from the beginning and
  // 960 from the end.
  ASSERT_EQ(by_mode[EvalMode::kWindow].size(), 4u);
  EXPECT_EQ(by_mode[EvalMode::kWindow][0].score, 0);
  EXPECT_EQ((*by_mode[EvalMode::kWindow][0].hits)[3], 0);
  EXPECT_EQ(by_mode[EvalMode::kWindow][3].score, 1);
  EXPECT_EQ((*by_mode[EvalMode::kWindow][3].hits)[0], 1);
  for (const EvalMode mode : {EvalMode::kRagEmbed, EvalMode::kRagHybrid}) {
    for (const EvalRow& row : by_mode[mode]) EXPECT_FALSE(row.skipped.empty());
  }
  for (const EvalRow& row : by_mode[EvalMode::kLonghold]) {
    EXPECT_EQ(row.answer, "no idea");
    EXPECT_EQ(row.score, 0);
    EXPECT_EQ((*row.hits)[3], 1) << "the key's words stand in one place";
    EXPECT_GT(row.first_token_ms, 0);
  }
  EXPECT_EQ(run.last().done, run.last().total);
  EXPECT_EQ(run.Memories(), 0u) << "memories go with their last question";
}

TEST(RunEval, ATextThatTheModelCannotReadIsSkippedWithANote) {
  Trial run;
  EvalSettings settings = Small({EvalMode::kFull, EvalMode::kOracle});
  settings.lengths = {5000};
  ASSERT_TRUE(run.Go(settings).ok());
  ASSERT_EQ(run.rows().size(), 8u);
  for (const EvalRow& row : run.rows()) {
    EXPECT_EQ(row.skipped.starts_with("does not fit"), row.mode == EvalMode::kFull) << row.skipped;
  }
}

TEST(RunEval, AStoppedRunContinuesAndAsksNothingTwice) {
  const EvalSettings settings = Small({EvalMode::kOracle, EvalMode::kLonghold, EvalMode::kWindow});
  Trial whole;
  ASSERT_TRUE(whole.Go(settings).ok());
  for (const size_t after : {1, 4, 6, 8, 11}) {
    Trial run;
    const auto stopped = run.Go(settings, after);
    ASSERT_FALSE(stopped.ok()) << after;
    EXPECT_EQ(stopped.status().code(), StatusCode::kCancelled);
    EXPECT_EQ(run.rows().size(), after);
    EXPECT_EQ(run.Memories(), after > 4 ? 1u : 0u)
        << "the memory waits for the rest of its questions";
    ASSERT_TRUE(run.Go(settings).ok());
    EXPECT_EQ(RowIds(run.rows()), RowIds(whole.rows())) << after;
    EXPECT_EQ(run.Memories(), 0u);
    ASSERT_TRUE(run.Go(settings).ok());
    EXPECT_EQ(run.rows().size(), 12u) << "nothing was left";
  }
}

TEST(RunEval, OnePerContextMakesATextForEveryQuestion) {
  EvalSettings settings = Small({EvalMode::kOracle});
  settings.one_per_text = true;
  Trial run;
  ASSERT_TRUE(run.Go(settings).ok());
  std::set<uint32_t> texts, cells;
  for (const EvalRow& row : run.rows()) {
    EXPECT_EQ(row.question, 0u);
    texts.insert(row.text);
    cells.insert(row.depth_cell);
  }
  EXPECT_EQ(texts.size(), 4u);
  EXPECT_EQ(cells.size(), 4u);
}

TEST(RunEval, QuestionFilesAskOnlyWhatTheTextAnswersAndReportHowMuchThatIs) {
  Trial run;
  run.Ask(
      "V3\tWhen did the river freeze first?\tyear 3|never\nV299\tWhen last?\t299\n-\tWhy?\tcold\n");
  EvalSettings settings = Small({EvalMode::kOracle, EvalMode::kLonghold});
  settings.tasks = {"questions"};
  const auto notes = run.Go(settings);
  ASSERT_TRUE(notes.ok()) << notes.status().message();
  ASSERT_EQ(notes->size(), 1u);
  EXPECT_NE((*notes)[0].find("2 of 3 questions"), std::string::npos) << (*notes)[0];
  ASSERT_EQ(run.rows().size(), 4u);
  EXPECT_EQ(run.rows()[0].score, 1);
  EXPECT_EQ(run.rows()[1].skipped, "no evidence given");
  EXPECT_FALSE(run.rows()[3].hits.has_value());
  const size_t before = run.rows().size();
  ASSERT_TRUE(run.Go(settings).ok());
  EXPECT_EQ(run.rows().size(), before);
}

TEST(RunEval, ATaskThatDoesNotFitIsANoteAmongOthersAndAnErrorAlone) {
  Trial run;
  EvalSettings settings = Small({EvalMode::kOracle});
  settings.lengths = {100, 2048};
  const auto notes = run.Go(settings);
  ASSERT_TRUE(notes.ok());
  EXPECT_EQ(notes->size(), 1u);
  EXPECT_EQ(run.rows().size(), 4u);
  Trial alone;
  settings.lengths = {100};
  EXPECT_EQ(alone.Go(settings).status().code(), StatusCode::kInvalidArgument);
}

TEST(RunEval, AnswersMayBeAnyBytes) {
  Trial run(std::string("caf\xC3 \xFF!"));
  ASSERT_TRUE(run.Go(Small({EvalMode::kLonghold})).ok());
  for (const EvalRow& row : run.rows()) {
    const auto read = ParseRow(RowJson(row));
    ASSERT_TRUE(read.ok());
    EXPECT_EQ(read->answer, "caf? ?!");
  }
}

}  // namespace
}  // namespace longhold
