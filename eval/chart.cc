#include "eval/chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "base/status.h"
#include "eval/svg.h"

namespace longhold {
namespace {

constexpr double kWidth = 420;  // width of curves and bars; minimum width of a heatmap
constexpr double kPad = 10;
constexpr double kTitleSize = 13, kLabelSize = 11;
constexpr std::string_view kInk = "#222", kSoft = "#555", kGrid = "#e4e4e4", kAxis = "#888";

struct Rgb {
  double r, g, b;  // 0..255
};

std::string Hex(const Rgb& c) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out = "#";
  for (const double part : {c.r, c.g, c.b}) {
    const auto byte = static_cast<unsigned>(std::lround(std::clamp(part, 0.0, 255.0)));
    out += {kDigits[byte >> 4], kDigits[byte & 15]};
  }
  return out;
}

Rgb Mix(const Rgb& a, const Rgb& b, double t) {
  return {a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t};
}

// The colour map viridis (matplotlib, CC0) at every tenth. Its lightness grows evenly, so it also
// works for colour-blind readers and in grey.
Rgb Viridis(double score) {
  static constexpr std::array<Rgb, 11> kStops = {{{68, 1, 84},
                                                  {72, 36, 117},
                                                  {65, 68, 135},
                                                  {53, 95, 141},
                                                  {42, 120, 142},
                                                  {33, 145, 140},
                                                  {34, 168, 132},
                                                  {68, 191, 112},
                                                  {122, 209, 81},
                                                  {189, 223, 38},
                                                  {253, 231, 37}}};
  const double at = std::clamp(score, 0.0, 1.0) * 10;
  const size_t i = std::min<size_t>(static_cast<size_t>(at), 9);
  return Mix(kStops[i], kStops[i + 1], at - static_cast<double>(i));
}

// Black or white, whichever has the higher contrast on `c`. By WCAG 2 relative luminance both are
// equal at 0.179.
std::string_view InkOn(const Rgb& c) {
  const auto linear = [](double v) {
    return v <= 0.04045 * 255 ? v / 255 / 12.92 : std::pow((v / 255 + 0.055) / 1.055, 2.4);
  };
  return 0.2126 * linear(c.r) + 0.7152 * linear(c.g) + 0.0722 * linear(c.b) > 0.179 ? "#000"
                                                                                    : "#fff";
}

std::optional<double> Clean(std::optional<double> score) {
  if (!score || !std::isfinite(*score)) return std::nullopt;
  return std::clamp(*score, 0.0, 1.0);
}

// The score with two decimals. Only exactly 1 is shown as "1" and only exactly 0 as "0".
std::string ScoreLabel(double score) {
  if (score <= 0) return "0";
  if (score >= 1) return "1";
  const int hundredths = std::clamp(static_cast<int>(std::lround(score * 100)), 1, 99);
  return std::string("0.") + static_cast<char>('0' + hundredths / 10) +
         static_cast<char>('0' + hundredths % 10);
}

std::string Join(std::string_view a, std::string_view b) {
  return a.empty() || b.empty() ? std::string(a) + std::string(b)
                                : std::string(a) + " \u00b7 " + std::string(b);
}

// Draws the title, then model and detail below it, on one line if they fit. Returns the y where the
// plot may begin.
double DrawHead(SvgPage* page, double width, std::string_view title, std::string_view model,
                std::string_view detail) {
  double y = kPad;
  // Bold text is wider.
  for (const std::string& line : WrapText(title, kTitleSize * 1.08, width - 2 * kPad, 2)) {
    y += kTitleSize + 2;
    page->Text(kPad, y, line, {.size = kTitleSize, .fill = kInk, .bold = true});
  }
  std::vector<std::string> lines = {Join(model, detail)};
  if (TextWidth(lines[0], kLabelSize) > width - 2 * kPad && !detail.empty())
    lines = {std::string(model), std::string(detail)};
  for (const std::string& line : lines) {
    if (line.empty()) continue;
    y += kLabelSize + 4;
    page->Text(kPad, y, FitText(line, kLabelSize, width - 2 * kPad), {.fill = kSoft});
  }
  return y + 12;
}

// ------------------------------------------------------------------------------------------------
// heatmap

constexpr std::string_view kHatch =
    "<pattern id=\"missing\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" "
    "patternTransform=\"rotate(45)\">"
    "<rect width=\"6\" height=\"6\" fill=\"#f4f4f4\"/><rect width=\"1.2\" height=\"6\" "
    "fill=\"#bdbdbd\"/></pattern>";

void DrawCells(SvgPage* page, const HeatmapChart& chart, double left, double top, double cell_width,
               double cell_height) {
  for (size_t row = 0; row < chart.depths.size(); ++row) {
    for (size_t column = 0; column < chart.lengths.size(); ++column) {
      const std::optional<double> score = Clean(chart.scores[row * chart.lengths.size() + column]);
      const double x = left + static_cast<double>(column) * cell_width,
                   y = top + static_cast<double>(row) * cell_height;
      const Rgb colour = Viridis(score.value_or(0));
      page->Rect(x + 0.5, y + 0.5, cell_width - 1, cell_height - 1,
                 score ? Hex(colour) : "url(#missing)");
      if (!score) continue;
      page->Text(x + cell_width / 2, y + cell_height / 2 + 3.6, ScoreLabel(*score),
                 {.size = 10, .fill = InkOn(colour), .anchor = "middle"});
    }
  }
}

void DrawColourBar(SvgPage* page, double x, double top, double height) {
  constexpr int kSteps = 50;
  const double step = height / kSteps;
  for (int i = 0; i < kSteps; ++i) {  // each is a little taller than its step, to avoid seams
    const double overlap = i + 1 < kSteps ? 0.5 : 0;
    page->Rect(x, top + i * step, 10, step + overlap, Hex(Viridis(1 - (i + 0.5) / kSteps)));
  }
  for (const double tick : {0.0, 0.5, 1.0}) {
    const double y = top + (1 - tick) * height;
    page->Line(x + 10, y, x + 13, y, kAxis, 1);
    page->Text(x + 16, y + 3.6, SvgNumber(tick), {.size = 10, .fill = kSoft});
  }
  page->Text(x + 44, top + height / 2, "score", {.fill = kInk, .anchor = "middle", .rotate = -90});
}

}  // namespace

