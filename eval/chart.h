// Charts of an evaluation as SVG text. They are self-contained, without scripts and embedded fonts,
// and readable at the width of a paper's column. They are 420 units wide; a heatmap is wider if its
// columns need it.
//
// Titles and labels may be any bytes. They are escaped, bytes that XML or UTF-8 forbid become
// U+FFFD, and text that is too long for its place ends in an ellipsis. The same chart gives the
// same bytes on every machine. Scores are clamped to [0, 1]; NaN counts as not measured.
//
// Thread use: value types and pure functions; *immutable*.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace longhold {

// A context length in units of 1024: "4K" for 4096, "1M" for 1048576, "52.7K" for 54012.
std::string TokensLabel(uint64_t tokens);

// A heatmap of the score by context length and depth. Each cell shows its score as a number and as
// a colour of viridis. Cells without a score are hatched. Must hold: 1..64 lengths, 1..64 depths,
// scores.size() == depths.size() * lengths.size().
struct HeatmapChart {
  std::string title;
  std::string model;
  std::string mode;
  std::vector<uint64_t> lengths;  // tokens, in column order
  // In row order, from 0 (begin of the text) to 1 (its end).
  std::vector<double> depths;
  std::vector<std::optional<double>> scores;  // [depths, lengths]
};
std::string HeatmapSvg(const HeatmapChart& chart);

struct CurvePoint {
  uint64_t length = 0;  // tokens; > 0
  double score = 0;
  double low = 0;  // the bootstrap interval [low, high]; not drawn if low == high
  double high = 0;
};
struct Curve {
  std::string mode;
  std::vector<CurvePoint> points;  // ascending by length; may be empty
};

// Score against context length on a log2 axis, one line per mode. Modes differ in colour, dash and
// marker. Must hold: at most 12 curves.
struct CurvesChart {
  std::string title;
  std::string model;
  std::string interval = "95% bootstrap interval";  // caption of the bands; "": none
  std::vector<Curve> curves;
};
std::string CurvesSvg(const CurvesChart& chart);

struct HitBars {
  std::string mode;
  std::vector<std::optional<double>> hits;  // [ks], shares of the questions
};

// hit@k as bars, one group per mode. Must hold: 1..8 ks, at most 32 modes, every mode has ks.size()
// hits.
struct HitChart {
  std::string title;
  std::string model;
  uint64_t questions = 0;    // shown after the model's name; 0: not shown
  std::vector<uint32_t> ks;  // ascending
  std::vector<HitBars> modes;
};
std::string HitSvg(const HitChart& chart);

}  // namespace longhold
