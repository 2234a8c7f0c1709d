// The attention kernels: free functions on caller-owned memory. There is one table of kernels per
// instruction set; one table is chosen at run time.
//
// Thread use: the tables are *immutable*. Every function is safe to call concurrently if the calls
// write to disjoint outputs and scratch.
//
// Errors: none. The caller must pass correct shapes; LH_CHECK verifies them where that is cheap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/types.h"

namespace longhold {

// 64 keys and values of one KV head, in the layout that the kernels read. The elements are either
// float or fp16 (IEEE binary16). fp16 halves the bytes; the kernels widen it to float as they read.
//
// A block may have fewer than 64 used keys. The unused keys at its end must hold finite numbers,
// and VisibleKeys or a bias of -infinity must hide them.
struct KeyBlockView {
  // [head_dim, 64], rotated to their virtual positions, 64-byte aligned
  const float* keys_t = nullptr;
  const float* values = nullptr;          // [64, head_dim], 64-byte aligned
  const float* bias = nullptr;            // [64], added to the logits (the gate); null means zeros
  const uint16_t* half_keys_t = nullptr;  // instead of keys_t, same shape
  // instead of values, same shape; set together with half_keys_t
  const uint16_t* half_values = nullptr;
};

// Which keys of the concatenated blocks a query token may see: [0, min(shared, end)) and [begin,
// end). Example: shared = 64, begin = p - 255 and end = p + 1 give 64 attention sinks and a sliding
// window of 256 tokens.
struct VisibleKeys {
  uint32_t begin = 0;
  uint32_t end = 0;
};

// One call: a set of query rows that read the same KV head.
//   logit[r, j] = softcap(scale * q[r] . k[j]) + bias[j]
//   lse[r]      = log sum_j exp(logit[r, j])               over the visible j
//   out[r]      = sum_j exp(logit[r, j] - lse[r]) v[j]     over the visible j
//   softcap(x)  = cap * tanh(x / cap), or x if cap is 0
// If no key is visible, lse[r] is -infinity and out[r] is zeros.
//
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
  // Distance in floats between the masses of two rows. 0 adds all rows into one sum.
  size_t key_mass_stride = 0;
  float* scratch = nullptr;  // AttendScratchFloats(rows, head_dim) floats, 64-byte aligned
};

// Size of the scratch of one AttendCall, in floats. It does not grow with the number of keys: the
// keys are processed in chunks of kAttendChunkKeys.
size_t AttendScratchFloats(uint32_t rows, uint32_t head_dim);
inline constexpr uint32_t kAttendChunkKeys = 2048;
// Rows per call, at most. Callers split larger calls into tiles.
inline constexpr uint32_t kAttendRowsMax = 64;

// One call of the recall scan: int8 queries against the int8 keys of many blocks.
//   logit[b, j, r]  = q_scale[r] * key_scale[b, j] * sum_c q[r, c] * (keys[b, c, j] - 128)
//   block_max[b, r] = max_j logit[b, j, r]
//   block_sum[b, r] = sum_j exp(logit[b, j, r] - block_max[b, r])
// where j runs over the first counts[b] keys of block b.
struct ScanCall {
  const uint8_t* keys = nullptr;     // [blocks, head_dim / 4, 64, 4], value + 128; any alignment
  const float* key_scale = nullptr;  // [blocks, 64]
  const uint8_t* counts = nullptr;   // [blocks], number of used keys, 1..64
  size_t block_count = 0;
  uint32_t head_dim = 0;           // a multiple of 4, at most kMaxHeadDim
  const int8_t* q = nullptr;       // [rows, head_dim]
  const float* q_scale = nullptr;  // [rows]; includes the model's logit scale
  uint32_t rows = 0;
  float* block_max = nullptr;  // [blocks, rows]
  float* block_sum = nullptr;  // [blocks, rows]
};

// out[r, n] += sum_k a[r, k] b[k, n]: dense, row-major, any alignment. `out` must not overlap
// `a` or `b`.
struct MultiplyCall {
  const float* a = nullptr;  // [rows, depth]
  const float* b = nullptr;  // [depth, columns]
  float* out = nullptr;      // [rows, columns]
  uint32_t rows = 0;
  uint32_t depth = 0;
  uint32_t columns = 0;
};

// All kernels of one instruction set. Every table computes the same functions; results differ only
// by rounding, within the bounds that the tests state.
struct KernelTable {
  std::string_view name;  // "scalar", "avx2", "avx512"
  void (*attend)(const AttendCall& call);
  void (*scan)(const ScanCall& call);
  // logits[j, r] of one block, by ScanCall's formula; `out` is [64, rows].
  void (*scan_logits)(const ScanCall& one_block, float* out);
  void (*multiply_add)(const MultiplyCall& call);
  // fp16 <-> float, rounded to nearest even; any alignment.
  void (*half_to_float)(const uint16_t* in, float* out, size_t count);
  void (*float_to_half)(const float* in, uint16_t* out, size_t count);
};

// The kernel table that this process uses, chosen once. By default it is the fastest one that this
// processor supports. LONGHOLD_KERNELS=scalar|avx2|avx512 selects another one. If the processor
// does not support that one, the fastest is used and a line is printed on stderr.
const KernelTable& Kernels();
// Every table that this processor supports, slowest first. For tests and benchmarks.
std::span<const KernelTable* const> SupportedKernels();

}  // namespace longhold
