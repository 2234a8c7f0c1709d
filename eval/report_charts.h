// The charts of a report: converts summaries and rows to the charts of eval/chart.h.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "eval/report.h"

namespace longhold {

// A chart and its file name without extension.
struct ReportChart {
  std::string name;
  std::string svg;
};

// For each task: curves of the score by length and, if hit@k was measured, bars of hit@k for the
// longest length. For each task and mode with answers at more than one depth or length: a heatmap
// of the score by length and depth. Pure.
std::vector<ReportChart> DrawReport(const EvalReport& report);

// Writes each chart as NAME.svg and NAME.png into `directory`. A PNG that cannot be rendered is
// left out. Errors: those of WriteReportFile.
Status WriteCharts(const EvalReport& report, const std::string& directory);

}  // namespace longhold
