// What a run writes. Reading it back gives the same values. Torn and damaged files are detected.
// Its summaries equal those of its rows.

#include "eval/report.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "eval/journal.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;

class TempDir {
 public:
  TempDir() {
    std::string pattern = (fs::temp_directory_path() / "longhold-report-XXXXXX").string();
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    path_ = pattern;
  }
  ~TempDir() { fs::remove_all(path_); }
  std::string path() const { return path_; }

 private:
  std::string path_;
};

EvalRow Row(EvalMode mode, uint32_t question, double score) {
  EvalRow row;
  row.task = "niah_single_1";
  row.length = 4096;
  row.question = question;
  row.mode = mode;
  row.text_tokens = 4050;
  row.depth = 0.25;
  row.depth_cell = 2;
  row.asked = "What, \"really\"?";
  row.answer = "caf\xC3\xA9,\n1";
  row.expected = {"1", "2"};
  row.score = score;
  if (mode == EvalMode::kLonghold) row.hits = {0.25, 0.5, 1, 1};
  row.first_token_ms = 100.0 * (question + 1);
  row.tokens_read = 500;
  row.read_seconds = 2.5;
  row.ram_bytes = 1000 + question;
  row.coverage = 0.125;
  return row;
}

EvalSettings OddSettings() {
  return {.tasks = {"vt", "questions"},
          .lengths = {0, 131072},
          .modes = {EvalMode::kRagBm25, EvalMode::kFull},
          .depths = 3,
          .questions = 4,
          .texts = 2,
          .one_per_text = true,
          .seed = ~0ull,
          .haystack = "a b",
          .questions_file = "q",
          .chunks = 5,
          .window_tokens = 300,
          .max_tokens = 9,
          .answer_prefix = false,
          .codec = "k5v4",
          .keep = true};
}

TEST(Lengths, ParseAndPrint) {
  EXPECT_EQ(*ParseLength("4k"), 4096u);
  EXPECT_EQ(*ParseLength("1M"), 1048576u);
  EXPECT_EQ(*ParseLength("5000"), 5000u);
  EXPECT_EQ(*ParseLength("whole"), 0u);
  for (const char* bad : {"", "k", "4kk", "-1", "0", "4.5k", "99999999999m", "4g"})
    EXPECT_FALSE(ParseLength(bad).ok()) << bad;
  for (const char* name : {"4k", "1m", "5000", "whole"})
    EXPECT_EQ(LengthName(*ParseLength(name)), name);
}

TEST(Settings, ReadBackUnchanged) {
  const EvalSettings settings = OddSettings();
  const auto read = ParseSettings(SettingsJson(settings));
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(SettingsJson(*read), SettingsJson(settings));
  EXPECT_EQ(read->seed, ~0ull);
  EXPECT_EQ(read->modes, settings.modes);
  EXPECT_EQ(read->lengths, settings.lengths);
  // A run begun before these settings existed continues as it began.
  std::string older = SettingsJson(settings);
  older.replace(older.find(",\"codec\":"), older.rfind('}') - older.find(",\"codec\":"), "");
  ASSERT_TRUE(ParseSettings(older).ok()) << older;
  EXPECT_EQ(ParseSettings(older)->codec, "exact");
  EXPECT_FALSE(ParseSettings(older)->keep);
  EXPECT_FALSE(ParseSettings("{}").ok());
  EXPECT_FALSE(ParseSettings("[1]").ok());
  std::string wrong = SettingsJson(settings);
  wrong.replace(wrong.find("\"depths\":3"), 10, "\"depths\":\"\"");
  EXPECT_NE(ParseSettings(wrong).status().message().find("depths"), std::string::npos);
}

