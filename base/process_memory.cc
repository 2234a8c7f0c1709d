#include "base/process_memory.h"

#include <fstream>
#include <string>

namespace longhold {

uint64_t ProcessStatusBytes(std::string_view key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with(key) || line.size() <= key.size() || line[key.size()] != ':') continue;
    uint64_t kibibytes = 0;
    for (const char c : line) {
      if (c >= '0' && c <= '9') kibibytes = 10 * kibibytes + static_cast<uint64_t>(c - '0');
    }
    return 1024 * kibibytes;
  }
  return 0;
}

}  // namespace longhold
