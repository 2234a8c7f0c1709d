// What the kernel reports about this process's memory.
#pragma once

#include <cstdint>
#include <string_view>

namespace longhold {

// The value of one line of /proc/self/status, in bytes; 0 if the kernel does not report it.
// Examples of `key`:
//   - "VmHWM": peak resident memory
//   - "RssAnon": resident memory of allocations
//   - "RssFile": resident memory of mapped files, such as model weights
//   - "VmData": private memory, touched or not
uint64_t ProcessStatusBytes(std::string_view key);

}  // namespace longhold
