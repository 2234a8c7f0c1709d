// The time of day, where a record or a reply names it. Durations are measured with
// std::chrono::steady_clock.
//
// Thread use: pure function.
#pragma once

#include <cstdint>
#include <string>

namespace longhold {

// Seconds since 1970 in UTC.
int64_t UnixSeconds();
// "2026-11-27T05:01:02.345Z"
std::string UtcTime();

}  // namespace longhold
