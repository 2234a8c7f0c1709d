#include "memory/index/summaries.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <span>

#include "attention/kernels.h"
#include "memory/index/segment_bytes.h"

namespace longhold {
namespace {

static_assert(std::endian::native == std::endian::little,
              "segments are stored as they lie in memory");

constexpr char kMagic[4] = {'L', 'H', 'S', 'M'};
constexpr uint32_t kFormatVersion = 1;
constexpr uint8_t kCodeZero = 8;
constexpr int kCodeMax = 7;
constexpr float kHalfMax = 65504;
constexpr uint32_t kBlocksMax = 1024, kLayersMax = 4096, kKvHeadsMax = 4096;

struct Header {
  char magic[4];
  uint32_t version;
  uint32_t document;
  uint32_t block_begin;
  uint32_t block_count;
  uint32_t layers;
  uint32_t kv_heads;
  uint32_t head_dim;
};

}  // namespace

SummarySegment SummarySegment::Of(DocumentId document, uint32_t block_begin,
                                  const KvGeometry& geometry) {
  SummarySegment s;
  s.document = document;
  s.block_begin = block_begin;
  s.layers = static_cast<uint32_t>(geometry.layers.size());
  s.kv_heads = geometry.kv_heads;
  s.head_dim = geometry.head_dim;
  return s;
}

void SummarySegment::Append(const KvBlock& block, uint32_t rows, const RopeTables& ropes) {
  LH_CHECK(rows > 0 && rows <= block.tokens && block.shape.layers == layers &&
           block.shape.kv_width == kv_heads * head_dim);
  const uint32_t width = block.shape.kv_width, d = head_dim;
  std::vector<float> row(width), mean(width);
  float rotated[kMaxHeadDim];
  for (uint32_t slot = 0; slot < layers; ++slot) {
    std::fill(mean.begin(), mean.end(), 0.0f);
    for (uint32_t r = 0; r < rows; ++r) {
      Kernels().half_to_float(block.Keys(slot) + size_t{r} * width, row.data(), width);
      for (uint32_t h = 0; h < kv_heads; ++h) {
        ropes.Of(slot).Rotate(row.data() + size_t{h} * d, rotated, d, r);
        for (uint32_t c = 0; c < d; ++c)
          mean[size_t{h} * d + c] += rotated[c] / static_cast<float>(rows);
      }
    }
    for (uint32_t h = 0; h < kv_heads; ++h) {
      for (uint32_t first = 0; first < d; first += kSummaryGroup) {
        const std::span<const float> own(mean.data() + size_t{h} * d + first,
                                         std::min(kSummaryGroup, d - first));
        float largest = 0;
        for (const float x : own) largest = std::max(largest, std::abs(x));
        // A model whose keys overflow fp16 has infinite keys. Such a group gets scale 0, that is, a
        // mean of 0.
        float scale = std::isfinite(largest) ? std::min(largest / kCodeMax, kHalfMax) : 0;
        scales.push_back(0);
        Kernels().float_to_half(&scale, &scales.back(), 1);
        Kernels().half_to_float(&scales.back(), &scale, 1);
        const auto code = [&](float x) {
          return scale > 0
                     ? static_cast<uint8_t>(kCodeZero + std::clamp(std::lround(x / scale),
                                                                   -long{kCodeMax}, long{kCodeMax}))
                     : kCodeZero;
        };
        for (size_t c = 0; c < own.size(); c += 2)
          codes.push_back(static_cast<uint8_t>(code(own[c]) | code(own[c + 1]) << 4));
      }
    }
  }
  ++block_count;
}

void SummarySegment::AppendLost() {
  scales.resize(scales.size() + size_t{layers} * kv_heads * groups(), uint16_t{0});
  codes.resize(codes.size() + size_t{layers} * kv_heads * head_dim / 2,
               uint8_t{kCodeZero | kCodeZero << 4});
  ++block_count;
}

void SummarySegment::Mean(uint32_t block, uint32_t slot, uint32_t kv_head, float* mean) const {
  const size_t at = (size_t{block} * layers + slot) * kv_heads + kv_head;
  const uint8_t* code = codes.data() + at * head_dim / 2;
  for (uint32_t first = 0, group = 0; first < head_dim; first += kSummaryGroup, ++group) {
    float scale = 0;
    Kernels().half_to_float(&scales[at * groups() + group], &scale, 1);
    for (uint32_t c = first; c < std::min(first + kSummaryGroup, head_dim); c += 2, ++code) {
      mean[c] = scale * static_cast<float>(int{*code & 15} - kCodeZero);
      mean[c + 1] = scale * static_cast<float>(int{*code >> 4} - kCodeZero);
    }
  }
}

uint64_t SummarySegment::Bytes(const KvGeometry& geometry, uint64_t blocks) {
  return blocks * geometry.layers.size() * geometry.kv_heads *
         (geometry.head_dim / 2 + GroupsOf(geometry.head_dim) * sizeof(uint16_t));
}

std::string SummarySegment::Encode() const {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kFormatVersion;
  header.document = static_cast<uint32_t>(document);
  header.block_begin = block_begin;
  header.block_count = block_count;
  header.layers = layers;
  header.kv_heads = kv_heads;
  header.head_dim = head_dim;
  std::string out(reinterpret_cast<const char*>(&header), sizeof header);
  out.append(reinterpret_cast<const char*>(scales.data()), scales.size() * sizeof(uint16_t));
  out.append(reinterpret_cast<const char*>(codes.data()), codes.size());
  AppendChecksum(&out);
  return out;
}

Result<SummarySegment> SummarySegment::Decode(std::string_view bytes) {
  const auto loss = [](std::string_view why) {
    return DataLoss("decode summaries: " + std::string(why));
  };
  Header header;
  LH_ASSIGN_OR_RETURN(const size_t body,
                      ReadHeader(bytes, kMagic, "summaries", "no summaries", &header));
  if (header.version != kFormatVersion) {
    return FailedPrecondition("decode summaries: format " + std::to_string(header.version) +
                              "; this version reads format " + std::to_string(kFormatVersion));
  }
  // Each factor is checked before the multiplication, and the product before any allocation.
  if (header.block_count == 0 || header.block_count > kBlocksMax || header.layers > kLayersMax ||
      header.kv_heads > kKvHeadsMax || header.head_dim > kMaxHeadDim) {
    return loss("a size is out of range");
  }
  const uint64_t means = uint64_t{header.block_count} * header.layers * header.kv_heads;
  if (header.head_dim % 4 != 0 ||
      body - sizeof header !=
          means * (GroupsOf(header.head_dim) * sizeof(uint16_t) + header.head_dim / 2))
    return loss("sizes do not fit the length");
  SummarySegment s;
  s.document = DocumentId{header.document};
  s.block_begin = header.block_begin;
  s.block_count = header.block_count;
  s.layers = header.layers;
  s.kv_heads = header.kv_heads;
  s.head_dim = header.head_dim;
  s.scales.resize(means * s.groups());
  const size_t scale_bytes = s.scales.size() * sizeof(uint16_t);
  if (scale_bytes > 0) std::memcpy(s.scales.data(), bytes.data() + sizeof header, scale_bytes);
  const auto* codes = reinterpret_cast<const uint8_t*>(bytes.data()) + sizeof header + scale_bytes;
  s.codes.assign(codes, codes + means * header.head_dim / 2);
  // An fp16 value that is negative, infinite or NaN has a bit pattern of 0x7c00 or more.
  if (std::any_of(s.scales.begin(), s.scales.end(), [](uint16_t scale) { return scale >= 0x7c00; }))
    return loss("a scale is not finite or is negative");
  if (std::any_of(s.codes.begin(), s.codes.end(),
                  [](uint8_t code) { return (code & 15) == 0 || code >> 4 == 0; }))
    return loss("a code is out of range");
  return s;
}

}  // namespace longhold
