// Whether this build runs under a sanitizer. Tests that repeat one check at hundreds of places then
// take only some of them: the code that a sanitizer checks is the same at each.
#pragma once

namespace longhold {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace longhold
