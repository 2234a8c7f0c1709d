// The peak throughput of one core, to compare the kernels with: compute loops that stay in
// registers, and one loop that only reads memory.
//
// Thread use: *immutable*; every function is safe to call concurrently. The caller runs them on as
// many threads as it wants to measure, and takes the time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace longhold {

// `run(rounds)` does rounds * operations_per_round operations; a multiply-add counts as two. `run`
// is null if this processor has no such instruction, or if LONGHOLD_KERNELS excludes it.
struct PeakLoop {
  std::string_view name;         // "f32"
  std::string_view instruction;  // "fma, 512 bits"; "" if there is none
  uint64_t operations_per_round = 0;
  void (*run)(uint64_t rounds) = nullptr;
};

// Products in f32, int8 and bf16, in this order, by the widest instructions that Kernels() may use.
std::span<const PeakLoop> PeakLoops();

// Reads every word once and returns the sum, so that the compiler cannot remove any read.
uint64_t SumWords(std::span<const uint64_t> words);

}  // namespace longhold
