// The archive codec: keys and values in a basis in which they are mostly zeros.
//
// A layer's keys and values of one token say much the same in many ways: they are linear images of
// one hidden state. In the eigenvectors of their covariance (the Karhunen-Loeve transform,
// "principal components") few components carry most of the variance. Rounded to one step there,
// each component takes the bits that its variance deserves (reverse water-filling: T. Cover and J.
// Thomas, Elements of Information Theory, 10.3.3), and those below a step take almost none.
// docs/decisions/0016 has what was measured.
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

// out[rows, columns] += a[rows, depth] b[depth, columns], row-major and apart. store/ stands beside
// the kernels and is given one.
using MultiplyAdd = void (*)(const float* a, const float* b, float* out, uint32_t rows,
                             uint32_t depth, uint32_t columns);

// The basis of one memory: learned from its own first blocks, stored once, the same for all of its
// blocks. Value type; *immutable* once fitted or decoded.
class TransformBasis {
 public:
  // A layer's keys and values in neighbouring channels: 2 * channels numbers a token, keys first.
  struct Group {
    uint32_t layer = 0;
    uint32_t begin = 0;  // first channel
    uint32_t channels = 0;
    uint32_t components = 0;
    std::vector<float> mean;  // [2 * channels]
    std::vector<float> step;  // [2 * channels], above 0: what a number is divided by
    // [components, 2 * channels], orthonormal, widest variance first
    std::vector<float> rows;
    // [components] how wide: components of one class share a table of frequencies
    std::vector<uint8_t> classes;
  };
  static constexpr uint32_t kClasses = 16;
  // Groups are as large as they can be and have at most this many channels.
  static constexpr uint32_t kGroupChannelsMax = 256;
  // Blocks that a basis should be learned from, at least: 4,096 tokens.
  static constexpr size_t kFitBlocks = 64;

  // Learns from blocks of one shape. `share` is the step: that much of what a token's keys (values)
  // deviate, in the root mean square over 64 neighbouring channels, from their mean; of the median
  // token. Takes seconds, on the calling thread. Errors: invalid_argument when no token has only
  // finite numbers; internal.
  static Result<TransformBasis> Fit(std::span<const KvBlock> blocks, float share,
                                    MultiplyAdd multiply);

  // The record that is stored: docs/formats/block.md, "Basis".
  std::string Encode() const;
  // Errors: data_loss for anything that is not a whole basis of that shape.
  static Result<TransformBasis> Decode(std::string_view bytes, const BlockShape& shape);

  const BlockShape& shape() const { return shape_; }
  std::span<const Group> groups() const { return groups_; }
  uint64_t id() const { return id_; }  // the record's checksum; blocks name it
  uint64_t ram_bytes() const;

 private:
  BlockShape shape_;
  std::vector<Group> groups_;
  uint64_t id_ = 0;
};

inline constexpr uint16_t kCodecTransform = 3;  // the id of its format
inline constexpr std::string_view kArchiveCodec = "archive";
// The share that TransformBasis::Fit is given for it.
inline constexpr float kArchiveStep = 0.7f;

// Codes blocks in `basis`. Error: the numbers of a token in a group are off by at most half a step
// each in the root mean square (0.3 in the usual case), plus half a unit of their own last place; a
// token for which that would not hold, or that has infinities or NaNs, is stored as it is. The
// codec is *immutable* like all others.
std::unique_ptr<const BlockCodec> NewTransformCodec(std::string name,
                                                    std::shared_ptr<const TransformBasis> basis,
                                                    MultiplyAdd multiply);

}  // namespace longhold
