#include "attention/kernels.h"

#include <cpuid.h>

#include <array>
#include <cstdio>
#include <cstdlib>

#include "attention/geometry.h"
#include "attention/kernels_isa.h"
#include "base/status.h"

namespace longhold {
namespace {

static_assert(kQueryStride >= kMaxHeadDim);

template <const IsaKernels& isa>
void Attend(const AttendCall& call) {
  if (call.rows == 0) return;
  LH_CHECK(call.rows <= kAttendRowsMax);
  LH_CHECK(call.group > 0 && call.rows % call.group == 0);
  LH_CHECK(call.head_dim > 0 && call.head_dim % 4 == 0 && call.head_dim <= kMaxHeadDim);
  LH_CHECK(call.blocks.size() <= UINT32_MAX / kBlockTokens);  // key indices are 32 bits
  LH_CHECK(call.q != nullptr && call.visible != nullptr && call.out != nullptr &&
           call.scratch != nullptr);
  isa.attend({.q = call.q,
              .rows = call.rows,
              .group = call.group,
              .head_dim = call.head_dim,
              .blocks = call.blocks.data(),
              .block_count = static_cast<uint32_t>(call.blocks.size()),
              .shared = call.shared,
              .visible = call.visible,
              .scale = call.scale,
              .softcap = call.softcap,
              .out = call.out,
              .lse = call.lse,
              .key_mass = call.key_mass,
              .key_mass_stride = call.key_mass_stride,
              .scratch = call.scratch});
}

template <const IsaKernels& isa>
void Scan(const ScanCall& call) {
  LH_CHECK(call.head_dim > 0 && call.head_dim % 4 == 0 && call.head_dim <= kMaxHeadDim);
  isa.scan(call);
}

template <const IsaKernels& isa>
void ScanLogits(const ScanCall& one_block, float* out) {
  LH_CHECK(one_block.head_dim > 0 && one_block.head_dim % 4 == 0 &&
           one_block.head_dim <= kMaxHeadDim);
  isa.scan_logits(one_block, out);
}

template <const IsaKernels& isa>
void MultiplyAdd(const MultiplyCall& call) {
  isa.multiply_add(call);
}

template <const IsaKernels& isa>
void HalfToFloat(const uint16_t* in, float* out, size_t count) {
  isa.half_to_float(in, out, count);
}

template <const IsaKernels& isa>
void FloatToHalf(const float* in, uint16_t* out, size_t count) {
  isa.float_to_half(in, out, count);
}

template <const IsaKernels& isa>
constexpr KernelTable Table(std::string_view name) {
  return {.name = name,
          .attend = Attend<isa>,
          .scan = Scan<isa>,
          .scan_logits = ScanLogits<isa>,
          .multiply_add = MultiplyAdd<isa>,
          .half_to_float = HalfToFloat<isa>,
          .float_to_half = FloatToHalf<isa>};
}

constexpr KernelTable kScalarTable = Table<kScalarKernels>("scalar");
constexpr KernelTable kAvx2Table = Table<kAvx2Kernels>("avx2");
constexpr KernelTable kAvx512Table = Table<kAvx512Kernels>("avx512");

// clang 14's __builtin_cpu_supports does not know F16C.
bool HasF16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HasF16c();
}

// All features that kernels_avx512.cc is compiled for. Processors with AVX-512 but without VNNI
// (Skylake-SP) use the avx2 table. AMX is not used on purpose: a process needs the kernel's
// permission for its tile state, and that state is large to save.
bool HasAvx512() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

struct Supported {
  std::array<const KernelTable*, 3> tables{};
  size_t count = 0;
};

const Supported& SupportedOnce() {
  static const Supported supported = [] {
    __builtin_cpu_init();
    Supported s;
    s.tables[s.count++] = &kScalarTable;
    if (HasAvx2()) s.tables[s.count++] = &kAvx2Table;
    if (HasAvx512()) s.tables[s.count++] = &kAvx512Table;
    return s;
  }();
  return supported;
}

const KernelTable& Choose() {
  const std::span<const KernelTable* const> tables = SupportedKernels();
  const char* wanted = std::getenv("LONGHOLD_KERNELS");
  if (wanted == nullptr || *wanted == '\0') return *tables.back();
  for (const KernelTable* table : tables) {
    if (table->name == wanted) return *table;
  }
  std::fprintf(stderr,
               "LONGHOLD_KERNELS=%s: this processor does not support these kernels; using %.*s\n",
               wanted, static_cast<int>(tables.back()->name.size()), tables.back()->name.data());
  return *tables.back();
}

}  // namespace

size_t AttendScratchFloats(uint32_t rows, uint32_t head_dim) {
  LH_CHECK(rows <= kAttendRowsMax && head_dim <= kMaxHeadDim);
  return kScratchFloats;  // the size of one register tile's data, whatever the call
}

const KernelTable& Kernels() {
  static const KernelTable& chosen = Choose();
  return chosen;
}

std::span<const KernelTable* const> SupportedKernels() {
  const Supported& s = SupportedOnce();
  return {s.tables.data(), s.count};
}

}  // namespace longhold
