// A file that is there whole or not at all, also after a crash of the machine.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <system_error>

#include "base/status.h"

namespace longhold {

// Writes the parts one after the other beside `path` and gives them its name once the disk has
// them. A file that was there stays as it is until then, and when it fails. `mode` is a new file's,
// as open(2) takes it. The directory must be there. Thread use: safe to call concurrently for
// different paths. Errors: resource_exhausted (the disk is full), invalid_argument; both name
// `what`.
Status WriteFileDurably(const std::string& path, std::initializer_list<std::string_view> parts,
                        unsigned mode, const std::string& what);

// Makes the directory, and those above it, for its owner alone. One that is there keeps the mode
// that it has.
std::error_code MakePrivateDirectory(const std::string& path);

}  // namespace longhold
