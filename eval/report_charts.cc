#include "eval/report_charts.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "eval/chart.h"
#include "eval/chart_png.h"

namespace longhold {
namespace {

constexpr double kPngScale = 3;  // pixels per unit: sharp in print at the width of a column

void AddOnce(uint64_t value, std::vector<uint64_t>* list) {
  if (std::find(list->begin(), list->end(), value) == list->end()) list->push_back(value);
}

// The summaries of a task that have at least one answer.
std::vector<const EvalSummary*> Answered(const EvalReport& report, const std::string& task) {
  std::vector<const EvalSummary*> out;
  for (const EvalSummary& s : report.results) {
    if (s.task == task && s.asked > 0) out.push_back(&s);
  }
  return out;
}

uint64_t Tokens(const EvalSummary& s) {
  return s.length > 0 ? s.length : std::max<uint64_t>(1, static_cast<uint64_t>(s.text_tokens));
}

std::string CurvesOf(const EvalReport& report, const std::string& task,
                     const std::vector<const EvalSummary*>& answered) {
  CurvesChart chart{.title = task, .model = report.environment.model, .curves = {}};
  for (const EvalSummary* s : answered) {
    const std::string mode(EvalModeName(s->mode));
    auto curve = std::find_if(chart.curves.begin(), chart.curves.end(),
                              [&](const Curve& c) { return c.mode == mode; });
    if (curve == chart.curves.end())
      curve = chart.curves.insert(curve, {.mode = mode, .points = {}});
    curve->points.push_back({Tokens(*s), s->score, s->score_interval.low, s->score_interval.high});
  }
  for (Curve& curve : chart.curves) {
    std::sort(curve.points.begin(), curve.points.end(),
              [](const CurvePoint& a, const CurvePoint& b) { return a.length < b.length; });
  }
  return CurvesSvg(chart);
}

std::string HitsOf(const EvalReport& report, const std::string& task,
                   const std::vector<const EvalSummary*>& answered) {
  uint64_t longest = 0;
  for (const EvalSummary* s : answered) longest = std::max(longest, Tokens(*s));
  HitChart chart{.title = task + ", " + TokensLabel(longest),
                 .model = report.environment.model,
                 .ks = {1, 4, 8, 32},
                 .modes = {}};
  for (const EvalSummary* s : answered) {
    if (Tokens(*s) != longest || !s->hits) continue;
    chart.questions = s->asked;
    chart.modes.push_back({std::string(EvalModeName(s->mode)), {s->hits->begin(), s->hits->end()}});
  }
  return chart.modes.empty() ? std::string() : HitSvg(chart);
}

std::string HeatmapOf(const EvalReport& report, const std::string& task, EvalMode mode) {
  // (depth cell, length) -> sum, count
  std::map<std::pair<uint32_t, uint64_t>, std::pair<double, uint32_t>> cells;
  std::vector<uint64_t> lengths, depths;
  for (const EvalRow& row : report.rows) {
    if (row.task != task || row.mode != mode || !row.skipped.empty() || row.length == 0) continue;
    AddOnce(row.length, &lengths);
    AddOnce(row.depth_cell, &depths);
    auto& [sum, count] = cells[{row.depth_cell, row.length}];
    sum += row.score;
    ++count;
  }
  if (lengths.size() * depths.size() < 2 || lengths.size() > 64 || depths.size() > 64) return "";
  std::sort(lengths.begin(), lengths.end());
  std::sort(depths.begin(), depths.end());
  HeatmapChart chart{.title = task,
                     .model = report.environment.model,
                     .mode = std::string(EvalModeName(mode)),
                     .lengths = lengths,
                     .depths = {},
                     .scores = {}};
  for (const uint64_t depth : depths) {
    chart.depths.push_back((static_cast<double>(depth) + 0.5) /
                           std::max(1u, report.settings.depths));
    for (const uint64_t length : lengths) {
      const auto cell = cells.find({static_cast<uint32_t>(depth), length});
      chart.scores.push_back(cell == cells.end()
                                 ? std::nullopt
                                 : std::optional(cell->second.first / cell->second.second));
    }
  }
  return HeatmapSvg(chart);
}

}  // namespace

std::vector<ReportChart> DrawReport(const EvalReport& report) {
  std::vector<std::string> tasks;
  for (const EvalSummary& s : report.results) {
    if (std::find(tasks.begin(), tasks.end(), s.task) == tasks.end()) tasks.push_back(s.task);
  }
  std::vector<ReportChart> charts;
  const auto add = [&](const std::string& name, std::string svg) {
    if (!svg.empty()) charts.push_back({name, std::move(svg)});
  };
  for (const std::string& task : tasks) {
    const std::vector<const EvalSummary*> answered = Answered(report, task);
    if (answered.empty()) continue;
    add(task + "-scores", CurvesOf(report, task, answered));
    add(task + "-hits", HitsOf(report, task, answered));
    std::vector<EvalMode> modes;
    for (const EvalSummary* s : answered) {
      if (std::find(modes.begin(), modes.end(), s->mode) != modes.end()) continue;
      modes.push_back(s->mode);
      add(task + "-" + std::string(EvalModeName(s->mode)) + "-depths",
          HeatmapOf(report, task, s->mode));
    }
  }
  return charts;
}

Status WriteCharts(const EvalReport& report, const std::string& directory) {
  for (const ReportChart& chart : DrawReport(report)) {
    const std::filesystem::path base = std::filesystem::path(directory) / chart.name;
    LH_RETURN_IF_ERROR(WriteReportFile(base.string() + ".svg", chart.svg));
    // A machine without fonts cannot render the PNG; the SVG is enough.
    if (const Result<std::string> png = RenderPng(chart.svg, kPngScale); png.ok())
      LH_RETURN_IF_ERROR(WriteReportFile(base.string() + ".png", *png));
  }
  return OkStatus();
}

}  // namespace longhold