std::string TokensLabel(uint64_t tokens) {
  const auto scaled = [&](double unit) {
    return SvgNumber(std::round(static_cast<double>(tokens) / unit * 10) / 10);
  };
  // The largest value that is shown in K is 1023.9K.
  if (tokens >= 1024 * 1024 - 51) return scaled(1024 * 1024) + "M";
  if (tokens >= 1024) return scaled(1024) + "K";
  return std::to_string(tokens);
}

std::string HeatmapSvg(const HeatmapChart& chart) {
  const size_t columns = chart.lengths.size(), rows = chart.depths.size();
  LH_CHECK(columns >= 1 && columns <= 64 && rows >= 1 && rows <= 64 &&
           chart.scores.size() == columns * rows);
  double label_width = 0;
  for (const uint64_t length : chart.lengths)
    label_width = std::max(label_width, TextWidth(TokensLabel(length), 10));
  const double cell_width =
      std::max(std::clamp(308.0 / static_cast<double>(columns), 34.0, 56.0), label_width + 4);
  const double cell_height = std::clamp(264.0 / static_cast<double>(rows), 17.0, 26.0);
  const double plot_width = cell_width * static_cast<double>(columns),
               plot_height = cell_height * static_cast<double>(rows);
  constexpr double left = 54;
  const double bar_height = std::max(plot_height, 52.0);
  const double width = std::max(left + plot_width + 66, 300.0);

  SvgPage page;
  const double top = DrawHead(&page, width, chart.title, chart.model, chart.mode);
  DrawCells(&page, chart, left, top, cell_width, cell_height);
  for (size_t column = 0; column < columns; ++column) {
    page.Text(left + (static_cast<double>(column) + 0.5) * cell_width, top + plot_height + 14,
              TokensLabel(chart.lengths[column]), {.size = 10, .fill = kInk, .anchor = "middle"});
  }
  for (size_t row = 0; row < rows; ++row) {
    page.Text(left - 6, top + (static_cast<double>(row) + 0.5) * cell_height + 3.6,
              SvgNumber(std::round(chart.depths[row] * 1000) / 10),
              {.size = 10, .fill = kInk, .anchor = "end"});
  }
  page.Text(16, top + bar_height / 2, "depth (%)", {.anchor = "middle", .rotate = -90});
  DrawColourBar(&page, left + plot_width + 14, top, bar_height);
  double bottom = top + std::max(plot_height + 32, bar_height + 22);
  const bool centred = plot_width > 140;  // else the caption is wider than the plot
  page.Text(centred ? left + plot_width / 2 : left, bottom, "context length (tokens)",
            {.anchor = centred ? "middle" : "start"});
  const bool missing = std::any_of(chart.scores.begin(), chart.scores.end(),
                                   [](const auto& s) { return !Clean(s); });
  if (missing) {
    bottom += 18;
    page.Rect(left, bottom - 9, 16, 10, "url(#missing)");
    page.Text(left + 22, bottom, "not measured", {.size = 10, .fill = kSoft});
  }
  return page.Finish(width, bottom + kPad, Join(chart.title, Join(chart.model, chart.mode)),
                     missing ? kHatch : "");
}

