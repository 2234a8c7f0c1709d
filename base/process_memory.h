// What the kernel says about this process's memory.
#pragma once

#include <cstdint>
#include <string_view>

namespace longhold {

// Bytes of a line of /proc/self/status: "VmHWM" (most that was ever resident), "RssAnon"
// (allocated), "RssFile" (mapped files, as weights are), "VmData" (private memory, touched or not).
// 0 where the kernel does not say.
uint64_t ProcessStatusBytes(std::string_view key);

}  // namespace longhold
