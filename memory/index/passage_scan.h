// The first pass over the vectors of a passage index: an integer for each vector that estimates its
// inner product with the question's vector. PassageIndex scores the best ones exactly.
//
// Both scans are immutable. Their results are the same on every processor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace longhold {

// Reads the int8 codes of all components (passage_segment.h). With the query's components rounded
// to 16 bits,
//   estimate[v] = sum_i (codes[v, i] - 127) * round(scale * query[i])
// which is 255 * scale times the inner product, up to Error().
class CodeScan {
 public:
  // Must hold: 1..kPassageDimMax finite components.
  explicit CodeScan(std::span<const float> query);
  void Estimate(const uint8_t* codes, size_t count, int32_t* estimates) const;
  // The estimate of an inner product of 1.
  int32_t One() const { return one_; }
  // How far an estimate may be from 255 * scale times the inner product, computed in float.
  int32_t Error() const { return error_; }

 private:
  std::vector<int16_t> query_;  // [dim]
  int32_t offset_ = 0;          // 127 * sum of query_
  int32_t one_ = 0, error_ = 0;
};

// Reads the signs of the components only, an eighth of the bytes. With the query's components
// rounded to 4 bits,
//   u[i] = 2 * floor(8 * query[i] / max_j |query[j]|) + 1, an odd number from -15 to 15
//   estimate[v] = sum_i (codes[v, i] > 127 ? u[i] : -u[i])
// The sum is made of bit counts, as in RaBitQ (Gao and Long 2024, arXiv 2405.12497).
class SignScan {
 public:
  // Must hold: 1..kPassageDimMax finite components.
  explicit SignScan(std::span<const float> query);
  // signs: [count, SignWords(dim)]
  void Estimate(const uint64_t* signs, size_t count, int32_t* estimates) const;
  // The same without the processor's instruction for bit counts. For tests.
  void EstimatePortably(const uint64_t* signs, size_t count, int32_t* estimates) const;
  // No estimate is larger.
  int32_t Max() const { return max_; }

 private:
  static constexpr size_t kPlanes = 4;
  std::vector<uint64_t> planes_;  // [SignWords(dim), kPlanes] bit b of (u[i] + 15) / 2
  int32_t offset_ = 0;            // sum of u
  int32_t max_ = 0;
};

// 64-bit words that hold the signs of a vector.
constexpr size_t SignWords(size_t dim) { return (dim + 63) / 64; }
// Adds the signs of `count` vectors to `signs`. codes: [count, dim]
void AppendSigns(const uint8_t* codes, size_t count, size_t dim, std::vector<uint64_t>& signs);

}  // namespace longhold
