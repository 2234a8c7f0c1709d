#include "eval/chart_png.h"

#include <cairo.h>
#include <librsvg/rsvg.h>

#include <cmath>
#include <memory>

namespace longhold {
namespace {

constexpr double kPixelsMax = 64e6;  // an image of 256 MB

struct Free {
  void operator()(RsvgHandle* h) const { g_object_unref(h); }
  void operator()(cairo_surface_t* s) const { cairo_surface_destroy(s); }
  void operator()(cairo_t* c) const { cairo_destroy(c); }
};

cairo_status_t Append(void* out, const unsigned char* data, unsigned int size) {
  static_cast<std::string*>(out)->append(reinterpret_cast<const char*>(data), size);
  return CAIRO_STATUS_SUCCESS;
}

std::string TakeMessage(GError* error) {
  std::string message = error == nullptr ? "unknown error" : error->message;
  g_clear_error(&error);
  return message;
}

}  // namespace

Result<std::string> RenderPng(std::string_view svg, double scale) {
  LH_CHECK(scale > 0 && scale <= 16);
  GError* error = nullptr;
  const std::unique_ptr<RsvgHandle, Free> handle(
      rsvg_handle_new_from_data(reinterpret_cast<const guint8*>(svg.data()), svg.size(), &error));
  if (handle == nullptr) return InvalidArgument("draw an SVG: " + TakeMessage(error));
  double width = 0, height = 0;
  if (!rsvg_handle_get_intrinsic_size_in_pixels(handle.get(), &width, &height) || width <= 0 ||
      height <= 0) {
    return InvalidArgument("draw an SVG: it has no width and height");
  }
  const double columns = std::ceil(width * scale), rows = std::ceil(height * scale);
  if (columns * rows > kPixelsMax)
    return ResourceExhausted("draw an SVG: the image would be above 64 million pixels");
  const std::unique_ptr<cairo_surface_t, Free> surface(cairo_image_surface_create(
      CAIRO_FORMAT_RGB24, static_cast<int>(columns), static_cast<int>(rows)));
  const std::unique_ptr<cairo_t, Free> cairo(cairo_create(surface.get()));
  cairo_set_source_rgb(cairo.get(), 1, 1, 1);  // white background
  cairo_paint(cairo.get());
  const RsvgRectangle viewport = {0, 0, columns, rows};
  if (!rsvg_handle_render_document(handle.get(), cairo.get(), &viewport, &error)) {
    return InvalidArgument("draw an SVG: " + TakeMessage(error));
  }
  std::string png;
  const cairo_status_t status = cairo_surface_write_to_png_stream(surface.get(), Append, &png);
  if (status != CAIRO_STATUS_SUCCESS)
    return ResourceExhausted(std::string("write a PNG: ") + cairo_status_to_string(status));
  return png;
}

}  // namespace longhold
