// Renders SVG text as a PNG image with librsvg. Only chart_png.cc uses types of librsvg and cairo.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

// The bytes of the PNG, with `scale` pixels per unit of the SVG. Text uses the machine's sans-serif
// font. Must hold: 0 < scale <= 16. Errors: invalid_argument (not an SVG, or without a size),
// resource_exhausted (above 64 million pixels, or out of memory).
Result<std::string> RenderPng(std::string_view svg, double scale);

}  // namespace longhold
