// What kernels.cc and the instruction-set files share: plain structs only. Internal to attention/.
//
// The kernels_<isa>.cc files are compiled for processors that may be newer than ours. If such a
// file instantiated an inline function that other files instantiate too (any of std::), the linker
// could keep its copy and run new instructions everywhere. So those files see pointers and numbers,
// call no library template, and keep everything they define in an unnamed namespace; kernels.cc
// unpacks the public calls for them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention/kernels.h"

// Register tiles are arrays of vectors: they live in registers only if every loop over them is
// unrolled.
#if defined(__clang__)
#define LH_UNROLL _Pragma("unroll")
#else
#define LH_UNROLL _Pragma("GCC unroll 16")
#endif
#define LH_INLINE inline __attribute__((always_inline))

namespace longhold {

// AttendCall with the span taken apart. Same meaning, same shapes; rows, group and head_dim have
// been checked.
struct AttendArgs {
  const float* q;
  uint32_t rows;
  uint32_t group;
  uint32_t head_dim;
  const KeyBlockView* blocks;
  uint32_t block_count;
  uint32_t shared;
  const VisibleKeys* visible;
  float scale;
  float softcap;
  float* out;
  float* lse;
  float* key_mass;
  size_t key_mass_stride;
  float* scratch;
};

// One instruction set's entry points; KernelTable's functions without the checks.
struct IsaKernels {
  void (*attend)(const AttendArgs& args);
  void (*scan)(const ScanCall& call);
  void (*scan_logits)(const ScanCall& one_block, float* out);
  void (*multiply_add)(const MultiplyCall& call);
  void (*half_to_float)(const uint16_t* in, float* out, size_t count);
  void (*float_to_half)(const float* in, uint16_t* out, size_t count);
};

extern const IsaKernels kScalarKernels;
extern const IsaKernels kAvx2Kernels;
extern const IsaKernels kAvx512Kernels;

// Query rows that one register tile holds. More would spill: 6 rows x 4 vectors are 24 of AVX-512's
// 32 registers.
inline constexpr int kTileRows = 6;

// A call's scratch: [kTileRows, kScoreStride] scores of one chunk, then [kTileRows, kQueryStride]
// scaled queries. The strides are constants, so that a tile's rows are one base register and six
// displacements; 16 floats more than a power of two, so that the rows do not compete for the same
// cache set.
inline constexpr size_t kScoreStride = kAttendChunkKeys + 16;
inline constexpr size_t kQueryStride = 256 + 16;
inline constexpr size_t kScratchFloats = kTileRows * (kScoreStride + kQueryStride);

}  // namespace longhold
