#include "service/common/json_text.h"

#include <boost/json.hpp>
#include <cmath>

#include "base/format.h"
#include "base/utf8.h"

namespace longhold {
namespace {

namespace json = boost::json;

constexpr size_t kDepthMax = 16;

void Write(const json::value& value, std::string* out) {
  switch (value.kind()) {
    case json::kind::object: {
      *out += '{';
      bool first = true;
      for (const auto& [key, member] : value.get_object()) {
        if (!first) *out += ',';
        first = false;
        *out += json::serialize(json::string_view(key));
        *out += ':';
        Write(member, out);
      }
      *out += '}';
      return;
    }
    case json::kind::array: {
      *out += '[';
      bool first = true;
      for (const json::value& member : value.get_array()) {
        if (!first) *out += ',';
        first = false;
        Write(member, out);
      }
      *out += ']';
      return;
    }
    case json::kind::double_:
      *out += std::isfinite(value.get_double()) ? Format("%.6g", value.get_double()) : "0";
      return;
    default: *out += json::serialize(value);
  }
}

}  // namespace

std::string DumpJson(const json::value& value) {
  std::string out;
  Write(value, &out);
  return out;
}

json::string JsonString(std::string_view text) { return json::string(MakeValidUtf8(text)); }

std::string ErrorJson(std::string_view type, std::string_view message) {
  return DumpJson(json::object{{"error", json::object{{"message", JsonString(message)},
                                                      {"type", JsonString(type)},
                                                      {"param", nullptr},
                                                      {"code", nullptr}}}});
}

Result<json::object> ParseJsonObject(std::string_view text) {
  boost::system::error_code ec;
  json::value value = json::parse(text, ec, {}, {.max_depth = kDepthMax});
  if (ec) return InvalidArgument("the body is not JSON (" + ec.message() + ")");
  if (!value.is_object()) return InvalidArgument("the body is not a JSON object");
  return std::move(value.get_object());
}

Status BadField(std::string_view member, std::string_view why) {
  return InvalidArgument(std::string(member) + ": " + std::string(why));
}

const json::value* FindField(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

Result<double> NumberField(const json::object& object, std::string_view name, double low,
                           double high, double otherwise) {
  const json::value* value = FindField(object, name);
  if (value == nullptr) return otherwise;
  const double number = value->is_number() ? value->to_number<double>() : std::nan("");
  if (!(number >= low && number <= high))
    return BadField(name,
                    "must be a number from " + Format("%g", low) + " to " + Format("%g", high));
  return number;
}

Result<int64_t> IntegerField(const json::object& object, std::string_view name, int64_t low,
                             int64_t high, int64_t otherwise) {
  const json::value* value = FindField(object, name);
  if (value == nullptr) return otherwise;
  // Clients may write whole numbers as 1e3 or 7.0. A double that is a whole number below 2^63
  // converts exactly to int64_t.
  constexpr double kTooLarge = 9223372036854775808.0;
  const double number = value->is_double() ? value->get_double() : 0;
  if (number != std::floor(number)) return BadField(name, "must be a whole number");
  const bool whole = value->is_int64() ||
                     (value->is_uint64() && value->get_uint64() <= INT64_MAX) ||
                     (value->is_double() && number >= -kTooLarge && number < kTooLarge);
  const int64_t integer = !whole               ? 0
                          : value->is_double() ? static_cast<int64_t>(number)
                                               : value->to_number<int64_t>();
  if (!whole || integer < low || integer > high)
    return BadField(
        name, "must be a whole number from " + std::to_string(low) + " to " + std::to_string(high));
  return integer;
}

Result<bool> FlagField(const json::object& object, std::string_view name, bool otherwise) {
  const json::value* value = FindField(object, name);
  if (value == nullptr) return otherwise;
  if (!value->is_bool()) return BadField(name, "must be true or false");
  return value->get_bool();
}

Result<std::string> StringField(const json::object& object, std::string_view name) {
  const json::value* value = FindField(object, name);
  if (value == nullptr) return std::string();
  if (!value->is_string()) return BadField(name, "must be a string");
  return std::string(value->get_string());
}

Result<std::optional<uint32_t>> CountField(const json::object& object, std::string_view name,
                                           uint32_t max) {
  LH_ASSIGN_OR_RETURN(const int64_t count, IntegerField(object, name, 0, max, -1));
  return count < 0 ? std::nullopt : std::optional(static_cast<uint32_t>(count));
}

}  // namespace longhold
