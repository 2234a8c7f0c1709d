// What one core can do at best, to hold the kernels against: loops that stay in registers, and one
// that only reads memory.
//
// Thread use: *immutable*; every function is safe to call concurrently. The caller runs them on as
// many workers as it wants to know about, and takes the time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace longhold {

// `run(rounds)` does rounds * operations_per_round operations, a multiply-add counting as two. null
// where this processor has no such instruction, or LONGHOLD_KERNELS keeps our kernels from it.
struct PeakLoop {
  std::string_view name;         // "f32"
  std::string_view instruction;  // "fma, 512 bits"; "" where there is none
  uint64_t operations_per_round = 0;
  void (*run)(uint64_t rounds) = nullptr;
};

// f32, int8 and bf16 products, in this order, by the widest instructions that Kernels() may use.
std::span<const PeakLoop> PeakLoops();

// Reads every word once and returns their sum, so that no read can be left out.
uint64_t SumWords(std::span<const uint64_t> words);

}  // namespace longhold