TEST(Rows, ReadBackUnchanged) {
  for (const EvalMode mode : {EvalMode::kLonghold, EvalMode::kOracle}) {
    const EvalRow row = Row(mode, 3, 0.5);
    const auto read = ParseRow(RowJson(row));
    ASSERT_TRUE(read.ok()) << read.status().message();
    EXPECT_EQ(RowJson(*read), RowJson(row));
    EXPECT_EQ(read->Key(), row.Key());
    EXPECT_EQ(read->hits, row.hits);
  }
  EXPECT_FALSE(ParseRow("{\"task\":1}").ok());
}

TEST(Rows, FromBeforeAbstentionAreStillRead) {
  std::string old = RowJson(Row(EvalMode::kLonghold, 3, 0.5));
  const size_t at = old.find("\"token_gain\""), end = old.find("\"skipped\"");
  ASSERT_LT(at, end);
  old.erase(at, end - at);
  const auto read = ParseRow(old);
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_FALSE(read->abstained);
}

TEST(Summary, CountsAbstentionsRightAndWrong) {
  std::vector<EvalRow> rows;
  for (uint32_t i = 0; i < 7; ++i) {
    rows.push_back(Row(EvalMode::kLonghold, i, i < 3 ? 0 : 1));
    rows.back().unanswerable = i < 4;
    rows.back().abstained = i >= 2 && i < 5;  // 2 and 3 correctly, 4 wrongly
  }
  const auto read = ParseRow(RowJson(rows[2]));
  ASSERT_TRUE(read.ok());
  EXPECT_TRUE(read->unanswerable && read->abstained);
  const std::vector<EvalSummary> all = Summarise(rows, 1);
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].unanswerable, 4u);
  EXPECT_EQ(all[0].abstained, 2u);
  EXPECT_EQ(all[0].abstained_wrongly, 1u);
  EvalReport report{.environment = {}, .settings = {}, .notes = {}, .rows = rows, .results = all};
  EXPECT_NE(ReportText(report).find(
                "abstained: 2 of 4 (50.0%) without an answer, 1 of 3 (33.3%) others\n"),
            std::string::npos)
      << ReportText(report);
  EXPECT_NE(
      ReportJson(report).find(
          R"("abstention":{"unanswerable":4,"abstained":2,"answerable":3,"abstained_wrongly":1})"),
      std::string::npos);
  for (EvalRow& row : rows) row.unanswerable = row.abstained = false;
  report.results = Summarise(rows, 1);
  EXPECT_EQ(ReportText(report).find("abstained"), std::string::npos)
      << "only where there is something to say";
}

TEST(Summary, EqualsTheSummaryOfItsRows) {
  std::vector<EvalRow> rows = {Row(EvalMode::kLonghold, 0, 1),   Row(EvalMode::kOracle, 0, 1),
                               Row(EvalMode::kLonghold, 1, 0),   Row(EvalMode::kOracle, 1, 0.6),
                               Row(EvalMode::kLonghold, 2, 0.2), Row(EvalMode::kFull, 0, 0)};
  rows.back().skipped = "does not fit: 9 tokens";
  rows[2].text = 1;  // of another text, whose ingest took time too
  const std::vector<EvalSummary> all = Summarise(rows, 1);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].mode, EvalMode::kLonghold);
  EXPECT_EQ(all[0].asked, 3u);
  EXPECT_DOUBLE_EQ(all[0].score, 0.4);
  EXPECT_DOUBLE_EQ(*all[0].retention, 0.4 / 0.8);
  EXPECT_DOUBLE_EQ(all[0].first_token_ms, 200);
  EXPECT_DOUBLE_EQ(all[0].read_seconds, 5);
  EXPECT_EQ(all[0].ram_bytes, 1002u);
  EXPECT_EQ(*all[0].hits, (std::array<double, 4>{0.25, 0.5, 1, 1}));
  EXPECT_DOUBLE_EQ(*all[1].retention, 1);
  EXPECT_FALSE(all[1].hits.has_value());
  EXPECT_EQ(all[2].asked, 0u);
  EXPECT_EQ(all[2].skipped, 1u);
  EXPECT_FALSE(all[2].retention.has_value());

  EvalReport report{
      .environment = {}, .settings = {}, .notes = {"a note"}, .rows = rows, .results = all};
  const std::string text = ReportText(report);
  EXPECT_NE(text.find("does not fit: 9 tokens"), std::string::npos);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80u) << line;
  EXPECT_EQ(ReportJson(report).find('\n'), std::string::npos);
  const std::string csv = ReportCsv(report);
  EXPECT_NE(csv.find("\"What, \"\"really\"\"?\",\"1|2\",\"caf\xC3\xA9,\n1\""), std::string::npos)
      << csv;
}

