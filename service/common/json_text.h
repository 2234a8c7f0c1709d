// JSON as the program writes it, and as it reads requests. Pure functions.
#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

// One line without a line break. Numbers as people write them: Boost.JSON's 6.2E-1 is right and
// nobody wants to read it.
std::string DumpJson(const boost::json::value& value);

// `text` as a JSON string's content: valid UTF-8, whatever it was.
boost::json::string JsonString(std::string_view text);

// {"error": {"message", "type", "param": null, "code": null}}, as OpenAI's clients expect it.
std::string ErrorJson(std::string_view type, std::string_view message);

// Errors: invalid_argument (no JSON, no object, nested too deep).
Result<boost::json::object> ParseJsonObject(std::string_view text);

// Members of a request. One that is missing or null is `otherwise`, or empty; one of another kind
// or out of range is an error that names it: invalid_argument.
Status BadField(std::string_view name, std::string_view why);
// null: missing, or JSON's null
const boost::json::value* FindField(const boost::json::object& object, std::string_view name);
Result<std::string> StringField(const boost::json::object& object, std::string_view name);
Result<bool> FlagField(const boost::json::object& object, std::string_view name, bool otherwise);
Result<double> NumberField(const boost::json::object& object, std::string_view name, double low,
                           double high, double otherwise);
Result<int64_t> IntegerField(const boost::json::object& object, std::string_view name, int64_t low,
                             int64_t high, int64_t otherwise);
// 0 to `max`; none where it is missing.
Result<std::optional<uint32_t>> CountField(const boost::json::object& object, std::string_view name,
                                           uint32_t max);

}  // namespace longhold
