#include "eval/svg.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>

namespace longhold {
namespace {

constexpr std::string_view kReplacement = "\uFFFD";
constexpr std::string_view kEllipsis = "\u2026";

struct Character {
  uint32_t code = 0;
  size_t bytes = 1;
  bool valid = false;  // valid UTF-8 and allowed in XML 1.0
};

Character CharacterAt(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(at);
  const size_t bytes = lead < 0x80   ? 1
                       : lead < 0xC2 ? 0
                       : lead < 0xE0 ? 2
                       : lead < 0xF0 ? 3
                       : lead < 0xF5 ? 4
                                     : 0;
  if (bytes == 0 || at + bytes > text.size()) return {};
  static constexpr uint32_t kLeadMask[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
  // Smaller codes in a longer encoding (overlong encodings) are invalid.
  static constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  uint32_t code = lead & kLeadMask[bytes];
  for (size_t i = 1; i < bytes; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) return {};
    code = code << 6 | (byte(at + i) & 0x3F);
  }
  const bool control = code < 0x20 && code != '\t' && code != '\n' && code != '\r';
  const bool valid = code >= kSmallest[bytes] && code <= 0x10FFFF &&
                     !(code >= 0xD800 && code < 0xE000) && !control && code != 0xFFFE &&
                     code != 0xFFFF;
  return valid ? Character{code, bytes, true} : Character{};
}

// Character widths in ems of DejaVu Sans, the widest of the usual sans-serif fonts.
double Em(const Character& c) {
  if (!c.valid) return 1.0;
  if (c.code >= 0x1100) return 1.0;
  if (c.code >= 0x80) return 0.68;
  const std::string_view narrow = "iljI.,:;'|![]() ft-/r\"", wide = "mwMW@%";
  const char ascii = static_cast<char>(c.code);
  if (narrow.find(ascii) != std::string_view::npos) return 0.38;
  if (wide.find(ascii) != std::string_view::npos) return 0.97;
  return ascii >= 'A' && ascii <= 'Z' ? 0.73 : 0.63;
}

}  // namespace

std::string XmlEscaped(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const Character c = CharacterAt(text, at);
    switch (c.valid ? c.code : 0) {
      case 0: out += kReplacement; break;
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += text.substr(at, c.bytes);
    }
    at += c.bytes;
  }
  return out;
}

std::string SvgNumber(double value) {
  const double rounded = std::round(value * 100) / 100 + 0.0;  // + 0.0 avoids "-0"
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), rounded, std::chars_format::fixed, 2).ptr;
  std::string text(buffer, end);
  while (text.ends_with('0')) text.pop_back();
  if (text.ends_with('.')) text.pop_back();
  return text;
}

double TextWidth(std::string_view text, double size) {
  double ems = 0;
  for (size_t at = 0; at < text.size();) {
    const Character c = CharacterAt(text, at);
    ems += Em(c);
    at += c.bytes;
  }
  return ems * size;
}

std::string FitText(std::string_view text, double size, double width) {
  if (TextWidth(text, size) <= width) return std::string(text);
  const double room = width - size;  // room for the ellipsis
  double used = 0;
  size_t at = 0;
  while (at < text.size()) {
    const Character c = CharacterAt(text, at);
    if (used + Em(c) * size > room) break;
    used += Em(c) * size;
    at += c.bytes;
  }
  while (at > 0 && text[at - 1] == ' ') --at;
  return std::string(text.substr(0, at)) + std::string(kEllipsis);
}

std::vector<std::string> WrapText(std::string_view text, double size, double width,
                                  size_t lines_max) {
  std::vector<std::string> lines;
  while (lines.size() + 1 < lines_max && TextWidth(text, size) > width) {
    size_t cut = 0;
    for (size_t space = text.find(' '); space != std::string_view::npos;
         space = text.find(' ', space + 1)) {
      if (TextWidth(text.substr(0, space), size) > width) break;
      cut = space;
    }
    if (cut == 0) break;  // one long word: FitText cuts it
    lines.emplace_back(text.substr(0, cut));
    text.remove_prefix(cut + 1);
  }
  lines.push_back(FitText(text, size, width));
  return lines;
}

void SvgPage::Rect(double x, double y, double width, double height, std::string_view fill) {
  body_ += "<rect x=\"" + SvgNumber(x) + "\" y=\"" + SvgNumber(y) + "\" width=\"" +
           SvgNumber(width) + "\" height=\"" + SvgNumber(height) + "\" fill=\"" +
           std::string(fill) + "\"/>\n";
}

void SvgPage::Line(double x1, double y1, double x2, double y2, std::string_view stroke,
                   double width) {
  body_ += "<line x1=\"" + SvgNumber(x1) + "\" y1=\"" + SvgNumber(y1) + "\" x2=\"" + SvgNumber(x2) +
           "\" y2=\"" + SvgNumber(y2) + "\" stroke=\"" + std::string(stroke) +
           "\" stroke-width=\"" + SvgNumber(width) + "\"/>\n";
}

void SvgPage::Text(double x, double y, std::string_view text, const TextStyle& style) {
  body_ += "<text x=\"" + SvgNumber(x) + "\" y=\"" + SvgNumber(y) + "\" font-size=\"" +
           SvgNumber(style.size) + "\" fill=\"" + std::string(style.fill) + "\"";
  if (style.anchor != "start") body_ += " text-anchor=\"" + std::string(style.anchor) + "\"";
  if (style.bold) body_ += " font-weight=\"bold\"";
  if (style.rotate != 0) {
    body_ += " transform=\"rotate(" + SvgNumber(style.rotate) + " " + SvgNumber(x) + " " +
             SvgNumber(y) + ")\"";
  }
  body_ += ">" + XmlEscaped(text) + "</text>\n";
}

std::string SvgPage::Finish(double width, double height, std::string_view title,
                            std::string_view definitions) const {
  const std::string w = SvgNumber(width), h = SvgNumber(height);
  std::string out =
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" "
      "width=\"" +
      w + "\" height=\"" + h + "\" viewBox=\"0 0 " + w + " " + h +
      "\" font-family=\"sans-serif\" role=\"img\">\n" + "<title>" + XmlEscaped(title) +
      "</title>\n";
  if (!definitions.empty()) out += "<defs>" + std::string(definitions) + "</defs>\n";
  return out + "<rect width=\"" + w + "\" height=\"" + h + "\" fill=\"#fff\"/>\n" + body_ +
         "</svg>\n";
}

}  // namespace longhold
