// The time of day, where a record or a reply names it. Durations are measured with std::chrono::steady_clock.
//
// Thread use: pure function.
#pragma once

#include <cstdint>

namespace longhold {

// Seconds since 1970 in UTC.
int64_t UnixSeconds();

}  // namespace longhold
