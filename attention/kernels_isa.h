// What kernels.cc and the instruction-set files share: plain structs only. Internal to attention/.
//
// The kernels_<isa>.cc files may be compiled for processors newer than the one that runs the
// program. If such a file instantiated an inline function that other files also instantiate (any of
// std::), the linker could keep its copy. Newer instructions would then run everywhere, also on
// processors that lack them. Therefore these files
//   - see only pointers and numbers, and call no library template,
//   - define everything in an unnamed namespace.
//
// kernels.cc unpacks the public calls for them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention/kernels.h"

// A register tile is an array of vectors. The compiler keeps it in registers only if every loop
// over it is unrolled.
#if defined(__clang__)
#define LH_UNROLL _Pragma("unroll")
#else
#define LH_UNROLL _Pragma("GCC unroll 16")
#endif
#define LH_INLINE inline __attribute__((always_inline))

namespace longhold {

// AttendCall without the span. Same meaning and shapes; kernels.cc has checked rows,
// group and head_dim.
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

// Entry points of one instruction set: KernelTable's functions without the checks.
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

// Query rows of one register tile. More rows would spill: 6 rows x 4 vectors take 24 of the
// 32 AVX-512 registers.
inline constexpr int kTileRows = 6;

// A call's scratch: the scores of one chunk, [kTileRows, kScoreStride], then the scaled
// queries, [kTileRows, kQueryStride].
//
// The strides are constants, so the addresses of a tile's rows are one base register plus six
// constant offsets. They are 16 floats above a power of two, so the rows do not compete for the
// same cache set.
inline constexpr size_t kScoreStride = kAttendChunkKeys + 16;
inline constexpr size_t kQueryStride = 256 + 16;
inline constexpr size_t kScratchFloats = kTileRows * (kScoreStride + kQueryStride);

}  // namespace longhold