// ------------------------------------------------------------------------------------------------
// curves

namespace {

// The palette of Okabe and Ito without its yellow, which is too light on paper. Dashes and markers
// distinguish the modes without colour.
constexpr std::array<std::string_view, 6> kColours = {"#0072b2", "#d55e00", "#009e73",
                                                      "#cc79a7", "#56b4e9", "#000000"};
constexpr std::array<std::string_view, 6> kDashes = {"",        "6 3",  "2 2.5",
                                                     "9 3 2 3", "12 3", "4 2 1.5 2 1.5 2"};
constexpr size_t kCurvesMax = 12;

// Six marker shapes. From the seventh curve on the same shapes are hollow.
std::string Marker(size_t curve, double x, double y) {
  const auto path = [&](std::initializer_list<std::pair<double, double>> points) {
    std::string d;
    for (const auto& [dx, dy] : points)
      d += (d.empty() ? "M" : "L") + SvgNumber(x + dx) + " " + SvgNumber(y + dy);
    return "<path d=\"" + d + "Z\"";
  };
  std::string shape;
  switch (curve % 6) {
    case 0:
      shape = "<circle cx=\"" + SvgNumber(x) + "\" cy=\"" + SvgNumber(y) + "\" r=\"3.2\"";
      break;
    case 1: shape = path({{-2.9, -2.9}, {2.9, -2.9}, {2.9, 2.9}, {-2.9, 2.9}}); break;
    case 2: shape = path({{0, -3.8}, {3.6, 2.6}, {-3.6, 2.6}}); break;
    case 3: shape = path({{0, -4}, {4, 0}, {0, 4}, {-4, 0}}); break;
    case 4: shape = path({{0, 3.8}, {3.6, -2.6}, {-3.6, -2.6}}); break;
    default:
      shape = path({{-1.2, -3.8},
                    {1.2, -3.8},
                    {1.2, -1.2},
                    {3.8, -1.2},
                    {3.8, 1.2},
                    {1.2, 1.2},
                    {1.2, 3.8},
                    {-1.2, 3.8},
                    {-1.2, 1.2},
                    {-3.8, 1.2},
                    {-3.8, -1.2},
                    {-1.2, -1.2}});
  }
  const std::string colour(kColours[curve % 6]);
  return shape + (curve < 6 ? " fill=\"" + colour + "\" stroke=\"#fff\" stroke-width=\"0.8\"/>\n"
                            : " fill=\"#fff\" stroke=\"" + colour + "\" stroke-width=\"1.4\"/>\n");
}

std::string Stroke(size_t curve) {
  const std::string_view dash = kDashes[(curve + curve / 6) % 6];
  return "fill=\"none\" stroke=\"" + std::string(kColours[curve % 6]) +
         "\" stroke-width=\"1.8\" stroke-linejoin=\"round\"" +
         (dash.empty() ? "" : " stroke-dasharray=\"" + std::string(dash) + "\"");
}

// Maps lengths and scores to positions on the page.
struct Frame {
  double left, top, width, height, log_min, log_max;
  double X(uint64_t length) const {
    const double log = std::log2(static_cast<double>(std::max<uint64_t>(length, 1)));
    return left + width * (log - log_min) / (log_max - log_min);
  }
  double Y(double score) const { return top + height * (1 - std::clamp(score, 0.0, 1.0)); }
};

std::vector<uint64_t> AllLengths(const std::vector<Curve>& curves) {
  std::vector<uint64_t> lengths;
  for (const Curve& curve : curves) {
    for (const CurvePoint& point : curve.points)
      lengths.push_back(std::max<uint64_t>(point.length, 1));
  }
  std::sort(lengths.begin(), lengths.end());
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  return lengths;
}

// Leaves a tenth of the range free at both ends. A single length is centred in a range of two
// octaves.
Frame MakeFrame(const std::vector<uint64_t>& lengths, double left, double top, double width,
                double height) {
  const double low = lengths.empty() ? 12 : std::log2(static_cast<double>(lengths.front()));
  const double high = lengths.empty() ? 20 : std::log2(static_cast<double>(lengths.back()));
  const double margin = std::max((high - low) * 0.05, high > low ? 0.05 : 1.0);
  return {left, top, width, height, low - margin, high + margin};
}

void DrawAxes(SvgPage* page, const Frame& f, const std::vector<uint64_t>& lengths) {
  for (const double tick : {0.0, 0.25, 0.5, 0.75, 1.0}) {
    page->Line(f.left, f.Y(tick), f.left + f.width, f.Y(tick), tick == 0 ? kAxis : kGrid, 1);
    page->Text(f.left - 6, f.Y(tick) + 3.6, SvgNumber(tick), {.size = 10, .anchor = "end"});
  }
  // The ticks are the measured lengths. A label that would touch the previous or the last one is
  // left out.
  double last_end = -1e9;
  for (size_t i = 0; i < lengths.size(); ++i) {
    const double x = f.X(lengths[i]), half = TextWidth(TokensLabel(lengths[i]), 10) / 2 + 3;
    page->Line(x, f.Y(0), x, f.Y(0) + 4, kAxis, 1);
    const double final_begin =
        f.X(lengths.back()) - TextWidth(TokensLabel(lengths.back()), 10) / 2 - 3;
    if (x - half < last_end || (i + 1 < lengths.size() && x + half > final_begin)) continue;
    page->Text(x, f.Y(0) + 16, TokensLabel(lengths[i]), {.size = 10, .anchor = "middle"});
    last_end = x + half;
  }
  page->Text(f.left + f.width / 2, f.Y(0) + 33, "context length (tokens, log scale)",
             {.anchor = "middle"});
  page->Text(16, f.top + f.height / 2, "score", {.anchor = "middle", .rotate = -90});
}

std::vector<CurvePoint> CleanPoints(const Curve& curve) {
  std::vector<CurvePoint> points;
  for (CurvePoint point : curve.points) {
    if (!std::isfinite(point.score)) continue;
    point.low = std::isfinite(point.low) ? std::min(point.low, point.score) : point.score;
    point.high = std::isfinite(point.high) ? std::max(point.high, point.score) : point.score;
    points.push_back(point);
  }
  return points;
}

// Draws the interval as a band, or as whiskers if there is one point only.
void DrawInterval(SvgPage* page, const Frame& f, const std::vector<CurvePoint>& points,
                  size_t curve) {
  const std::string colour(kColours[curve % 6]);
  if (points.size() == 1 && points[0].low < points[0].high) {
    const double x = f.X(points[0].length), low = f.Y(points[0].low), high = f.Y(points[0].high);
    page->Line(x, low, x, high, colour, 1.2);
    for (const double y : {low, high}) page->Line(x - 4, y, x + 4, y, colour, 1.2);
  }
  const bool wide =
      std::any_of(points.begin(), points.end(), [](const CurvePoint& p) { return p.low < p.high; });
  if (points.size() < 2 || !wide) return;
  std::string d;
  for (const CurvePoint& p : points)
    d += (d.empty() ? "M" : "L") + SvgNumber(f.X(p.length)) + " " + SvgNumber(f.Y(p.high));
  for (auto p = points.rbegin(); p != points.rend(); ++p)
    d += "L" + SvgNumber(f.X(p->length)) + " " + SvgNumber(f.Y(p->low));
  page->Raw("<path d=\"" + d + "Z\" fill=\"" + colour + "\" fill-opacity=\"0.13\"/>\n");
}

void DrawCurve(SvgPage* page, const Frame& f, const std::vector<CurvePoint>& points, size_t curve) {
  std::string d;
  for (const CurvePoint& p : points)
    d += (d.empty() ? "M" : "L") + SvgNumber(f.X(p.length)) + " " + SvgNumber(f.Y(p.score));
  if (points.size() > 1) page->Raw("<path d=\"" + d + "\" " + Stroke(curve) + "/>\n");
  for (const CurvePoint& p : points) page->Raw(Marker(curve, f.X(p.length), f.Y(p.score)));
}

// Draws line and marker of each mode with its name, in rows. Returns the y of the last base line.
double DrawLegend(SvgPage* page, const std::vector<Curve>& curves, double left, double y,
                  double width) {
  constexpr double kSample = 30;
  double x = left;
  for (size_t i = 0; i < curves.size(); ++i) {
    const std::string mode = curves[i].mode + (curves[i].points.empty() ? " (not measured)" : "");
    const std::string name = FitText(mode, kLabelSize, width - kSample);
    const double need = kSample + TextWidth(name, kLabelSize) + 8;
    if (x > left && x + need > left + width + 8) {
      x = left;
      y += 17;
    }
    page->Raw("<path d=\"M" + SvgNumber(x) + " " + SvgNumber(y - 4) + "h24\" " + Stroke(i) +
              "/>\n");
    page->Raw(Marker(i, x + 12, y - 4));
    page->Text(x + kSample, y, name, {});
    x += need;
  }
  return y;
}

}  // namespace

