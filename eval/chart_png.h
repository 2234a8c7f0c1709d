// An SVG text as a PNG image, by librsvg. The types of librsvg and cairo stop at chart_png.cc.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

// The image's bytes, `scale` pixels for each unit of the SVG's size. Text is drawn in the machine's
// sans-serif font. Must hold: 0 < scale <= 16. Errors: invalid_argument (no SVG, or one without a
// size), resource_exhausted (above 64 million pixels, or no memory).
Result<std::string> RenderPng(std::string_view svg, double scale);

}  // namespace longhold
