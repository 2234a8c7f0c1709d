// The archive codec: stores keys and values in a basis in which most components are close to zero.
//
// A token's keys and values in one layer are linear images of one hidden state, so they are highly
// redundant. In the eigenvectors of their covariance matrix (Karhunen-Loeve transform, principal
// components), few components carry most of the variance. The codec rounds every component to the
// same step. Each component then needs as many bits as its variance requires (reverse
// water-filling: T. Cover and J. Thomas, Elements of Information Theory, 10.3.3). Components whose
// deviation is below a step need almost none. docs/decisions/0016 has the measurements.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "store/block_codec.h"

namespace longhold {

// out[rows, columns] += a[rows, depth] b[depth, columns]: row-major, no overlap. The caller passes
// one of the kernels, because store/ does not depend on attention/.
using MultiplyAdd = void (*)(const float* a, const float* b, float* out, uint32_t rows,
                             uint32_t depth, uint32_t columns);

// The basis of one memory: learned from its own first blocks, stored once, and used for all its
// blocks. Value type; *immutable* once fitted or decoded.
class TransformBasis {
 public:
  // The keys and values of one layer in neighbouring channels. Per token: 2 * channels
  // elements, keys first.
  struct Group {
    uint32_t layer = 0;
    uint32_t begin = 0;  // first channel
    uint32_t channels = 0;
    uint32_t components = 0;
    std::vector<float> mean;  // [2 * channels]
    std::vector<float> step;  // [2 * channels], above 0; each element is divided by its step
    // [components, 2 * channels]: the basis vectors, orthonormal, largest variance first.
    std::vector<float> rows;
    // [components]: the class of each component by its variance. The components of a class share
    // one table of frequencies.
    std::vector<uint8_t> classes;
  };
  static constexpr uint32_t kClasses = 16;
  // Groups are as large as possible and have at most this many channels.
  static constexpr uint32_t kGroupChannelsMax = 256;
  // The number of blocks that a basis should be learned from, at least: 4,096 tokens.
  static constexpr size_t kFitBlocks = 64;

  // Learns a basis from blocks of one shape. `share` sets the steps. A step is `share` times the
  // deviation of the median token from the mean, as root mean square over 64 neighbouring channels
  // of the keys (values). Takes seconds, on the calling thread. Errors: invalid_argument (no token
  // has only finite numbers), internal.
  static Result<TransformBasis> Fit(std::span<const KvBlock> blocks, float share,
                                    MultiplyAdd multiply);

  // The stored record: docs/formats/block.md, "Basis".
  std::string Encode() const;
  // Errors: data_loss if `bytes` is not a complete basis of that shape.
  static Result<TransformBasis> Decode(std::string_view bytes, const BlockShape& shape);

  const BlockShape& shape() const { return shape_; }
  std::span<const Group> groups() const { return groups_; }
  uint64_t id() const { return id_; }  // the record's checksum; each block names the basis by it
  uint64_t ram_bytes() const;

 private:
  BlockShape shape_;
  std::vector<Group> groups_;
  uint64_t id_ = 0;
};

inline constexpr uint16_t kCodecTransform = 3;  // identifies the payload's format
inline constexpr std::string_view kArchiveCodec = "archive";
// The `share` for TransformBasis::Fit.
inline constexpr float kArchiveStep = 0.7f;

// Encodes blocks in `basis`. *immutable*, as every codec.
//
// Error: in each group, the root-mean-square error of a token's elements is at most half a step,
// usually 0.3 steps. Rounding to fp16 adds half a unit in the last place of each element. A token
// that would exceed this, or that has infinities or NaNs, is stored unchanged.
std::unique_ptr<const BlockCodec> NewTransformCodec(std::string name,
                                                    std::shared_ptr<const TransformBasis> basis,
                                                    MultiplyAdd multiply);

}  // namespace longhold
