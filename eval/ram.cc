#include "eval/ram.h"

#include <malloc.h>

#include <fstream>
#include <string>
#include <string_view>

namespace longhold {
namespace {

// A line of /proc/self/status, "VmHWM:   1234 kB".
uint64_t StatusBytes(std::string_view key) {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.starts_with(key)) return 1024 * std::stoull("0" + line.substr(line.find_first_of("0123456789")));
  }
  return 0;
}

}  // namespace

RamMeter::RamMeter() {
  malloc_trim(0);
  base_bytes_ = StatusBytes("RssAnon:");
}

void RamMeter::Begin() {
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << "5";  // sets the peak back to what is resident now
}

uint64_t RamMeter::Bytes() const {
  const uint64_t peak = StatusBytes("VmHWM:"), mapped = StatusBytes("RssFile:") + base_bytes_;
  return peak > mapped ? peak - mapped : 0;
}

}  // namespace longhold
