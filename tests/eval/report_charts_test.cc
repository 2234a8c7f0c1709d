// DrawReport on a report with known rows: which charts it draws, and that they contain the values.
#include "eval/report_charts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace longhold {
namespace {

EvalReport Report() {
  EvalReport report;
  report.environment.model = "A model <with a name>";
  report.settings.depths = 2;
  for (const uint64_t length : {4096u, 32768u}) {
    for (const EvalMode mode : {EvalMode::kLonghold, EvalMode::kOracle}) {
      for (uint32_t cell = 0; cell < 2; ++cell) {
        EvalRow row;
        row.task = "niah_single_1";
        row.length = length;
        row.mode = mode;
        row.depth_cell = cell;
        row.question = cell;
        row.score = cell == 0 ? 1 : 0.25;
        if (mode == EvalMode::kLonghold) row.hits = {1, 1, 1, 1};
        report.rows.push_back(row);
      }
    }
  }
  report.results = Summarise(report.rows, 1);
  return report;
}

TEST(DrawReport, DrawsCurvesHitsAndAHeatmapForEachMode) {
  std::vector<std::string> names;
  for (const ReportChart& chart : DrawReport(Report())) {
    names.push_back(chart.name);
    EXPECT_EQ(chart.svg.find("<with a name>"), std::string::npos) << "not escaped";
  }
  EXPECT_THAT(names,
              testing::ElementsAre("niah_single_1-scores", "niah_single_1-hits",
                                   "niah_single_1-longhold-depths", "niah_single_1-oracle-depths"));
}

TEST(DrawReport, OmitsChartsThatWereNotRequested) {
  EvalReport report = Report();
  for (EvalRow& row : report.rows) row.skipped = "does not fit";
  report.results = Summarise(report.rows, 1);
  EXPECT_TRUE(DrawReport(report).empty());
  EXPECT_TRUE(DrawReport(EvalReport{}).empty());
}

}  // namespace
}  // namespace longhold
