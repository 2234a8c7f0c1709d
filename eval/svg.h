// Builds an SVG document from the few shapes that the charts need. Internal to eval/chart*.cc.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace longhold {

// Text escaped for XML character data and attribute values. Forbidden characters and invalid UTF-8
// become U+FFFD.
std::string XmlEscaped(std::string_view text);

// "12", "12.5", "0.25": at most two decimals, independent of the locale.
std::string SvgNumber(double value);

// An estimate of the width of a text in a common sans-serif font, on the large side. Use it to
// reserve room.
double TextWidth(std::string_view text, double size);
// `text` if it fits into `width`; else the longest prefix that fits together with an ellipsis.
std::string FitText(std::string_view text, double size, double width);
// Breaks a text at spaces into at least one line, each at most `width` wide. Line number
// `lines_max` takes the rest of the text and is cut by FitText.
std::vector<std::string> WrapText(std::string_view text, double size, double width,
                                  size_t lines_max);

struct TextStyle {
  double size = 11;
  std::string_view fill = "#222";
  std::string_view anchor = "start";  // start, middle, end
  bool bold = false;
  double rotate = 0;  // degrees, around the anchor
};

// A page under construction. Owner: one chart function. Thread use: *confined*. x grows to the
// right, y grows down.
class SvgPage {
 public:
  void Rect(double x, double y, double width, double height, std::string_view fill);
  void Line(double x1, double y1, double x2, double y2, std::string_view stroke, double width);
  // y is the base line.
  void Text(double x, double y, std::string_view text, const TextStyle& style);
  // Appends markup. Must hold: it is well-formed.
  void Raw(std::string_view markup) { body_ += markup; }
  // The whole document. `title` is its accessible name, for screen readers.
  std::string Finish(double width, double height, std::string_view title,
                     std::string_view definitions = "") const;

 private:
  std::string body_;
};

}  // namespace longhold
