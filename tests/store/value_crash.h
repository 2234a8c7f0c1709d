// The child of value_crash_test.cc. rocks_crash_test.cc has main(), which calls it for the role
// "values".
#pragma once

#include <string>

namespace longhold {

// Opens the log at `path`, prints "ok", and makes the changes `first`, `first` + 1, ... forever. It
// prints the number of each one that is acknowledged.
int WriteValuesForever(const std::string& path, unsigned first);

}  // namespace longhold
