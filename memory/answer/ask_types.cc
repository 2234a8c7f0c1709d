#include "memory/answer/ask_types.h"

namespace longhold {

std::string_view AttendName(const AttendOptions& options) {
  return std::holds_alternative<FaithfulOptions>(options) ? "faithful" : "focused";
}

std::optional<AttendOptions> FindAttend(std::string_view name) {
  for (const AttendOptions& options :
       {AttendOptions(FocusedOptions{}), AttendOptions(FaithfulOptions{})}) {
    if (AttendName(options) == name) return options;
  }
  return std::nullopt;
}

}  // namespace longhold
