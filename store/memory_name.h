// Names of memories, and of the tenants that own them.
//
// A memory's name has 1 to 64 of [A-Za-z0-9._-] and does not begin with a dot or a dash. The memory
// of a tenant is TENANT/NAME, where both parts have that form.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

// Value type.
struct MemoryName {
  std::string tenant;  // empty for the operator's own memories
  std::string name;
};

// Errors: invalid_argument, with the rule.
Status CheckMemoryName(std::string_view name);
// Splits "TENANT/NAME" and "NAME". Does not check the parts.
MemoryName SplitMemoryName(const std::string& name);

}  // namespace longhold
