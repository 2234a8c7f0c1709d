// Whether this build runs under a sanitizer. Tests that repeat one thing at hundreds of places take
// a few of them there: the code that a sanitizer judges is the same at each.
#pragma once

namespace longhold {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace longhold