std::string CurvesSvg(const CurvesChart& chart) {
  LH_CHECK(chart.curves.size() <= kCurvesMax);
  SvgPage page;
  const double top = DrawHead(&page, kWidth, chart.title, chart.model, "");
  const std::vector<uint64_t> lengths = AllLengths(chart.curves);
  const Frame frame = MakeFrame(lengths, 52, top, kWidth - 52 - kPad, 190);
  DrawAxes(&page, frame, lengths);
  std::vector<std::vector<CurvePoint>> curves;
  for (const Curve& curve : chart.curves) curves.push_back(CleanPoints(curve));
  for (size_t i = 0; i < curves.size(); ++i) DrawInterval(&page, frame, curves[i], i);
  // The first curve is solid and drawn first, so that a dashed curve with the same scores stays
  // visible.
  for (size_t i = 0; i < curves.size(); ++i) DrawCurve(&page, frame, curves[i], i);
  double bottom = frame.Y(0) + 38;
  if (!chart.curves.empty())
    bottom = DrawLegend(&page, chart.curves, frame.left, bottom + 16, frame.width);
  bool bands = false, whiskers = false;
  for (const std::vector<CurvePoint>& points : curves) {
    const bool wide = std::any_of(points.begin(), points.end(),
                                  [](const CurvePoint& p) { return p.low < p.high; });
    (points.size() == 1 ? whiskers : bands) |= wide;
  }
  if ((bands || whiskers) && !chart.interval.empty()) {
    bottom += 16;
    const std::string what = !whiskers ? "bands: " : !bands ? "whiskers: " : "bands, whiskers: ";
    page.Text(frame.left, bottom, FitText(what + chart.interval, 10, frame.width),
              {.size = 10, .fill = kSoft});
  }
  return page.Finish(kWidth, bottom + kPad, Join(chart.title, chart.model));
}

