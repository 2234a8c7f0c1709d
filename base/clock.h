// The time of day, for records and replies. Durations are measured with std::chrono::steady_clock.
//
// Thread use: free functions, safe to call concurrently.
#pragma once

#include <cstdint>
#include <string>

namespace longhold {

// Seconds since 1970-01-01 00:00 UTC.
int64_t UnixSeconds();
// Milliseconds since then.
int64_t UnixMilliseconds();
// The time now, in this form: "2026-11-27T05:01:02.345Z".
std::string UtcTime();

}  // namespace longhold
