#include "service/server/descriptors.h"

#include <sys/resource.h>

#include <algorithm>

namespace longhold {
namespace {

// Descriptors of one store: kOpenFilesMax in store/rocks_store.cc. Large memories approach it,
// small ones have some 20.
constexpr uint64_t kStoreDescriptors = 512;
// Stores open at the same time: of eight concurrent answers, of the text that is ingested, of two
// jobs, and one that is only listed.
constexpr uint64_t kStoresMax = 12;
// The model, the inbox, uploads, logs, keys, and those of libraries.
constexpr uint64_t kOtherDescriptors = 256;

}  // namespace

uint64_t RaiseDescriptorLimit(uint64_t most) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  const rlim_t soft = limit.rlim_cur;
  limit.rlim_cur = std::max<rlim_t>(soft, std::min<rlim_t>(limit.rlim_max, most));
  return setrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : soft;
}

uint32_t ConnectionsFor(uint64_t descriptors, uint32_t wanted) {
  const uint64_t others = kStoresMax * kStoreDescriptors + kOtherDescriptors;
  const uint64_t left = std::max(descriptors > others ? descriptors - others : 0, descriptors / 4);
  return static_cast<uint32_t>(std::clamp<uint64_t>(left, 1, wanted));
}

}  // namespace longhold
