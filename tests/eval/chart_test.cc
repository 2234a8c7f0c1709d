// Charts as documents. A real XML parser (Boost.PropertyTree) reads them; the tests count elements
// and check the texts and colours that the data require. The layout was judged by eye and is not
// tested, except that nothing lies outside the page.
#include "eval/chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/property_tree/xml_parser.hpp>
#include <clocale>
#include <cmath>
#include <limits>
#include <map>
#include <sstream>

#include "eval/chart_png.h"
#include "eval/svg.h"

namespace longhold {
namespace {

using boost::property_tree::ptree;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

// The elements of a parsed SVG, its visible texts, and whether anything lies outside the page.
struct Page {
  std::map<std::string, int> count;
  std::vector<std::string> texts;
  std::vector<std::string> fills;
  double width = 0, height = 0;
};

void Walk(const ptree& node, Page* page) {
  for (const auto& [name, child] : node) {
    if (name == "<xmlattr>" || name == "<xmlcomment>") continue;
    ++page->count[name];
    if (name == "text") page->texts.push_back(child.data());
    if (name == "rect" || name == "text")
      page->fills.push_back(child.get<std::string>("<xmlattr>.fill"));
    if (name == "rect" || name == "text") {
      const double x = child.get("<xmlattr>.x", 0.0), y = child.get("<xmlattr>.y", 0.0);
      EXPECT_TRUE(x >= 0 && x + child.get("<xmlattr>.width", 0.0) <= page->width + 0.01)
          << child.data() << " x " << x;
      EXPECT_TRUE(y >= 0 && y + child.get("<xmlattr>.height", 0.0) <= page->height + 0.01)
          << child.data() << " y " << y;
    }
    Walk(child, page);
  }
}

Page Parse(const std::string& svg) {
  Page page;
  ptree tree;
  std::istringstream in(svg);
  try {
    boost::property_tree::read_xml(in, tree);
  } catch (const std::exception& error) {
    ADD_FAILURE() << error.what() << "\n" << svg;
    return page;
  }
  page.width = tree.get<double>("svg.<xmlattr>.width");
  page.height = tree.get<double>("svg.<xmlattr>.height");
  Walk(tree, &page);
  return page;
}

// Strings with everything that could break XML, UTF-8 or a careless writer.
const std::string kNasty =
    std::string("a<b>&\"c'\x01") + '\0' + "\xff\xc0\xaf\xed\xa0\x80 ]]>\xe6\xb2\xb3";

HeatmapChart Heatmap(size_t lengths, size_t depths) {
  HeatmapChart chart{.title = "Needles", .model = "SmolLM2", .mode = "longhold"};
  for (size_t i = 0; i < lengths; ++i) chart.lengths.push_back(4096ull + 29300 * i);
  for (size_t i = 0; i < depths; ++i)
    chart.depths.push_back((static_cast<double>(i) + 0.5) / static_cast<double>(depths));
  for (size_t i = 0; i < lengths * depths; ++i) chart.scores.push_back(0.5);
  return chart;
}

TEST(TokensLabel, FormatsLengthsAsContextLengthsAreUsuallyWritten) {
  EXPECT_EQ(TokensLabel(4096), "4K");
  EXPECT_EQ(TokensLabel(131072), "128K");
  EXPECT_EQ(TokensLabel(1048576), "1M");
  EXPECT_EQ(TokensLabel(1048575), "1M");
  EXPECT_EQ(TokensLabel(1048524), "1023.9K");
  EXPECT_EQ(TokensLabel(54012), "52.7K");
  EXPECT_EQ(TokensLabel(600), "600");
}

TEST(Heatmap, HasACellAndAValueForEachMeasurementAndAHatchForEachMissingOne) {
  HeatmapChart chart = Heatmap(3, 2);
  chart.scores = {0.0, 1.0, 0.996, std::nullopt, 0.004, std::numeric_limits<double>::quiet_NaN()};
  const Page page = Parse(HeatmapSvg(chart));
  for (const std::string text : {"Needles", "SmolLM2 \u00b7 longhold", "4K", "0.99", "0.01",
                                 "score", "depth (%)", "75", "not measured"}) {
    EXPECT_THAT(page.texts, Contains(text));
  }
  // two cells and the legend
  EXPECT_EQ(std::count(page.fills.begin(), page.fills.end(), "url(#missing)"), 3);
  // viridis at 0 ...
  EXPECT_THAT(page.fills, Contains("#440154"));
  EXPECT_THAT(page.fills, Contains("#fde725"));  // ... and at 1
  EXPECT_EQ(page.count.at("pattern"), 1);
  EXPECT_THAT(Parse(HeatmapSvg(Heatmap(3, 2))).texts, Not(Contains("not measured")));
}

TEST(Heatmap, StaysOnItsPageForAnyCellCountAndAnyNames) {
  for (const auto& [lengths, depths] :
       {std::pair<size_t, size_t>{1, 1}, {12, 20}, {64, 64}, {1, 64}, {64, 1}}) {
    HeatmapChart chart = Heatmap(lengths, depths);
    for (const std::string& name :
         {std::string("m"), std::string(3000, 'W'), kNasty + kNasty + kNasty}) {
      chart.title = chart.model = chart.mode = name;
      const Page page = Parse(HeatmapSvg(chart));
      EXPECT_EQ(std::count(page.texts.begin(), page.texts.end(), "0.50"),
                static_cast<int>(lengths * depths));
      for (const std::string& text : page.texts) EXPECT_LT(TextWidth(text, 11), page.width) << text;
    }
  }
}

CurvesChart Curves(size_t modes, size_t points) {
  CurvesChart chart{.title = "Needles", .model = "SmolLM2"};
  for (size_t m = 0; m < modes; ++m) {
    Curve curve{.mode = "mode " + std::to_string(m), .points = {}};
    for (size_t p = 0; p < points; ++p) curve.points.push_back({4096ull << p, 0.5, 0.4, 0.6});
    chart.curves.push_back(curve);
  }
  return chart;
}

TEST(Curves, HaveALineABandMarkersAndANameEachAndDifferWithoutColour) {
  const std::string svg = CurvesSvg(Curves(6, 9));
  const Page page = Parse(svg);
  for (const std::string text :
       {"4K", "32K", "128K", "1M", "mode 0", "mode 5", "score", "bands: 95% bootstrap interval"}) {
    EXPECT_THAT(page.texts, Contains(text));
  }
  int bands = 0;
  for (size_t at = svg.find("fill-opacity"); at != std::string::npos;
       at = svg.find("fill-opacity", at + 1))
    ++bands;
  EXPECT_EQ(bands, 6);
  // One solid line and five distinct dash patterns, each in the plot and in the legend.
  std::map<std::string, int> dashes;
  constexpr std::string_view kDash = "stroke-dasharray=\"";
  for (size_t at = svg.find(kDash); at != std::string::npos; at = svg.find(kDash, at + 1)) {
    ++dashes[svg.substr(at + kDash.size(), svg.find('"', at + kDash.size()) - at - kDash.size())];
  }
  EXPECT_EQ(dashes.size(), 5u);
  for (const auto& [dash, uses] : dashes) EXPECT_EQ(uses, 2) << dash;
}

TEST(Curves, ShowOnePointWithWhiskersAndNameAnEmptyCurve) {
  CurvesChart chart = Curves(1, 1);
  chart.curves.push_back({.mode = "full", .points = {}});
  const Page page = Parse(CurvesSvg(chart));
  EXPECT_THAT(page.texts, Contains("whiskers: 95% bootstrap interval"));
  EXPECT_THAT(page.texts, Contains("full (not measured)"));
  EXPECT_THAT(page.texts, Contains("4K"));
  EXPECT_EQ(page.count.at("circle"), 2);  // the point, and the one in the legend
  Parse(CurvesSvg({.title = "none", .model = "m", .curves = {}}));
  chart.curves[0].points[0] = {0, std::nan(""), -INFINITY, INFINITY};
  EXPECT_THAT(CurvesSvg(chart), testing::AllOf(Not(HasSubstr("nan")), Not(HasSubstr("inf"))));
}

TEST(Curves, OmitTickLabelsThatWouldOverlap) {
  CurvesChart chart = Curves(1, 0);
  for (uint64_t length = 100000; length <= 130000; length += 1000)
    chart.curves[0].points.push_back({length, 1, 1, 1});
  for (uint64_t length : {4096ull, 1048576ull}) chart.curves[0].points.push_back({length, 1, 1, 1});
  std::vector<CurvePoint>& points = chart.curves[0].points;
  std::sort(points.begin(), points.end(),
            [](const auto& a, const auto& b) { return a.length < b.length; });
  const Page page = Parse(CurvesSvg(chart));
  EXPECT_THAT(page.texts, testing::AllOf(Contains("4K"), Contains("97.7K"), Contains("1M"),
                                         Not(Contains("98.6K"))));
}

TEST(Hits, HaveABarAndAValueForEachModeAndK) {
  const HitChart chart{.title = "Verses",
                       .model = "SmolLM2",
                       .questions = 37,
                       .ks = {1, 4},
                       .modes = {{"longhold", {0.7, 1.0}}, {"rag-embed", {std::nullopt, 0.0}}}};
  const Page page = Parse(HitSvg(chart));
  for (const std::string text : {"SmolLM2 \u00b7 37 questions", "longhold", "rag-embed", "@1", "@4",
                                 "0.70", "1", "0", "not measured"}) {
    EXPECT_THAT(page.texts, Contains(text));
  }
  EXPECT_EQ(page.count.at("rect"), 1 + 3);  // the background, and a bar for each measured value
  Parse(HitSvg({.title = "none", .ks = {1}, .modes = {}}));
}

TEST(Charts, EscapeEveryNameAndDropBytesThatXmlForbids) {
  EXPECT_EQ(
      XmlEscaped(kNasty),
      "a&lt;b&gt;&amp;&quot;c&#39;\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD ]]&gt;\u6cb3");
  CurvesChart curves = Curves(1, 2);
  curves.title = curves.model = curves.interval = curves.curves[0].mode = kNasty;
  HeatmapChart heatmap = Heatmap(2, 2);
  heatmap.title = heatmap.model = heatmap.mode = kNasty;
  const HitChart hits{.title = kNasty, .model = kNasty, .ks = {1}, .modes = {{kNasty, {0.5}}}};
  for (const std::string& svg : {CurvesSvg(curves), HeatmapSvg(heatmap), HitSvg(hits)}) {
    const Page page = Parse(svg);
    EXPECT_THAT(page.texts, Contains(HasSubstr("a<b>&\"c'\uFFFD")));
    EXPECT_THAT(svg, Not(HasSubstr("<script")));
    EXPECT_TRUE(RenderPng(svg, 1).ok());
  }
}

TEST(Charts, AreTheSameBytesEveryTimeAndInEveryLocale) {
  const std::string before = HeatmapSvg(Heatmap(3, 3)) + CurvesSvg(Curves(3, 3));
  const std::string old = std::setlocale(LC_ALL, nullptr);
  std::setlocale(LC_ALL, "de_DE.UTF-8");  // decimal comma, if the locale is installed
  EXPECT_EQ(HeatmapSvg(Heatmap(3, 3)) + CurvesSvg(Curves(3, 3)), before);
  std::setlocale(LC_ALL, old.c_str());
  EXPECT_EQ(SvgNumber(-0.001), "0");
  EXPECT_EQ(SvgNumber(12.5), "12.5");
  EXPECT_EQ(SvgNumber(100), "100");
}

TEST(Text, IsCutWithAnEllipsisBetweenCharactersAndWrappedAtSpaces) {
  const std::string rivers = "\u6cb3\u6cb3\u6cb3\u6cb3\u6cb3\u6cb3";
  EXPECT_EQ(FitText(rivers, 10, 60), rivers);
  EXPECT_EQ(FitText(rivers, 10, 45), "\u6cb3\u6cb3\u6cb3\u2026");
  EXPECT_THAT(WrapText("one two three", 10, TextWidth("one two", 10), 2),
              testing::ElementsAre("one two", "three"));
  EXPECT_THAT(WrapText("one two three four", 10, TextWidth("one two", 10), 2),
              testing::ElementsAre("one two", HasSubstr("\u2026")));
  EXPECT_THAT(WrapText("", 10, 50, 2), testing::ElementsAre(""));
}

uint32_t BigEndian(const std::string& bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

TEST(RenderPng, YieldsAnImageOfTheChartsSizeTimesTheScale) {
  const std::string svg = HitSvg({.title = "t", .ks = {1}, .modes = {{"m", {0.5}}}});
  const Page page = Parse(svg);
  for (const double scale : {1.0, 2.0}) {
    const auto png = RenderPng(svg, scale);
    ASSERT_TRUE(png.ok()) << png.status().ToString();
    ASSERT_GT(png->size(), 100u);
    EXPECT_EQ(png->substr(0, 8), "\x89PNG\r\n\x1a\n");
    EXPECT_EQ(BigEndian(*png, 16), std::ceil(page.width * scale));
    EXPECT_EQ(BigEndian(*png, 20), std::ceil(page.height * scale));
  }
}

TEST(RenderPng, ReportsWhatItCannotDraw) {
  EXPECT_EQ(RenderPng("", 1).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(RenderPng("no SVG at all", 1).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(
      RenderPng("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"90000\" height=\"90000\"/>", 1)
          .status()
          .code(),
      StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace longhold
