#include "eval/ram.h"

#include <malloc.h>

#include <fstream>

#include "base/process_memory.h"

namespace longhold {

RamMeter::RamMeter() {
  malloc_trim(0);
  base_bytes_ = ProcessStatusBytes("RssAnon");
}

void RamMeter::Begin() {
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << "5";  // resets the kernel's peak to the current size
}

uint64_t RamMeter::Bytes() const {
  const uint64_t peak = ProcessStatusBytes("VmHWM"),
                 mapped = ProcessStatusBytes("RssFile") + base_bytes_;
  return peak > mapped ? peak - mapped : 0;
}

}  // namespace longhold
