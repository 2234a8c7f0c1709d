#include "store/memory_name.h"

#include <algorithm>

#include "base/text.h"

namespace longhold {
namespace {

bool IsPart(std::string_view part) {
  return !part.empty() && part.size() <= 64 && part[0] != '.' && part[0] != '-' &&
         std::all_of(part.begin(), part.end(), IsNameByte);
}

}  // namespace

Status CheckMemoryName(std::string_view name) {
  const size_t slash = name.find('/');
  const bool good = slash == std::string_view::npos
                        ? IsPart(name)
                        : IsPart(name.substr(0, slash)) && IsPart(name.substr(slash + 1));
  if (good) return OkStatus();
  return InvalidArgument("memory name \"" + std::string(name) +
                         "\": use 1 to 64 letters, digits, dots, dashes or underscores, starting "
                         "with a letter or digit");
}

MemoryName SplitMemoryName(const std::string& name) {
  const size_t slash = name.find('/');
  if (slash == std::string::npos) return {"", name};
  return {name.substr(0, slash), name.substr(slash + 1)};
}

}  // namespace longhold
