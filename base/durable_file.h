// Files that survive a crash of the machine either complete or not at all.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <system_error>

#include "base/status.h"

namespace longhold {

// Writes `parts`, concatenated, to the file at `path`, atomically and durably.
//
// The bytes go to a temporary file in the same directory. Once they are on the disk, that file is
// renamed to `path`. Until then, and if the call fails, an existing file at `path` is unchanged.
// The directory must exist. `mode` applies to a new file, as in open(2).
//
// Thread use: safe to call concurrently for different paths. Errors: resource_exhausted (the disk
// is full), invalid_argument. Both messages name `what`.
Status WriteFileDurably(const std::string& path, std::initializer_list<std::string_view> parts,
                        unsigned mode, const std::string& what);

// Creates the directory and its missing parents, accessible to the owner only. An existing
// directory keeps its mode.
std::error_code MakePrivateDirectory(const std::string& path);

}  // namespace longhold