// ------------------------------------------------------------------------------------------------
// hit@k

std::string HitSvg(const HitChart& chart) {
  LH_CHECK(!chart.ks.empty() && chart.ks.size() <= 8 && chart.modes.size() <= 32);
  constexpr double kBar = 13, kGap = 9, kNames = 112, kK = 30;
  SvgPage page;
  std::string questions = chart.questions == 0 ? "" : std::to_string(chart.questions) + " question";
  if (chart.questions > 1) questions += "s";
  const double top = DrawHead(&page, kWidth, chart.title, chart.model, questions);
  const double left = kPad + kNames + kK, width = kWidth - left - 40;
  const double group = kBar * static_cast<double>(chart.ks.size());
  const double height = static_cast<double>(chart.modes.size()) * (group + kGap);
  for (const double tick : {0.0, 0.25, 0.5, 0.75, 1.0}) {
    page.Line(left + tick * width, top, left + tick * width, top + height,
              tick == 0 ? kAxis : kGrid, 1);
    page.Text(left + tick * width, top + height + 14, SvgNumber(tick),
              {.size = 10, .anchor = "middle"});
  }
  page.Text(left + width / 2, top + height + 31,
            "share of questions with the evidence in the best k", {.anchor = "middle"});
  for (size_t m = 0; m < chart.modes.size(); ++m) {
    const HitBars& mode = chart.modes[m];
    LH_CHECK(mode.hits.size() == chart.ks.size());
    const double y0 = top + kGap / 2 + static_cast<double>(m) * (group + kGap);
    // One line of the name per bar.
    const std::vector<std::string> lines = WrapText(mode.mode, kLabelSize, kNames, chart.ks.size());
    double y = y0 + group / 2 + 4 - 6.5 * static_cast<double>(lines.size() - 1);
    for (const std::string& line : lines) {
      page.Text(kPad + kNames, y, line, {.anchor = "end"});
      y += 13;
    }
    for (size_t k = 0; k < chart.ks.size(); ++k) {
      const double bar = y0 + static_cast<double>(k) * kBar;
      const std::optional<double> hit = Clean(mode.hits[k]);
      // Shades go from dark to light with k. Each bar also has a label.
      const double shade = chart.ks.size() == 1
                               ? 0
                               : static_cast<double>(k) / static_cast<double>(chart.ks.size() - 1);
      if (hit)
        page.Rect(left, bar + 0.5, *hit * width, kBar - 1.5,
                  Hex(Mix({8, 69, 128}, {150, 196, 225}, shade)));
      page.Text(left - 5, bar + 10, "@" + std::to_string(chart.ks[k]),
                {.size = 9.5, .fill = kSoft, .anchor = "end"});
      page.Text(left + hit.value_or(0) * width + 5, bar + 10,
                hit ? ScoreLabel(*hit) : "not measured", {.size = 9.5, .fill = hit ? kInk : kSoft});
    }
  }
  return page.Finish(kWidth, top + height + 31 + kPad, Join(chart.title, chart.model));
}

}  // namespace longhold
