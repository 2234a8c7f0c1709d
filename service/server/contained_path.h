// Files of the server's machine that a client may name.
#pragma once

#include <string>

#include "base/status.h"

namespace longhold {

// Reads the regular file `path`, at most `bytes_max` bytes, relative to the directory `root` and
// beneath it: no "..", no absolute path and no symbolic link leads out of it, whoever changes the
// directory meanwhile (openat2(2), RESOLVE_BENEATH). Thread use: safe to call concurrently. Errors:
// not_found, invalid_argument (not beneath, no regular file, no permission), resource_exhausted
// (too long), unimplemented (a kernel before 5.6).
Result<std::string> ReadContained(const std::string& root, const std::string& path,
                                  uint64_t bytes_max);

}  // namespace longhold
