// The attention kernels: free functions on caller-owned memory, one table per instruction set,
// chosen once at run time.
//
// Thread use: the tables are *immutable*; every function is safe to call concurrently on disjoint
// outputs and scratch. Errors: none. Shapes are the caller's promise and are checked by LH_CHECK
// where that is cheap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/types.h"

namespace longhold {

// 64 keys and values of one KV head, in the layout that the kernels read: either as floats or as
// IEEE halves, which the kernels widen as they read, at half the bytes. Unused trailing keys of a
// block must hold finite numbers and be hidden by VisibleKeys or a bias of -infinity.
struct KeyBlockView {
  // [head_dim, 64], rotated to their virtual positions, 64-byte aligned
  const float* keys_t = nullptr;
  const float* values = nullptr;          // [64, head_dim], 64-byte aligned
  const float* bias = nullptr;            // [64] added to the logits (the gate), or null for zeros
  const uint16_t* half_keys_t = nullptr;  // in place of keys_t, same shape
  const uint16_t* half_values = nullptr;  // in place of values, together with half_keys_t
};

// Which keys of the concatenated blocks a query token may see: [0, min(shared, end)) and [begin,
// end). With shared = 64, begin = p - 255 and end = p + 1 this is "sinks and a window of 256".
struct VisibleKeys {
  uint32_t begin = 0;
  uint32_t end = 0;
};

// One call: some query rows that read the same KV head.
//   logit[r, j] = softcap(scale * q[r] . k[j]) + bias[j]     softcap(x) = cap * tanh(x / cap), or x
//   when cap is 0 lse[r]      = log sum_j exp(logit[r, j])                  over the visible j;
//   -infinity when none is out[r]      = sum_j exp(logit[r, j] - lse[r]) v[j]        zeros when
//   none is
// Rows come in groups of `group` that belong to one query token: row r has visible[r / group].
struct AttendCall {
  const float* q = nullptr;  // [rows, head_dim], rotated
  uint32_t rows = 0;
  uint32_t group = 1;
  uint32_t head_dim = 0;  // a multiple of 4, at most kMaxHeadDim
  std::span<const KeyBlockView> blocks;
  uint32_t shared = 0;
  const VisibleKeys* visible = nullptr;  // [rows / group]
  float scale = 1.0f;
  float softcap = 0.0f;
  float* out = nullptr;       // [rows, head_dim]
  float* lse = nullptr;       // [rows], or null
  float* key_mass = nullptr;  // [blocks * 64] += sum_r exp(logit[r, j] - lse[r]), or null
  // floats from one row's masses to the next row's: 0 sums over the rows
  size_t key_mass_stride = 0;
  float* scratch = nullptr;  // AttendScratchFloats(rows, head_dim) floats, 64-byte aligned
};

// Floats of scratch one AttendCall needs. Bounded: the keys are walked in chunks of
// kAttendChunkKeys.
size_t AttendScratchFloats(uint32_t rows, uint32_t head_dim);
inline constexpr uint32_t kAttendChunkKeys = 2048;
inline constexpr uint32_t kAttendRowsMax = 64;  // of one call; callers tile

// One call of the recall scan: int8 queries against int8 keys of many blocks.
//   logit[b, j, r]  = q_scale[r] * key_scale[b, j] * sum_c q[r, c] * (keys[b, c, j] - 128)
//   block_max[b, r] = max_j logit,   block_sum[b, r] = sum_j exp(logit - block_max)   over the
//   block's first `counts[b]` keys
struct ScanCall {
  const uint8_t* keys = nullptr;     // [blocks, head_dim / 4, 64, 4], value + 128; any alignment
  const float* key_scale = nullptr;  // [blocks, 64]
  const uint8_t* counts = nullptr;   // [blocks], 1..64 used keys
  size_t block_count = 0;
  uint32_t head_dim = 0;           // a multiple of 4, at most kMaxHeadDim
  const int8_t* q = nullptr;       // [rows, head_dim]
  const float* q_scale = nullptr;  // [rows]; holds the model's logit scale too
  uint32_t rows = 0;
  float* block_max = nullptr;  // [blocks, rows]
  float* block_sum = nullptr;  // [blocks, rows]
};

// out[r, n] += sum_k a[r, k] b[k, n]: dense, row-major, any alignment; `out` overlaps neither.
struct MultiplyCall {
  const float* a = nullptr;  // [rows, depth]
  const float* b = nullptr;  // [depth, columns]
  float* out = nullptr;      // [rows, columns]
  uint32_t rows = 0;
  uint32_t depth = 0;
  uint32_t columns = 0;
};

// All kernels of one instruction set. Every level computes the same functions; rounding differs
// within the tests' bounds.
struct KernelTable {
  std::string_view name;  // "scalar", "avx2", "avx512"
  void (*attend)(const AttendCall& call);
  void (*scan)(const ScanCall& call);
  // logits[j, r] of one block, same formula as ScanCall; `out` is [64, rows].
  void (*scan_logits)(const ScanCall& one_block, float* out);
  void (*multiply_add)(const MultiplyCall& call);
  // IEEE half <-> float, round to nearest even; any alignment.
  void (*half_to_float)(const uint16_t* in, float* out, size_t count);
  void (*float_to_half)(const float* in, uint16_t* out, size_t count);
};

// The fastest table that this processor runs, or the one that LONGHOLD_KERNELS=scalar|avx2|avx512
// names where the processor has it (else the fastest, with a line on stderr). Decided once per
// process.
const KernelTable& Kernels();
// Every table this processor runs, slowest first: for tests and benchmarks.
std::span<const KernelTable* const> SupportedKernels();

}  // namespace longhold
