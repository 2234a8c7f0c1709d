// A page of SVG under construction: the few shapes that our charts are made of. Internal to
// eval/chart*.cc.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace longhold {

// Text as XML character data and attribute values may hold it; forbidden characters and broken
// UTF-8 become U+FFFD.
std::string XmlEscaped(std::string_view text);

// "12", "12.5", "0.25": at most two decimals, whatever the locale.
std::string SvgNumber(double value);

// About as wide as a common sans-serif font sets it, rather more: for leaving room, not for
// measuring.
double TextWidth(std::string_view text, double size);
// `text`, or as much of it as is `width` wide with an ellipsis at the end.
std::string FitText(std::string_view text, double size, double width);
// Lines of at most `width`, broken at spaces; the last of `lines_max` takes the rest and is fitted.
// At least one line.
std::vector<std::string> WrapText(std::string_view text, double size, double width,
                                  size_t lines_max);

struct TextStyle {
  double size = 11;
  std::string_view fill = "#222";
  std::string_view anchor = "start";  // start, middle, end
  bool bold = false;
  double rotate = 0;  // degrees, around the anchor
};

// Owner: one chart function. Thread use: *confined*. Coordinates grow right and down.
class SvgPage {
 public:
  void Rect(double x, double y, double width, double height, std::string_view fill);
  void Line(double x1, double y1, double x2, double y2, std::string_view stroke, double width);
  // y is the base line
  void Text(double x, double y, std::string_view text, const TextStyle& style);
  // must be well-formed by itself
  void Raw(std::string_view markup) { body_ += markup; }
  // The whole document; `title` is what a screen reader says.
  std::string Finish(double width, double height, std::string_view title,
                     std::string_view definitions = "") const;

 private:
  std::string body_;
};

}  // namespace longhold
