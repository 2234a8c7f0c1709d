// The charts of a report: from summaries and rows to the figures of eval/chart.h.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "eval/report.h"

namespace longhold {

// One file's name without its ending, and the picture.
struct ReportChart {
  std::string name;
  std::string svg;
};

// For each task: score by length as curves, and hit@k of its longest length as bars where evidence
// was looked for; for each task and mode with answers at more than one depth or length: score by
// length and depth as a heatmap. Pure.
std::vector<ReportChart> DrawReport(const EvalReport& report);

// Each chart as NAME.svg and NAME.png in `directory`. Errors: those of the file system; a PNG that
// cannot be drawn is left out.
Status WriteCharts(const EvalReport& report, const std::string& directory);

}  // namespace longhold
