// Files on the machine of the server that a client names by path.
#pragma once

#include <string>

#include "base/status.h"

namespace longhold {

// Reads the regular file `path`, at most `bytes_max` bytes. `path` is relative to the directory
// `root` and must stay below it: "..", an absolute path or a symbolic link cannot leave it, even if
// the directory changes meanwhile (openat2(2), RESOLVE_BENEATH). Thread use: pure function. Errors:
// not_found, invalid_argument (not below `root`, not a regular file, no permission),
// resource_exhausted (too long), unimplemented (Linux before 5.6).
Result<std::string> ReadContained(const std::string& root, const std::string& path,
                                  uint64_t bytes_max);

}  // namespace longhold
