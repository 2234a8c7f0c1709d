// Figures of an evaluation as SVG text: self-contained, without scripts or fonts of their own, 420
// units wide or, for heatmaps, as wide as their columns ask; made to be read at the width of a
// paper's column.
//
// Every text may hold anything: it is escaped, bytes that XML or UTF-8 forbid become U+FFFD, and
// what is too long for its place ends in an ellipsis. The same chart yields the same bytes on every
// machine. Scores are clamped to [0, 1]; one that is not a number counts as not measured.
//
// Thread use: value types and pure functions; *immutable*.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace longhold {

// "4K" for 4096, "1M" for 1048576, "52.7K" for 54012: in units of 1024, as context lengths are
// named.
std::string TokensLabel(uint64_t tokens);

// Score by context length and depth, in viridis with the number in each cell; cells without a score
// are hatched. Must hold: 1..64 lengths, 1..64 depths, scores.size() == depths.size() *
// lengths.size().
struct HeatmapChart {
  std::string title;
  std::string model;
  std::string mode;
  std::vector<uint64_t> lengths;  // tokens, in the order of the columns
  // 0 (begin of the text) to 1 (end), in the order of the rows
  std::vector<double> depths;
  std::vector<std::optional<double>> scores;  // [depths, lengths]
};
std::string HeatmapSvg(const HeatmapChart& chart);

struct CurvePoint {
  uint64_t length = 0;  // tokens; > 0
  double score = 0;
  double low = 0;  // the bootstrap interval; low == high draws none
  double high = 0;
};
struct Curve {
  std::string mode;
  std::vector<CurvePoint> points;  // ascending by length; may be empty
};

// Score against context length, one line a mode, over a log2 axis. Modes differ in colour, dash and
// marker. Must hold: at most 12 curves.
struct CurvesChart {
  std::string title;
  std::string model;
  std::string interval = "95% bootstrap interval";  // what the bands are; "" says nothing
  std::vector<Curve> curves;
};
std::string CurvesSvg(const CurvesChart& chart);

struct HitBars {
  std::string mode;
  std::vector<std::optional<double>> hits;  // [ks], shares of the questions
};

// hit@k, one group of bars a mode. Must hold: 1..8 ks, at most 32 modes, every mode has ks.size()
// hits.
struct HitChart {
  std::string title;
  std::string model;
  uint64_t questions = 0;    // named beside the model; 0 says nothing
  std::vector<uint32_t> ks;  // ascending
  std::vector<HitBars> modes;
};
std::string HitSvg(const HitChart& chart);

}  // namespace longhold
