// Writes JSON and reads the JSON of requests. Pure functions.
#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

// Serialises on one line, without a line break at the end. Numbers are written in the short form
// that people expect (0.62), not as Boost.JSON writes them (6.2E-1).
std::string DumpJson(const boost::json::value& value);

// `text` as the content of a JSON string. Invalid UTF-8 is replaced.
boost::json::string JsonString(std::string_view text);

// An error in the form that OpenAI's clients expect: {"error": {"message", "type", "param": null,
// "code": null}}.
std::string ErrorJson(std::string_view type, std::string_view message);

// Parses a request body. Errors: invalid_argument (not JSON, not an object, nested more than 16
// levels deep).
Result<boost::json::object> ParseJsonObject(std::string_view text);

// The functions below read one member of a request. A member that is missing or null gives
// `otherwise`, or an empty value. A member of the wrong type or out of range is an invalid_argument
// error; its message begins with the name of the member.
Status BadField(std::string_view name, std::string_view why);
// Returns the member, or nullptr when it is missing or JSON null.
const boost::json::value* FindField(const boost::json::object& object, std::string_view name);
Result<std::string> StringField(const boost::json::object& object, std::string_view name);
Result<bool> FlagField(const boost::json::object& object, std::string_view name, bool otherwise);
Result<double> NumberField(const boost::json::object& object, std::string_view name, double low,
                           double high, double otherwise);
Result<int64_t> IntegerField(const boost::json::object& object, std::string_view name, int64_t low,
                             int64_t high, int64_t otherwise);
// Returns a count from 0 to `max`; nullopt when the member is missing.
Result<std::optional<uint32_t>> CountField(const boost::json::object& object, std::string_view name,
                                           uint32_t max);

}  // namespace longhold
