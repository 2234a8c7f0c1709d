// The bytes of IvfSegment. This file does not use FAISS; ivf_build.cc does.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "attention/geometry.h"
#include "memory/index/ivf_index.h"
#include "memory/index/segment_bytes.h"

namespace longhold {

namespace {

constexpr char kMagic[4] = {'L', 'H', 'F', 'X'};
constexpr uint32_t kFormatVersion = 1;

// See docs/formats/index.md. All supported machines are little-endian.
struct IvfHeader {
  char magic[4];
  uint32_t version;
  uint32_t document;
  uint32_t head;
  uint32_t head_dim;
  uint32_t tokens;
  uint32_t lists;
  uint32_t reserved;  // 0
  uint64_t keys_hash;
};
static_assert(sizeof(IvfHeader) == 40);

template <typename T>
void AppendArray(const std::vector<T>& values, std::string* out) {
  out->append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

template <typename T>
void ReadArray(size_t count, const char** in, std::vector<T>* values) {
  values->resize(count);
  if (count > 0) std::memcpy(values->data(), *in, count * sizeof(T));
  *in += count * sizeof(T);
}

}  // namespace

const char* IvfSegment::Fault() const {
  if (head >= kScanHeadsMax) return "head is out of range";
  if (head_dim == 0 || head_dim % 4 != 0 || head_dim > kMaxHeadDim)
    return "head_dim is out of range";
  if (tokens == 0 || tokens > kIvfTokensMax) return "tokens is out of range";
  if (list_begin.size() < 2 || list_begin.size() > kIvfListsMax + 1)
    return "number of lists is out of range";
  const size_t cells = size_t{lists()} * head_dim;
  if (order.size() != tokens - 1 || mean.size() != cells || variance.size() != cells)
    return "array sizes differ";
  if (list_begin.front() != 0 || list_begin.back() != order.size() ||
      !std::is_sorted(list_begin.begin(), list_begin.end())) {
    return "lists are not contiguous";
  }
  std::vector<bool> seen(tokens, false);
  for (const uint32_t token : order) {
    if (token == 0 || token >= tokens || seen[token])
      return "lists are not a permutation of the tokens";
    seen[token] = true;
  }
  for (size_t i = 0; i < cells; ++i) {
    if (!std::isfinite(mean[i]) || !std::isfinite(variance[i]) || variance[i] < 0)
      return "a mean or variance is out of range";
  }
  return nullptr;
}

std::string IvfSegment::Encode() const {
  IvfHeader header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kFormatVersion;
  header.document = static_cast<uint32_t>(document);
  header.head = head;
  header.head_dim = head_dim;
  header.tokens = tokens;
  header.lists = lists();
  header.keys_hash = keys_hash;
  std::string out;
  out.reserve(sizeof header +
              4 * (list_begin.size() + order.size() + mean.size() + variance.size()) + 8);
  out.append(reinterpret_cast<const char*>(&header), sizeof header);
  AppendArray(list_begin, &out);
  AppendArray(order, &out);
  AppendArray(mean, &out);
  AppendArray(variance, &out);
  AppendChecksum(&out);
  return out;
}

Result<IvfSegment> IvfSegment::Decode(std::string_view bytes) {
  const auto loss = [](std::string_view why) {
    return DataLoss("decode lists: " + std::string(why));
  };
  IvfHeader header;
  LH_ASSIGN_OR_RETURN(const size_t body, ReadHeader(bytes, kMagic, "lists", "not lists", &header));
  if (header.version != kFormatVersion) {
    return FailedPrecondition("decode lists: format " + std::to_string(header.version) +
                              "; this version reads format " + std::to_string(kFormatVersion));
  }
  // Each factor is checked before the multiplication, and the size before any allocation.
  if (header.lists == 0 || header.lists > kIvfListsMax || header.head_dim > kMaxHeadDim ||
      header.tokens == 0 || header.tokens > kIvfTokensMax) {
    return loss("a size is out of range");
  }
  if (header.reserved != 0) return loss("unknown flags");
  const uint64_t cells = uint64_t{header.lists} * header.head_dim;
  if (body - sizeof header != 4 * (header.lists + uint64_t{1} + (header.tokens - 1) + 2 * cells)) {
    return loss("sizes do not fit the length");
  }

  IvfSegment segment;
  segment.document = DocumentId{header.document};
  segment.head = header.head;
  segment.head_dim = header.head_dim;
  segment.tokens = header.tokens;
  segment.keys_hash = header.keys_hash;
  const char* in = bytes.data() + sizeof header;
  ReadArray(size_t{header.lists} + 1, &in, &segment.list_begin);
  ReadArray(header.tokens - 1, &in, &segment.order);
  ReadArray(cells, &in, &segment.mean);
  ReadArray(cells, &in, &segment.variance);
  if (const char* fault = segment.Fault()) return loss(fault);
  return segment;
}

}  // namespace longhold
