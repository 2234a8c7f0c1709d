#include "attention/machine_peak.h"

#include <immintrin.h>

#include <array>

#include "attention/kernels.h"

namespace longhold {
namespace {

// Twelve independent sums hide the latency of two units with up to five cycles each. No sum is read
// before the end.
constexpr int kSums = 12;

// Each loop is a function compiled for its own instruction set (target). It is called only if
// PeakLoops has found that set. The asm keeps each sum in its register and hides its value
// from the compiler.
#define LH_PEAK_LOOP(NAME, TARGET, TYPE, ZERO, STEP)                                             \
  __attribute__((target(TARGET))) void NAME(uint64_t rounds) {                                   \
    TYPE s0 = ZERO, s1 = ZERO, s2 = ZERO, s3 = ZERO, s4 = ZERO, s5 = ZERO, s6 = ZERO, s7 = ZERO, \
         s8 = ZERO, s9 = ZERO, s10 = ZERO, s11 = ZERO;                                           \
    TYPE x = ZERO;                                                                               \
    for (uint64_t i = 0; i < rounds; ++i) {                                                      \
      asm volatile("" : "+v"(x));                                                                \
      s0 = STEP(s0);                                                                             \
      s1 = STEP(s1);                                                                             \
      s2 = STEP(s2);                                                                             \
      s3 = STEP(s3);                                                                             \
      s4 = STEP(s4);                                                                             \
      s5 = STEP(s5);                                                                             \
      s6 = STEP(s6);                                                                             \
      s7 = STEP(s7);                                                                             \
      s8 = STEP(s8);                                                                             \
      s9 = STEP(s9);                                                                             \
      s10 = STEP(s10);                                                                           \
      s11 = STEP(s11);                                                                           \
      asm volatile("" : "+v"(s0), "+v"(s1), "+v"(s2), "+v"(s3), "+v"(s4), "+v"(s5));             \
      asm volatile("" : "+v"(s6), "+v"(s7), "+v"(s8), "+v"(s9), "+v"(s10), "+v"(s11));           \
    }                                                                                            \
  }

#define LH_FMA512(s) _mm512_fmadd_ps(x, x, s)
LH_PEAK_LOOP(Fma512, "avx512f", __m512, _mm512_setzero_ps(), LH_FMA512)
#define LH_FMA256(s) _mm256_fmadd_ps(x, x, s)
LH_PEAK_LOOP(Fma256, "avx2,fma", __m256, _mm256_setzero_ps(), LH_FMA256)
#define LH_DOT512(s) _mm512_dpbusd_epi32(s, x, x)
LH_PEAK_LOOP(Dot512, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), LH_DOT512)
// Without VNNI, four products take three instructions: multiply to pairs, widen the pairs, add. All
// products are equal; the inner asm stops the compiler from computing them once for all sums.
#define LH_DOT256(s)                                                                          \
  ({                                                                                          \
    asm volatile("" : "+v"(x));                                                               \
    _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_maddubs_epi16(x, x), _mm256_set1_epi16(1))); \
  })
LH_PEAK_LOOP(Dot256, "avx2", __m256i, _mm256_setzero_si256(), LH_DOT256)
#define LH_BF16(s) _mm512_dpbf16_ps(s, (__m512bh)x, (__m512bh)x)
LH_PEAK_LOOP(Bf16, "avx512f,avx512bw,avx512bf16", __m512, _mm512_setzero_ps(), LH_BF16)

#define LH_PLAIN(s)                  \
  ({                                 \
    asm volatile("" : "+v"(x));      \
    _mm_add_ps(s, _mm_mul_ps(x, x)); \
  })
LH_PEAK_LOOP(Plain128, "sse2", __m128, _mm_setzero_ps(), LH_PLAIN)

std::array<PeakLoop, 3> Choose() {
  __builtin_cpu_init();
  const std::string_view level = Kernels().name;
  PeakLoop f32{.name = "f32",
               .instruction = "mul and add, 128 bits",
               .operations_per_round = kSums * 4 * 2,
               .run = Plain128};
  PeakLoop int8{.name = "int8"}, bf16{.name = "bf16"};
  if (level == "avx2") {
    f32 = {.name = "f32",
           .instruction = "fma, 256 bits",
           .operations_per_round = kSums * 8 * 2,
           .run = Fma256};
    int8 = {.name = "int8",
            .instruction = "maddubs, 256 bits",
            .operations_per_round = kSums * 32 * 2,
            .run = Dot256};
  } else if (level == "avx512") {
    f32 = {.name = "f32",
           .instruction = "fma, 512 bits",
           .operations_per_round = kSums * 16 * 2,
           .run = Fma512};
    int8 = {.name = "int8",
            .instruction = "vnni, 512 bits",
            .operations_per_round = kSums * 64 * 2,
            .run = Dot512};
    if (__builtin_cpu_supports("avx512bf16")) {
      bf16 = {.name = "bf16",
              .instruction = "dpbf16ps, 512 bits",
              .operations_per_round = kSums * 32 * 2,
              .run = Bf16};
    }
  }
  return {f32, int8, bf16};
}

}  // namespace

std::span<const PeakLoop> PeakLoops() {
  static const std::array<PeakLoop, 3> loops = Choose();
  return loops;
}

uint64_t SumWords(std::span<const uint64_t> words) {
  // Four portable vectors, so that neither the additions nor their latency limit the memory reads.
  typedef uint64_t Words __attribute__((vector_size(32)));
  Words sum[4] = {};
  size_t i = 0;
  for (; i + 16 <= words.size(); i += 16) {
    for (int k = 0; k < 4; ++k) {
      Words w;
      __builtin_memcpy(&w, words.data() + i + 4 * k, sizeof w);
      sum[k] += w;
    }
  }
  uint64_t total = 0;
  for (const Words& s : sum) total += s[0] + s[1] + s[2] + s[3];
  for (; i < words.size(); ++i) total += words[i];
  return total;
}

}  // namespace longhold