TEST(Report, IsWrittenWithItsCharts) {
  const TempDir dir;
  EvalReport report{.environment = {},
                    .settings = {},
                    .notes = {},
                    .rows = {Row(EvalMode::kOracle, 0, 1)},
                    .results = {}};
  std::string drawn;
  ASSERT_TRUE(WriteReport(report, dir.path(), [&](const EvalReport&, const std::string& where) {
                drawn = where;
                return OkStatus();
              }).ok());
  EXPECT_EQ(drawn, dir.path());
  EXPECT_TRUE(fs::exists(dir.path() + "/report.json"));
  EXPECT_TRUE(fs::exists(dir.path() + "/results.csv"));
  EXPECT_FALSE(WriteReport(report, dir.path() + "/none", nullptr).ok());
}

TEST(Journal, ContinuesWhereItWasCutOff) {
  const TempDir dir;
  const std::string path = dir.path() + "/run", file = path + "/results.jsonl";
  const EvalEnvironment environment = {"1", "avx2", "m", "f1", "p", "f2"};
  {
    auto journal = Journal::Create(path, OddSettings(), environment);
    ASSERT_TRUE(journal.ok()) << journal.status().message();
    ASSERT_TRUE(journal->Append(Row(EvalMode::kOracle, 0, 1)).ok());
    ASSERT_TRUE(journal->Append(Row(EvalMode::kOracle, 1, 1)).ok());
  }
  EXPECT_EQ(Journal::Create(path, OddSettings(), environment).status().code(),
            StatusCode::kAlreadyExists);
  // the machine stopped while it wrote the last line
  fs::resize_file(file, fs::file_size(file) - 7);
  {
    auto journal = Journal::Open(path);
    ASSERT_TRUE(journal.ok()) << journal.status().message();
    ASSERT_EQ(journal->rows().size(), 1u);
    EXPECT_EQ(journal->environment().profile_fingerprint, "f2");
    EXPECT_EQ(SettingsJson(journal->settings()), SettingsJson(OddSettings()));
    ASSERT_TRUE(journal->Append(Row(EvalMode::kOracle, 2, 1)).ok());
  }
  auto journal = Journal::Open(path);
  ASSERT_TRUE(journal.ok()) << journal.status().message();
  ASSERT_EQ(journal->rows().size(), 2u);
  EXPECT_EQ(journal->rows()[1].question, 2u);
}

TEST(Journal, DamageInTheMiddleIsReportedWithItsLine) {
  const TempDir dir;
  EXPECT_EQ(Journal::Open(dir.path()).status().code(), StatusCode::kNotFound);
  { ASSERT_TRUE(Journal::Create(dir.path(), OddSettings(), {}).ok()); }
  std::ofstream(dir.path() + "/results.jsonl", std::ios::app)
      << "{broken\n"
      << RowJson(Row(EvalMode::kOracle, 0, 1)) << "\n";
  const auto opened = Journal::Open(dir.path());
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.status().code(), StatusCode::kDataLoss);
  EXPECT_NE(opened.status().message().find("line 2"), std::string::npos);
  std::ofstream(dir.path() + "/results.jsonl", std::ios::trunc) << "";
  EXPECT_EQ(Journal::Open(dir.path()).status().code(), StatusCode::kDataLoss);
}

}  // namespace
}  // namespace longhold
